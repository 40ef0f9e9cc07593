"""Make label maps from localization maps, by the recipes of `core/threshold.py`: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.values import IGNORE, Axis, Maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.rules import SeedRule
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
        recipe: The recipe to follow.
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


def confusions_over_thresholds(
    recipe: Recipe,
    values: NDArray[np.float64],
    peak_CHW: MapArray,
    mean_CHW: MapArray,
    cue_HW: NDArray[np.bool_],
    classes: Sequence[int],
    mask_HW: LabelArray,
    num_labels: int,
) -> NDArray[np.int64]:
    """Count the confusions of `recompute` with a mask at all thresholds at once, without a pass for each.

    As the bounds of the claims rise, a pixel passes from one class to the next that still claims it. So each class holds the
    pixel for an interval of thresholds, and only the two ends of the interval are counted.

    Args:
        recipe: The recipe to follow.
        values: Rising thresholds.
        peak_CHW: As for `recompute`.
        mean_CHW: As for `recompute`.
        cue_HW: As for `recompute`.
        classes: As for `recompute`.
        mask_HW: The true labels. Pixels of `IGNORE` are not counted.
        num_labels: Number of labels, background included.

    Returns:
        The confusion matrix at each threshold, (T, L, L + 1), as `ops.confusion.confusion` makes it.
    """
    steps, columns = len(values), num_labels + 1
    source_CHW = mean_CHW if recipe.source == "mean" else peak_CHW
    falling = recipe.region in ("below_maximum", "of_pixels")  # here claims grow with the threshold: count from its end
    bound_CT = bounds(source_CHW, values[::-1] if falling else values, recipe.region)
    scored_HW = mask_HW != IGNORE
    true, cue = mask_HW[scored_HW].astype(np.int64), cue_HW[scored_HW]
    ends = np.zeros(num_labels * columns * (steps + 1), np.int64)

    def hold(label: NDArray[np.int64], start: NDArray[np.intp], stop: NDArray[np.intp]) -> None:
        some = stop > start
        cell = (true * columns + label)[some] * (steps + 1)
        ends[:] += np.bincount(cell + start[some], minlength=ends.size)
        ends[:] -= np.bincount(cell + stop[some], minlength=ends.size)

    def claimed_by(label: NDArray[np.int64]) -> NDArray[np.int64]:
        if recipe.conflict == "class":
            return label
        return np.where(cue, 0 if recipe.conflict == "background" else num_labels, label)

    source = source_CHW[:, scored_HW]
    claimed = np.zeros(source.shape, np.intp)  # number of thresholds at which a class claims the pixel: the first ones
    for place, (bound_T, value) in enumerate(zip(bound_CT, source, strict=True)):
        claimed[place] = np.searchsorted(bound_T, value)
    start = np.zeros(true.shape, np.intp)
    order: NDArray[np.float32] | NDArray[np.intp] = (mean_CHW if recipe.winner == "mean" else peak_CHW)[:, scored_HW]
    if recipe.winner == "nobody":  # undecided as long as two claim it; then the class that claims longest has it alone
        order = claimed
        stop = np.sort(claimed, axis=0)[-2] if len(claimed) > 1 else start
        hold(claimed_by(np.full_like(true, num_labels)), start, stop)
        start = stop
    labels = np.asarray(classes, np.int64) + 1
    for place in np.argsort(-order, axis=0, kind="stable"):
        stop = np.maximum(start, np.take_along_axis(claimed, place[None], axis=0)[0])
        hold(claimed_by(labels[place]), start, stop)
        start = stop
    hold(np.where(cue, 0, 0 if recipe.unclaimed == "background" else num_labels), start, np.full_like(start, steps))
    total = ends.reshape(num_labels, columns, steps + 1).cumsum(axis=2)[:, :, :-1].transpose(2, 0, 1)
    return np.asarray(total[::-1] if falling else total, np.int64)


def cut(rule: SeedRule, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
    """Follow a rule's own recipe on the maps of an image, before any CRF.

    Use it in `seed`, so that the rule and its recipe cannot differ.

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
