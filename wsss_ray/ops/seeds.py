"""From localization maps to label maps: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.contracts import IGNORE, Axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import LabelArray, MapArray


def resize_maps(map_CHW: MapArray, height: int, width: int, rows: Axis, columns: Axis) -> MapArray:
    """Bilinear resize of maps to the pixels of an image, each feature staying at its own centre; constant beyond the border."""
    if not len(map_CHW):
        return np.zeros((0, height, width), np.float32)
    below, above, share = _neighbours(height, map_CHW.shape[1], rows)
    tall = map_CHW[:, below] * (1 - share[:, None]) + map_CHW[:, above] * share[:, None]
    left, right, share = _neighbours(width, map_CHW.shape[2], columns)
    return np.asarray(tall[:, :, left] * (1 - share) + tall[:, :, right] * share, np.float32)


def _neighbours(pixels: int, cells: int, axis: Axis) -> tuple[NDArray[np.intp], NDArray[np.intp], MapArray]:
    """For every pixel the features before and behind it, and the share of the latter."""
    place = ((np.arange(pixels) + 0.5) / pixels - axis.first) / axis.step
    place = place.clip(0, cells - 1)
    before = np.floor(place).astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), (place - before).astype(np.float32)


def any_above(peak_CHW: MapArray, mean_CHW: MapArray, classes: Sequence[int], theta: float) -> LabelArray:
    """FickleNet, section 3.2.2: a pixel belongs to a class if any of its maps exceeds `theta` there (so if their maximum does).

    Where several classes do, the one with the highest mean map wins (the first on a tie); where none does, `IGNORE`. Classes are
    0-based, the labels returned are class + 1.
    """
    height, width = peak_CHW.shape[1:]
    if not len(classes):
        return np.full((height, width), IGNORE, np.uint8)
    claimed_CHW = peak_CHW > theta
    winner_HW = np.where(claimed_CHW, mean_CHW, -1.0).argmax(axis=0)
    labels = np.asarray(classes, np.uint8) + 1
    seed: LabelArray = np.where(claimed_CHW.any(axis=0), labels[winner_HW], np.uint8(IGNORE))
    return seed


def add_background(seed_HW: LabelArray, background_HW: NDArray[np.bool_], conflict: str) -> LabelArray:
    """Lay background cues (bool) under a seed. `conflict` says who wins where a class is too: class, background or ignore."""
    seed: LabelArray = np.array(seed_HW, np.uint8)
    seed[background_HW & (seed_HW == IGNORE)] = 0
    if conflict != "class":
        seed[background_HW & (seed_HW != IGNORE)] = 0 if conflict == "background" else IGNORE
    return seed


def top_region(map_CHW: MapArray, share: float, reading: str) -> NDArray[np.bool_]:
    """The object region of each map in three readings of MDC's "top 30 % of the unique largest value" (`share` .3).

    `of_maximum`: values above share * max; `below_maximum`: above (1 - share) * max; `of_pixels`: above all but the highest
    `share` of the pixels. A map that is 0 everywhere has no region.
    """
    if not map_CHW.size:
        return np.zeros(map_CHW.shape, np.bool_)
    if reading == "of_pixels":
        bound = np.quantile(map_CHW, 1 - share, axis=(1, 2), keepdims=True, method="lower")
    else:
        bound = map_CHW.max(axis=(1, 2), keepdims=True) * (share if reading == "of_maximum" else 1 - share)
    return np.asarray((map_CHW > bound) & (map_CHW > 0), np.bool_)


def undisputed(region_CHW: NDArray[np.bool_], background_HW: NDArray[np.bool_], classes: Sequence[int]) -> LabelArray:
    """Labels where exactly one of the classes (0-based) and background claims a pixel; `IGNORE` elsewhere."""
    claims_LHW = np.concatenate([background_HW[None], region_CHW])
    labels = np.array([0, *(tag + 1 for tag in classes)], np.uint8)
    seed: LabelArray = np.where(claims_LHW.sum(axis=0) == 1, labels[claims_LHW.argmax(axis=0)], np.uint8(IGNORE))
    return seed
