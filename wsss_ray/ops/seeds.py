"""Make label maps from localization maps, by the recipes of `core/threshold.py`: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.values import IGNORE, Axis, Maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import SeedRule
    from wsss_ray.core.threshold import Recipe, Region
    from wsss_ray.core.values import ImageArray, LabelArray, MapArray


def resize_maps(map_CHW: MapArray, height: int, width: int, rows: Axis, columns: Axis) -> MapArray:
    """Resize maps to the pixels of an image, bilinearly; each feature stays at its own centre, constant beyond the border."""
    if not len(map_CHW):
        return np.zeros((0, height, width), np.float32)
    below, above, share = _neighbours(height, map_CHW.shape[1], rows)
    tall = map_CHW[:, below] * (1 - share[:, None]) + map_CHW[:, above] * share[:, None]
    left, right, share = _neighbours(width, map_CHW.shape[2], columns)
    return np.asarray(tall[:, :, left] * (1 - share) + tall[:, :, right] * share, np.float32)


def _neighbours(pixels: int, cells: int, axis: Axis) -> tuple[NDArray[np.intp], NDArray[np.intp], MapArray]:
    """Return for every pixel the features before and behind it, and the share of the latter."""
    place = ((np.arange(pixels) + 0.5) / pixels - axis.first) / axis.step
    place = place.clip(0, cells - 1)
    before = np.floor(place).astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), (place - before).astype(np.float32)


def bounds(map_CHW: MapArray, values: Sequence[float] | NDArray[np.float64], region: Region) -> MapArray:
    """Return what a pixel of each map must exceed to be claimed at each threshold, (C, T).

    The largest values of a map are those of its pixels here: a map that is resized has other bounds.
    """
    value_T = np.asarray(values, np.float64)
    count, pixels = len(map_CHW), map_CHW.shape[1] * map_CHW.shape[2]
    if region == "above":
        bound_CT = np.broadcast_to(value_T.astype(np.float32), (count, len(value_T)))
    elif region == "of_pixels":
        place_T = ((pixels - 1) * (1 - value_T)).astype(np.intp)  # in rising order, rounded down
        bound_CT = np.partition(map_CHW.reshape(count, pixels), np.unique(place_T), axis=1)[:, place_T]
    else:
        share_T = (value_T if region == "of_maximum" else 1 - value_T).astype(np.float32)
        bound_CT = map_CHW.max(axis=(1, 2))[:, None] * share_T
    return np.asarray(np.maximum(bound_CT, np.float32(0)), np.float32)


def claims(map_CHW: MapArray, value: float, region: Region) -> NDArray[np.bool_]:
    """Return the pixels that each map claims at a threshold."""
    return np.asarray(map_CHW > bounds(map_CHW, [value], region)[:, :, None], np.bool_)


def recompute(
    recipe: Recipe,
    value: float,
    peak_CHW: MapArray,
    mean_CHW: MapArray,
    cue_HW: NDArray[np.bool_],
    classes: Sequence[int],
) -> LabelArray:
    """Follow a recipe at a threshold.

    Args:
        recipe: How labels follow from what is below.
        value: The threshold.
        peak_CHW: The maximum over all estimates, one map for each of `classes`.
        mean_CHW: Their mean; read if `recipe.reads_mean`.
        cue_HW: Background cues.
        classes: The image's tags, 0-based. The label of a class is its tag + 1.

    Returns:
        The label of every pixel; `IGNORE` where it is undecided.
    """
    claim_CHW = claims(mean_CHW if recipe.source == "mean" else peak_CHW, value, recipe.region)
    order_CHW = mean_CHW if recipe.winner == "mean" else peak_CHW
    claimed_HW = claim_CHW.any(axis=0)
    seed_HW: LabelArray = np.full(cue_HW.shape, 0 if recipe.unclaimed == "background" else IGNORE, np.uint8)
    best_HW = np.full(cue_HW.shape, -1, np.float32)
    for tag, claim_HW, order_HW in zip(classes, claim_CHW, order_CHW, strict=True):
        wins_HW = claim_HW & (order_HW > best_HW)
        seed_HW[wins_HW] = tag + 1
        best_HW[wins_HW] = order_HW[wins_HW]
    if recipe.winner == "nobody":
        seed_HW[claim_CHW.sum(axis=0) > 1] = IGNORE
    seed_HW[cue_HW & ~claimed_HW] = 0
    if recipe.conflict != "class":
        seed_HW[cue_HW & claimed_HW] = 0 if recipe.conflict == "background" else IGNORE
    return seed_HW


def cut(rule: SeedRule, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
    """Follow a rule's own recipe on the maps of an image, before any CRF. A rule that makes its seeds by this does what it says.

    Example:
        return cut(self, image_HWC, maps, saliency_HW)
    """
    threshold = rule.by_threshold
    assert threshold is not None, f"{rule.kind()} has no threshold"
    recipe = threshold.recipe
    assert recipe is not None, f"{rule.kind()} has no recipe"
    height, width = image_HWC.shape[:2]
    peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
    mean_CHW = resize_maps(maps.mean_CHW, height, width, maps.rows, maps.columns) if recipe.reads_mean else peak_CHW
    cue_HW = threshold.cues(peak_CHW, saliency_HW) if threshold.cues else np.zeros((height, width), np.bool_)
    return recompute(recipe, threshold.of(rule), peak_CHW, mean_CHW, cue_HW, maps.classes)
