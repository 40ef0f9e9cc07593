"""What a threshold on localization maps does, for every threshold at once: the seeds before any CRF, scored on a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.contracts import IGNORE, Maps
from wsss_ray.core.plan import Stage
from wsss_ray.data import codecs
from wsss_ray.methods.common.seed_rules import CrfSeeds, ThresholdSeeds
from wsss_ray.ops.background import Background, CamBackground
from wsss_ray.ops.confusion import scores
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report.pictures import shrink_labels, small_size
from wsss_ray.storage.shards import count_rows, list_shards, read_rows
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import LabelArray, MapArray

THETAS = np.arange(101) / 100
_IMAGES = 240  # of a sample
_SHARDS = 8  # that the sample is taken from: each is read whole
FIGURES = ("miou", "precision", "recall", "coverage")


@dataclass(frozen=True)
class Rule:
    """A seed stage whose label maps, before any CRF, follow from one threshold.

    A class claims the pixels where its peak exceeds `theta`; of several the one with the highest `order` wins ("mean" or "peak").
    `background` gives cues; without it all that no class claims is background (`fills`) or undecided.
    """

    stage: Stage
    theta: float
    order: str
    background: Background | None
    fills: bool
    conflict: str
    crf: bool

    @classmethod
    def of(cls, stage: Stage) -> Rule | None:
        """The rule of a stage; None if its seeds do not come from a threshold."""
        part = stage.component
        if isinstance(part, ThresholdSeeds):
            return cls(stage, part.theta, "mean", part.background, False, part.conflict, part.crf is not None)
        if isinstance(part, CrfSeeds) and isinstance(part.background, CamBackground):
            return cls(stage, part.background.threshold, "peak", None, True, "class", part.crf is not None)
        return None

    @property
    def reads_saliency(self) -> bool:
        """Whether the cues need a saliency map."""
        return self.background is not None and self.background.needs_saliency

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_] | None:
        """Background cues, which no theta changes; None where a saliency map is wanting."""
        if self.background is None:
            return np.full(peak_CHW.shape[1:], self.fills)
        if self.reads_saliency and saliency_HW is None:
            return None
        return self.background.cues(peak_CHW, saliency_HW)


@dataclass(frozen=True)
class Curve:
    """Figures of the seeds at each of `THETAS`, before the CRF: of `images` of the `of` in the split."""

    figures: dict[str, list[float | None]]
    images: int
    of: int


def small_maps(rule: Rule, maps: Maps, height: int, width: int) -> tuple[MapArray, MapArray]:
    """The maximum, and what decides between classes, at the pixels of a picture of that size."""
    peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
    if rule.order == "peak":
        return peak_CHW, peak_CHW
    return peak_CHW, resize_maps(maps.mean_CHW, height, width, maps.rows, maps.columns)


def small_saliency(data: bytes | None) -> MapArray | None:
    """A stored saliency map at the size of its thumbnail."""
    return None if data is None else shrink_labels(codecs.decode_gray(data)).astype(np.float32) / np.float32(255)


def sweep(
    peak_CHW: MapArray, order_CHW: MapArray, classes: Sequence[int], cue_HW: NDArray[np.bool_], conflict: str,
    mask_HW: LabelArray, thetas: NDArray[np.float64], num_labels: int,
) -> NDArray[np.int64]:  # fmt: skip
    """The confusion matrix at every theta, (T, L, L + 1): that of `any_above` and `add_background`, counted once for all.

    As theta rises a pixel passes from the class with the highest order that claims it to the next one that still does, so that
    each class holds an interval of thetas; only its two ends are counted.
    """
    steps, columns = len(thetas), num_labels + 1
    scored_HW = mask_HW != IGNORE
    true, cue = mask_HW[scored_HW].astype(np.int64), cue_HW[scored_HW]
    peak, order = peak_CHW[:, scored_HW], order_CHW[:, scored_HW]
    ends = np.zeros(num_labels * columns * (steps + 1), np.int64)

    def hold(label: NDArray[np.int64], start: NDArray[np.intp], stop: NDArray[np.intp]) -> None:
        some = stop > start
        cell = (true * columns + label)[some] * (steps + 1)
        ends[:] += np.bincount(cell + start[some], minlength=ends.size)
        ends[:] -= np.bincount(cell + stop[some], minlength=ends.size)

    claimed = np.searchsorted(thetas.astype(np.float32), peak)  # how many of the thetas lie below: those at which a class claims
    start = np.zeros(true.shape, np.intp)
    labels = np.asarray(classes, np.int64) + 1
    for place in np.argsort(-order, axis=0, kind="stable"):
        stop = np.maximum(start, np.take_along_axis(claimed, place[None], axis=0)[0])
        label = labels[place]
        if conflict != "class":
            label = np.where(cue, 0 if conflict == "background" else num_labels, label)
        hold(label, start, stop)
        start = stop
    hold(np.where(cue, 0, num_labels), start, np.full_like(start, steps))
    return np.asarray(ends.reshape(num_labels, columns, steps + 1).cumsum(axis=2)[:, :, :-1].transpose(2, 0, 1), np.int64)


def curve(store: RunStore, rule: Rule, num_labels: int, of: int) -> Curve | None:
    """The figures over theta, of an even sample of the split at the size of thumbnails. None without masks or maps."""
    total = np.zeros((len(THETAS), num_labels, num_labels + 1), np.int64)
    images = 0
    for mask, maps, saliency in _sample(store, rule):
        if mask["mask"] is None or maps["peak"] is None:
            continue
        mask_HW = codecs.decode_gray(mask["mask"])
        found, size = codecs.decode_maps(maps), small_size(*mask_HW.shape)
        peak_CHW, order_CHW = small_maps(rule, found, size[1], size[0])
        cue_HW = rule.cues(peak_CHW, small_saliency(saliency["saliency"] if saliency else None))
        if cue_HW is None:
            continue
        small_HW = shrink_labels(mask_HW)
        total += sweep(peak_CHW, order_CHW, found.classes, cue_HW, rule.conflict, small_HW, THETAS, num_labels)
        images += 1
    if not images:
        return None
    figures: dict[str, list[float | None]] = {name: [] for name in FIGURES}
    for matrix in total:
        found_scores = scores(matrix)
        for name in FIGURES:
            value = getattr(found_scores, name)
            known = [v for v in (value if isinstance(value, tuple) else [value]) if v == v]
            figures[name].append(sum(known) / len(known) if known else None)
    return Curve(figures, images, of)


def _sample(store: RunStore, rule: Rule) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]]:
    """Masks, maps and saliency of rows that are evenly spaced in shards that are."""
    data, maps, saliency = rule.stage.input("data"), rule.stage.input("maps"), rule.stage.optional("saliency")
    both = sorted(set(list_shards(store, data)) & set(list_shards(store, maps)))
    chosen = evenly_spaced(both, _SHARDS)
    for shard in chosen:
        rows = count_rows(store, data, shard)
        places = evenly_spaced(range(rows), -(-_IMAGES // len(chosen)))
        masks = read_rows(store, data, shard, "images", places, ["image_id", "mask"])
        if all(row["mask"] is None for row in masks):
            continue
        found = read_rows(store, maps, shard, "maps", places)
        salient: Sequence[dict[str, Any] | None] = [None] * len(places)
        if rule.reads_saliency and saliency is not None:
            salient = read_rows(store, saliency, shard, "saliency", places)
        yield from zip(masks, found, salient, strict=True)
