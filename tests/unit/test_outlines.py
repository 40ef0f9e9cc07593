"""Polygons along the edges of pixels: pycocotools draws exactly the pixels that they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from wsss_ray.ops.outlines import outlines

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2


def drawn(rings, height, width):
    inside_HW = np.zeros((height, width), bool)
    for ring in rings:
        flat = [float(value) for corner in ring for value in corner]
        inside_HW |= coco_mask.decode(coco_mask.frPyObjects([flat], height, width))[..., 0] > 0
    return inside_HW


def area(ring):
    x_N, y_N = np.array(ring).T
    return (x_N @ np.roll(y_N, -1) - y_N @ np.roll(x_N, -1)) / 2


def test_by_hand():
    assert outlines(np.zeros((3, 4), bool)) == []
    assert outlines(np.array([[0, 0, 0], [0, 1, 1]], bool)) == [[(1, 1), (3, 1), (3, 2), (1, 2)]]
    assert outlines(np.array([[1, 0], [0, 1]], bool)) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]
    (ring,) = outlines(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    assert area(ring) == 8, "the hole is not filled"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.9])
def test_every_pixel_comes_back(share):
    rng = np.random.default_rng(int(100 * share))
    for _ in range(150):
        height, width = rng.integers(1, 14, 2)
        inside_HW = rng.random((height, width)) < share
        rings = outlines(inside_HW)
        assert len(rings) == ndimage.label(inside_HW)[1]
        np.testing.assert_array_equal(drawn(rings, height, width), inside_HW)
        assert sum(map(area, rings)) == inside_HW.sum()
        for ring in rings:
            sides = np.diff([*ring, ring[0]], axis=0)
            assert ((sides == 0).sum(1) >= 1).all(), "level or upright"


def test_holes_in_a_row_and_in_each_other():
    inside_HW = np.ones((9, 20), bool)
    for x in (2, 5, 11):
        inside_HW[3:6, x : x + 2] = False
    inside_HW[1:8, 13:19] = False
    inside_HW[3:6, 15:17] = True
    rings = outlines(inside_HW)
    assert len(rings) == 2
    np.testing.assert_array_equal(drawn(rings, 9, 20), inside_HW)
