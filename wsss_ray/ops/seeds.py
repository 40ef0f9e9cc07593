"""From localization maps to label maps: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsss_ray.contracts import IGNORE

if TYPE_CHECKING:
    from wsss_ray.contracts import LabelArray, MapArray


def resize_maps(map_CHW: MapArray, height: int, width: int) -> MapArray:
    """Bilinear resize of each map to (height, width), pixel centres aligned by area (align_corners False)."""
    resized = [Image.fromarray(m).resize((width, height), Image.Resampling.BILINEAR) for m in map_CHW.astype(np.float32)]
    return np.stack([np.asarray(m) for m in resized]) if resized else np.zeros((0, height, width), np.float32)


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
    return np.where(claimed_CHW.any(axis=0), labels[winner_HW], IGNORE).astype(np.uint8)


def add_background(seed_HW: LabelArray, background_HW: np.ndarray, conflict: str) -> LabelArray:
    """Lay background cues (bool) under a seed. `conflict` says who wins where a class is too: class, background or ignore."""
    seed = seed_HW.copy()
    seed[background_HW & (seed_HW == IGNORE)] = 0
    if conflict != "class":
        seed[background_HW & (seed_HW != IGNORE)] = 0 if conflict == "background" else IGNORE
    return seed
