"""The threshold in the report: every theta counted at once, what the page computes with, what is read for it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field, ValidationError

from tests.recipes import RULES, CalledSeeds, RecipeSeeds
from tests.report_set import IMAGES, fill
from tests.unit.test_report import CLASSES
from wsss_ray.core.plan import Stage, seed
from wsss_ray.core.rules import SeedRule
from wsss_ray.core.threshold import Recipe, Threshold
from wsss_ray.core.values import IGNORE, Axis, Maps
from wsss_ray.methods.common.seed_rules import CrfSeeds, ThresholdSeeds
from wsss_ray.methods.mdc import RegionSeeds
from wsss_ray.methods.rrm import ReliableRegions
from wsss_ray.ops.background import CamBackground, PowerBackground, SaliencyBackground
from wsss_ray.ops.confusion import confusion
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.seeds import confusions_over_thresholds, cut, recompute
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.headings import FIGURES
from wsss_ray.reporting.report import embedded
from wsss_ray.reporting.report.thresholds import THETAS, Curve, Rule, curve
from wsss_ray.storage.store import RunStore


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, vars(rule).values())))
def test_every_theta_at_once_is_each_theta_alone(rule: RecipeSeeds) -> None:
    recipe = rule.recipe
    rng = np.random.default_rng(3)
    peak = rng.random((3, 20, 30)).astype(np.float32).round(2)  # so that some lie on a theta
    mean = (peak * rng.random((3, 20, 30)).round(1)).astype(np.float32)  # with ties
    mask = rng.choice(np.array([0, 1, 4, 6, IGNORE], np.uint8), (20, 30))
    cue, classes = rng.random((20, 30)) < 0.3, (0, 3, 5)
    for count in (3, 1):
        found = confusions_over_thresholds(recipe, THETAS, peak[:count], mean[:count], cue, classes[:count], mask, 7)
        for theta, matrix in zip(THETAS, found, strict=True):
            label = recompute(recipe, float(theta), peak[:count], mean[:count], cue, classes[:count])
            np.testing.assert_array_equal(matrix, confusion(mask, label, 7), err_msg=f"{count} at {theta}")


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(region="of_pixels", winner="nobody")], ids=str)
def test_an_image_without_tags_is_all_cues(recipe: Recipe) -> None:
    none, cue = np.zeros((0, 2, 2), np.float32), np.array([[True, False], [False, False]])
    found = confusions_over_thresholds(recipe, THETAS, none, none, cue, (), np.zeros((2, 2), np.uint8), 2)
    assert (found == [[1, 0, 3], [0, 0, 0]]).all()


def rule_of(part: SeedRule) -> Rule | None:
    return Rule.of(Stage("seed", "seeds", part))


def known_rule(part: SeedRule) -> Rule:
    rule = rule_of(part)
    assert rule is not None
    return rule


def test_rules_are_those_that_name_a_threshold() -> None:
    plain = known_rule(ThresholdSeeds(theta=0.4, background=None))
    assert (plain.theta, plain.symbol, plain.recipe, plain.crf) == (0.4, "θ", Recipe(winner="mean"), False)
    peak = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    cues = plain.cues(peak, None)
    assert cues is not None
    assert not cues.any()
    filled = known_rule(CrfSeeds(background=CamBackground(threshold=0.7)))
    assert (filled.theta, filled.symbol, filled.crf) == (0.7, "θ", True)
    region = known_rule(RegionSeeds(share=0.2, reading="of_pixels"))
    assert (region.theta, region.symbol, region.crf) == (0.2, "share", False)
    for none in (CrfSeeds(background=PowerBackground()), CrfSeeds(), ReliableRegions()):
        assert rule_of(none) is None
    assert known_rule(ThresholdSeeds(background=SaliencyBackground())).cues(peak, None) is None
    assert known_rule(ThresholdSeeds(crf=DenseCrf())).crf


@pytest.mark.parametrize(
    "part",
    [
        ThresholdSeeds(background=PowerBackground(gamma=3), conflict="background"),
        ThresholdSeeds(background=SaliencyBackground(threshold=0.5), conflict="ignore"),
        CrfSeeds(background=CamBackground(threshold=0.7), crf=None),
        *(RegionSeeds(reading=reading, background=CamBackground()) for reading in ("of_maximum", "below_maximum", "of_pixels")),
    ],
    ids=str,
)
def test_a_recipe_makes_the_seeds_of_its_rule_at_any_threshold(part: SeedRule) -> None:
    rng = np.random.default_rng(0)
    peak, mean = (rng.random((3, 5, 6)).astype(np.float32).round(1) for _ in range(2))
    maps = Maps((2, 5, 9), peak, mean, Axis(0.1, 0.2), Axis(0.08, 0.17))
    image, saliency = np.zeros((23, 31, 3), np.uint8), rng.random((23, 31)).astype(np.float32)
    several = set()
    for theta in THETAS[5:-5:10]:
        changed = known_rule(part).at(float(theta))
        assert changed is not None
        assert known_rule(changed).theta == theta
        label = changed.seed(image, maps, saliency)
        np.testing.assert_array_equal(label, cut(changed, image, maps, saliency))
        several.add(label.tobytes())
    assert len(several) == 10, "the threshold is what the rule follows"


def test_a_threshold_that_the_field_does_not_take_is_left_out() -> None:
    rule = known_rule(RegionSeeds())
    assert rule.at(0.0) is None
    assert rule.at(0.01) == RegionSeeds(share=0.01)


class FailingSeeds(CalledSeeds):
    """A rule of somebody who never tried a high threshold."""

    def seed(self, image_HWC: Any, maps: Any, saliency_HW: Any) -> Any:
        if self.threshold > 0.9:
            raise ZeroDivisionError("nothing is left")
        return super().seed(image_HWC, maps, saliency_HW)


class NarrowSeeds(CalledSeeds):
    """A rule that takes no low threshold."""

    threshold: float = Field(default=0.5, gt=0.1)


def test_a_rule_that_gives_no_recipe_is_called(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    inputs = next(stage for stage in fill(store) if stage.kind == "seed").inputs

    def curve_of(part: SeedRule) -> Curve | None:
        rule = Rule.of(Stage("seed", "seeds", part, inputs))
        assert rule is not None
        return curve(store, rule, len(CLASSES) + 1, IMAGES)

    fields = {"region": "of_maximum", "winner": "nobody", "conflict": "ignore"}
    followed = curve_of(RecipeSeeds(**fields))
    assert followed is not None
    assert followed.images == IMAGES
    assert len(set(followed.figures["miou"])) > 10
    assert curve_of(CalledSeeds(**fields)) == followed
    narrow = curve_of(NarrowSeeds(**fields))
    assert narrow is not None
    for name in FIGURES:
        assert narrow.figures[name] == [None] * 11 + followed.figures[name][11:]
    assert curve_of(FailingSeeds(**fields)) is None


class WrongSeeds(SeedRule):
    """A rule of somebody who mistook the name of a field, or its range."""

    names: str = "treshold"
    threshold: float = 0.5
    percent: float = Field(default=50, ge=0, le=100)

    @property
    def by_threshold(self) -> Threshold:
        return Threshold(field=self.names)

    def seed(self, image_HWC: Any, maps: Any, saliency_HW: Any) -> Any:
        return image_HWC[..., 0]


def test_a_name_that_is_no_threshold_shows_when_the_plan_is_made() -> None:
    data = Stage("ingest", "weak", RegionSeeds())
    with pytest.raises(ValueError, match=r"^wrong_seeds\.treshold: a threshold is a number from 0 to 1, here is None\. Give "):
        seed(WrongSeeds(), data, data)
    with pytest.raises(ValueError, match=r"^wrong_seeds\.percent: a threshold is a number from 0 to 1, here is 50"):
        seed(WrongSeeds(names="percent"), data, data)
    assert seed(WrongSeeds(names="threshold"), data, data).component == WrongSeeds(names="threshold")
    with pytest.raises(ValidationError, match="'above', 'of_maximum', 'below_maximum' or 'of_pixels'"):
        Recipe(region="over")  # type: ignore[arg-type]


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
