"""Features and pixels: what lies under a feature, and features enlarged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsss_ray.core.values import Axis
from wsss_ray.nets.deeplab import LargeFov, build_segmenter
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops.grid import at_features, axes, enlarge, resample
from wsss_ray.ops.seeds import resize_maps

VGG = Axis(first=0.5 / 321, step=8 / 321)


def test_labels_of_vgg_lie_at_multiples_of_8():
    label = torch.arange(321, dtype=torch.int32).expand(2, 321, 321)
    found = at_features(label, (41, 41), VGG, VGG)
    assert found.shape == (2, 41, 41)
    assert found[0, 0].tolist() == list(range(0, 321, 8))
    assert axes(Vgg16(weights="none", width=0.125).build(), 321, 321) == (VGG, VGG)


def test_a_score_at_a_feature_stays_at_its_pixel():
    scores = torch.rand(1, 3, 41, 41, dtype=torch.float64)
    large = enlarge(scores, 321, 321, VGG, VGG)
    torch.testing.assert_close(large[..., ::8, ::8], scores, rtol=0, atol=1e-12)
    torch.testing.assert_close(large[..., 4, 4], scores[..., :2, :2].mean(dim=(-2, -1)))


@pytest.mark.parametrize(("size", "cells"), [((64, 48), (16, 12)), ((7, 5), (7, 5)), ((33, 20), (1, 5))])
def test_enlarging_is_that_of_maps_and_of_torch(size, cells):
    maps = torch.rand(2, *cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = (Axis(first=0.5 / count, step=1 / count) for count in cells)  # cells that divide the image evenly
    ours = enlarge(maps, *size, rows, columns)
    torchs = torch.nn.functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)
    crooked = Axis(first=0.13, step=0.11)
    found = enlarge(maps, *size, crooked, columns)
    np.testing.assert_allclose(found, resize_maps(maps.numpy().astype(np.float32), *size, crooked, columns), atol=1e-6)
    assert enlarge(torch.zeros(0, 4, 4), 8, 8, rows, rows).shape == (0, 8, 8)


def test_enlarging_has_a_gradient_and_constants_stay():
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    rows, columns = Axis(first=0.02, step=0.3), Axis(first=0.1, step=0.2)
    assert torch.autograd.gradcheck(lambda z: enlarge(z, 9, 11, rows, columns), (x,))
    assert torch.allclose(enlarge(torch.ones(1, 1, 3, 4), 9, 11, rows, columns), torch.ones(1))


def test_resampling_to_a_finer_grid_and_back():
    ramp = torch.linspace(0, 1, 41, dtype=torch.float64).expand(1, 1, 41, 41)
    half = Axis(first=0.5 / 161, step=8 / 161)  # the same network on an image half as large
    there = resample(ramp, (21, 21), source=(VGG, VGG), target=(half, half))
    back = resample(there, (41, 41), source=(half, half), target=(VGG, VGG))
    torch.testing.assert_close(back, ramp, rtol=0, atol=0.01)  # their borders differ by a quarter of a pixel


def test_a_network_reads_labels_and_enlarges_on_its_own_grid():
    trunk = SmallNet(widths=(4, 4), strides=(2, 2))
    net = build_segmenter(trunk, LargeFov(hidden=4, dilation=1), 2).eval()
    logits = net(torch.rand(1, 3, 33, 33) * 255)
    assert logits.shape[-2:] == (9, 9)
    label = torch.arange(33)[None, :, None].expand(1, 33, 33)
    assert net.under(label, logits)[0, :, 0].tolist() == list(range(0, 33, 4))
    assert torch.allclose(net.enlarge(logits, 33, 33)[..., ::4, ::4], logits, atol=1e-6)
