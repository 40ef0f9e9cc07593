"""Score the seeds after the dense CRF at a few thresholds, on a few images: the curve before it may rise where this one falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsss_ray.data import codecs
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.seeds import recompute, resize_maps
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report.thresholds import THETAS, Curve, Rule, sample
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import ImageArray, LabelArray

_IMAGES = 24  # in the sample
_POINTS = 5  # thresholds
_SIDE = 512  # pixels on the longer side of an image, at most: 120 CRFs take a few seconds
_USEFUL = 0.75  # share of the best mIoU before the CRF that a threshold must have to be tried


@dataclass(frozen=True)
class RefinedPoint:
    """The mIoU of the seeds of a few images at one threshold; None if it is not defined."""

    theta: float
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Refined:
    """The mIoU of seeds before and after the CRF, on the same images.

    Attributes:
        points: by threshold.
        images: number of images.
    """

    points: Sequence[RefinedPoint]
    images: int


def refined(store: RunStore, rule: Rule, curve: Curve | None, num_labels: int) -> Refined | None:
    """Score up to 24 images at up to five thresholds, with the CRF of the rule.

    Args:
        store: store of the run.
        rule: the rule.
        curve: its scores before the CRF.
        num_labels: number of labels, with background.

    Returns:
        The scores; None if the rule has no CRF, if its recipe is not known, or if there are no masks.

    Example:
        >>> found = refined(store, rule, curve(store, rule, 21, 1464), num_labels=21)
        >>> best = max(found.points, key=lambda point: point.after).theta
    """
    recipe = rule.recipe
    if curve is None or not rule.crf or recipe is None:
        return None
    tried = [(theta, changed) for theta in chosen(rule, curve) if (changed := rule.at(theta)) is not None]
    total = np.zeros((len(tried), 2, num_labels, num_labels + 1), np.int64)
    images = 0
    for row, maps, saliency in sample(store, rule, _IMAGES, image=True):
        if row["mask"] is None or maps["peak"] is None or (rule.part.needs_saliency and saliency is None):
            continue
        image_HWC, mask_HW = _at_most(codecs.decode_rgb(row["image"]), codecs.decode_gray(row["mask"]))
        height, width = mask_HW.shape
        salient = saliency["saliency"] if saliency else None
        saliency_HW = None
        if salient is not None:
            resized = Image.fromarray(codecs.decode_gray(salient)).resize((width, height), Image.Resampling.BILINEAR)
            saliency_HW = codecs.as_saliency(np.asarray(resized))
        found = codecs.decode_maps(maps)
        each = (found.peak_CHW, found.mean_CHW)
        peak_CHW, mean_CHW = (resize_maps(one, height, width, found.rows, found.columns) for one in each)
        cue_HW = rule.cues(peak_CHW, saliency_HW)
        if cue_HW is None:
            continue
        images += 1
        for place, (theta, changed) in enumerate(tried):
            before_HW = recompute(recipe, theta, peak_CHW, mean_CHW, cue_HW, found.classes)
            try:
                after_HW = changed.seed(image_HWC, found, saliency_HW)
            except Exception:  # noqa: BLE001  a plug-in's rule may fail at a threshold that no run has tried; the report must not
                return None
            for which, label_HW in enumerate((before_HW, after_HW)):
                total[place, which] += confusion(mask_HW, label_HW, num_labels)
    if not images:
        return None
    mious = [[_miou(matrix) for matrix in pair] for pair in total]
    return Refined([RefinedPoint(theta, *pair) for (theta, _), pair in zip(tried, mious, strict=True)], images)


def chosen(rule: Rule, curve: Curve) -> list[float]:
    """Return the thresholds to try: evenly spaced where the seeds before the CRF are not useless, and the job's own."""
    known = [(float(theta), miou) for theta, miou in zip(THETAS, curve.figures["miou"], strict=True) if miou is not None]
    best = max((miou for _, miou in known), default=0.0)
    useful = [theta for theta, miou in known if miou >= _USEFUL * best]
    spaced = evenly_spaced(sorted({*useful, rule.theta}), _POINTS)
    if spaced and rule.theta not in spaced:
        spaced.remove(min(spaced[1:-1] or spaced, key=lambda theta: abs(theta - rule.theta)))
        spaced.append(rule.theta)
    return sorted(spaced)


def _at_most(image_HWC: ImageArray, mask_HW: LabelArray) -> tuple[ImageArray, LabelArray]:
    """Shrink an image and its mask if they are large."""
    height, width = mask_HW.shape
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return image_HWC, mask_HW
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(image_HWC).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small), np.asarray(Image.fromarray(mask_HW).resize(size, Image.Resampling.NEAREST))


def _miou(matrix: NDArray[np.int64]) -> float | None:
    value = scores(matrix).miou
    return value if np.isfinite(value) else None
