"""Seeds from maps: where a feature lies, who wins a pixel, background cues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsss_ray.core.threshold import Recipe
from wsss_ray.core.values import IGNORE, Axis, Maps
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops.background import CamBackground, SaliencyBackground
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.grid import axes
from wsss_ray.ops.seeds import recompute, resize_maps

MIDDLES = {n: Axis(first=0.5 / n, step=1 / n) for n in (2, 3, 4, 8)}


def centred(trunk: nn.Module) -> nn.Module:
    """The same geometry with nothing but middles: kernels of a one in the centre, means for maxima, no norms, no rectifiers."""
    for module in trunk.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.ReLU | nn.ReLU6 | nn.GroupNorm | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                nn.init.zeros_(child.weight)
                rows, columns = (side // 2 for side in child.weight.shape[2:])
                child.weight.data[:, :, rows, columns] = 1
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    return trunk


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (Vgg16(weights="none", width=0.125), 321),
        (Vgg16(weights="none", width=0.125, pool5=True), 300),
        (SmallNet(), 64),
        (SmallNet(widths=(8, 16), strides=(2, 1)), 33),
        *((EfficientNetLite0(weights="none", output_stride=stride), size) for stride in (8, 16, 32) for size in (256, 257, 300)),
    ],
    ids=str,
)
def test_centres_are_those_of_the_receptive_fields(config, size):
    if config.kind() == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs wsss-ray[efficientnet]")
    trunk = centred(config.build()).double()
    first, step = trunk.centres(size)
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    features = trunk(image)
    middle = features.shape[-1] // 2
    for cell in (middle, middle + 1):
        (grad,) = torch.autograd.grad(features[0, 0, middle, cell], image, retain_graph=True)
        seen = grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()
        assert len(seen) < size // 2
        assert (seen[0] + seen[-1]).item() / 2 == pytest.approx(first + cell * step)


def test_a_map_keeps_its_place():
    """A ramp over the features is a ramp over the pixels, wherever the features lie."""
    axis = Axis(first=0.5 / 41, step=8 / 41)  # features at pixels 0, 8, .. 40
    ramp = np.arange(6, dtype=np.float32)[None, None].repeat(6, axis=1)
    tall = resize_maps(ramp, 41, 41, axis, axis)
    np.testing.assert_allclose(tall[0, 0], np.arange(41) / 8, rtol=1e-6)
    np.testing.assert_allclose(tall[0, :, 17], 17 / 8, rtol=1e-6)


def test_resizing_to_its_own_cells_changes_nothing():
    maps = np.random.default_rng(0).random((2, 3, 4), np.float32)
    np.testing.assert_allclose(resize_maps(maps, 3, 4, MIDDLES[3], MIDDLES[4]), maps, rtol=1e-6)
    assert resize_maps(maps[:0], 9, 7, MIDDLES[3], MIDDLES[4]).shape == (0, 9, 7)


def test_axis_of_a_trunk_is_in_shares_of_the_side():
    axis = axes(Vgg16(weights="none", width=0.125).build(), 321, 321)[0]
    assert (axis.first, axis.step) == pytest.approx((0.5 / 321, 8 / 321), abs=4 / 321)
    assert axis.step == pytest.approx(8 / 321)


def test_the_highest_mean_above_theta_by_hand():
    peak = np.array([[[0.9, 0.4, 0.9, 0.35]], [[0.1, 0.4, 0.9, 0.2]]], np.float32)
    mean = np.array([[[0.5, 0.2, 0.3, 0.3]], [[0.6, 0.3, 0.3, 0.1]]], np.float32)
    nowhere = np.zeros((1, 4), np.bool_)
    seed = recompute(Recipe(winner="mean"), 0.35, peak, mean, nowhere, classes=[2, 7])
    assert seed.tolist() == [[3, 8, 3, IGNORE]], "alone; the higher mean; the first on a tie; not above theta"
    assert seed.dtype == np.uint8
    assert (recompute(Recipe(), 0.3, peak[:0], mean[:0], nowhere, []) == IGNORE).all()
    filled = recompute(Recipe(winner="peak", unclaimed="background"), 0.35, peak, mean, nowhere, [2, 7])
    assert filled.tolist() == [[3, 3, 3, 0]], "the first on a tie of peaks; background where nothing is above"
    by_mean = recompute(Recipe(source="mean", winner="peak"), 0.25, peak, mean, nowhere, [2, 7])
    assert by_mean.tolist() == [[3, 8, 3, 3]], "the mean claims, the peak decides"


@pytest.mark.parametrize(("conflict", "expected"), [("class", [0, 3, 3]), ("background", [0, 0, 3]), ("ignore", [0, IGNORE, 3])])
def test_background_and_conflicts(conflict, expected):
    peak = np.array([[[0.1, 0.9, 0.9]]], np.float32)
    cues = np.array([[True, True, False]])
    assert recompute(Recipe(conflict=conflict), 0.5, peak, peak, cues, [2]).tolist() == [expected]
    assert cues.tolist() == [[True, True, False]], "the argument stays as it was"


@pytest.mark.parametrize(
    ("conflict", "expected"),
    [("class", [3, IGNORE, IGNORE, 0]), ("background", [0, 0, IGNORE, 0]), ("ignore", [IGNORE, IGNORE, IGNORE, 0])],
)
def test_a_disputed_pixel_that_is_a_cue(conflict, expected):
    """One claims and is a cue; two claim and are a cue; two claim; nobody claims a cue."""
    peak = np.array([[[0.9, 0.9, 0.9, 0.1]], [[0.1, 0.8, 0.8, 0.1]]], np.float32)
    cues = np.array([[True, True, False, True]])
    recipe = Recipe(winner="nobody", conflict=conflict, unclaimed="background")
    assert recompute(recipe, 0.5, peak, peak, cues, [2, 7]).tolist() == [expected]


def test_background_cues():
    peak = np.array([[[0.1, 0.3]], [[0.15, 0.0]]], np.float32)
    saliency = np.array([[0.05, 0.06]], np.float32)
    assert CamBackground(threshold=0.2).cues(peak, None).tolist() == [[True, False]]
    assert SaliencyBackground(threshold=0.06).cues(peak, saliency).tolist() == [[True, False]]
    assert ThresholdSeeds(background=SaliencyBackground()).needs_saliency
    assert not ThresholdSeeds(background=CamBackground()).needs_saliency


def test_a_crf_fills_what_the_rule_left_open_with_present_labels_only():
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, 12:] = 230
    peak = np.zeros((1, 24, 24), np.float32)
    peak[0, 2:22, 14:24] = 1.0
    maps = Maps((4,), peak, peak, rows=Axis(0.5 / 24, 1 / 24), columns=Axis(0.5 / 24, 1 / 24))
    plain = ThresholdSeeds(theta=0.5, background=None)
    assert set(np.unique(plain.seed(image, maps, None))) == {5, IGNORE}
    rule = ThresholdSeeds(theta=0.5, background=CamBackground(threshold=0.4), crf=DenseCrf(iterations=5, bilateral_sxy=20))
    filled = rule.seed(image, maps, None)
    assert (filled[:, :12] == 0).all(), "the dark half is background"
    assert (filled[:, 12:] == 5).all()
    nothing = ThresholdSeeds(theta=0.5, background=None, crf=DenseCrf())
    empty = Maps((4,), peak * 0, peak * 0, maps.rows, maps.columns)
    assert (nothing.seed(image, empty, None) == IGNORE).all(), "no cue at all: nothing to refine"
