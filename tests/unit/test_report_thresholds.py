"""The threshold in the report: every theta counted at once, what the page computes with, what is read for it."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from wsss_ray.core.contracts import IGNORE, Axis, Maps
from wsss_ray.core.plan import Stage
from wsss_ray.methods.common.seed_rules import CrfSeeds, ThresholdSeeds
from wsss_ray.ops.background import CamBackground, PowerBackground, SaliencyBackground
from wsss_ray.ops.confusion import confusion
from wsss_ray.ops.seeds import add_background, any_above
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report import embedded
from wsss_ray.reporting.report.thresholds import THETAS, Rule, sweep


@pytest.mark.parametrize("conflict", ["class", "background", "ignore"])
def test_every_theta_at_once_is_each_theta_alone(conflict: str) -> None:
    rng = np.random.default_rng(3)
    peak = rng.random((3, 20, 30)).astype(np.float32).round(2)  # so that some lie on a theta
    mean = (peak * rng.random((3, 20, 30)).round(1)).astype(np.float32)  # with ties
    mask = rng.choice(np.array([0, 1, 4, 6, IGNORE], np.uint8), (20, 30))
    cue, classes = rng.random((20, 30)) < 0.3, (0, 3, 5)
    found = sweep(peak, mean, classes, cue, conflict, mask, THETAS, 7)
    for theta, matrix in zip(THETAS, found, strict=True):
        seed = add_background(any_above(peak, mean, classes, float(theta)), cue, conflict)
        np.testing.assert_array_equal(matrix, confusion(mask, seed, 7))


def test_an_image_without_tags_is_all_cues() -> None:
    none, cue = np.zeros((0, 2, 2), np.float32), np.array([[True, False], [False, False]])
    found = sweep(none, none, (), cue, "class", np.zeros((2, 2), np.uint8), THETAS, 2)
    assert (found == [[1, 0, 3], [0, 0, 0]]).all()


def rule_of(part: ThresholdSeeds | CrfSeeds) -> Rule | None:
    return Rule.of(Stage("seed", "seeds", part))


def test_rules_are_those_that_a_threshold_decides() -> None:
    plain = rule_of(ThresholdSeeds(theta=0.4, background=None))
    assert plain is not None
    assert (plain.theta, plain.order, plain.crf) == (0.4, "mean", False)
    peak = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    assert not plain.cues(peak, None).any()
    filled = rule_of(CrfSeeds(background=CamBackground(threshold=0.7)))
    assert filled is not None
    assert (filled.theta, filled.order, filled.crf) == (0.7, "peak", True)
    seed = add_background(any_above(peak, peak, (2, 5), 0.7), filled.cues(peak, None), filled.conflict)
    unrefined = CrfSeeds(background=CamBackground(threshold=0.7), crf=None)
    pixel = Axis(first=0.125, step=0.25)
    maps = Maps((2, 5), peak_CHW=peak, mean_CHW=peak, rows=pixel, columns=pixel)
    np.testing.assert_array_equal(seed, unrefined.seed(np.zeros((4, 4, 3), np.uint8), maps, None))
    assert rule_of(CrfSeeds(background=PowerBackground())) is None
    salient = rule_of(ThresholdSeeds(background=SaliencyBackground()))
    assert salient is not None
    assert salient.cues(peak, None) is None


@pytest.mark.parametrize("shape", [(1, 1), (7, 600), (40, 30), (0, 3)])
def test_runs_hold_every_label(shape: tuple[int, int]) -> None:
    label = np.random.default_rng(1).choice(np.array([0, 3, IGNORE], np.uint8), shape, p=[0.9, 0.05, 0.05])
    pairs = np.frombuffer(base64.b64decode(embedded.runs(label)), np.uint8).reshape(-1, 2)
    np.testing.assert_array_equal(np.repeat(pairs[:, 0], pairs[:, 1]), label.ravel())
    assert embedded.runs(np.ones((1, 300), np.bool_)) == base64.b64encode(bytes([1, 255, 1, 45])).decode()


def test_maps_go_along_once_if_all_estimates_agree_and_not_at_all_if_too_large() -> None:
    axis, rng = Axis(0.5, 0.1), np.random.default_rng(0)
    one, other = (rng.random((2, 5, 6)).astype(np.float32) for _ in range(2))
    assert embedded.maps_json(Maps((0, 1), one, one, axis, axis), mean=True)["mean"] is None
    assert embedded.maps_json(Maps((0, 1), one, other, axis, axis), mean=True)["mean"] is not None
    large = rng.random((9, 60, 60)).astype(np.float32)
    assert embedded.maps_json(Maps(tuple(range(9)), large, large, axis, axis), mean=True) is None


def test_spread_takes_the_first_and_keeps_the_order() -> None:
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced([3, 1], 4) == [3, 1]
