"""Score the seeds of a sample of images at every threshold, as a rule's `by_threshold` says. No method is known here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from wsss_ray.core.component import Component
from wsss_ray.core.plan import Stage
from wsss_ray.core.rules import SeedRule
from wsss_ray.core.threshold import Recipe, Threshold
from wsss_ray.core.values import Maps
from wsss_ray.data import codecs
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.seeds import confusions_over_thresholds, resize_maps
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.headings import FIGURES
from wsss_ray.reporting.report.markup import average
from wsss_ray.reporting.report.pictures import shrink, shrink_labels
from wsss_ray.storage.shards import count_rows, read_rows, readable_shards
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import ImageArray, LabelArray, MapArray

THETAS = np.arange(101) / 100
"""Thresholds that are scored."""
_IMAGES = 240  # in the sample
_CALLED = 24  # in the sample of a rule that must be called at every threshold
_SHARDS = 8  # with images of the sample: each is read whole


@dataclass(frozen=True)
class Rule:
    """A seed rule whose seeds depend on a threshold.

    Attributes:
        stage: the seed stage.
        part: its rule.
        threshold: the threshold that the rule names.

    Example:
        >>> rules = [rule for stage in plan if (rule := Rule.of(stage))]
        >>> rules[0].theta, rules[0].symbol
        (0.3, 'θ')
    """

    stage: Stage
    part: SeedRule
    threshold: Threshold

    @classmethod
    def of(cls, stage: Stage) -> Rule | None:
        """Return the rule of a stage; None if its seeds do not depend on a threshold."""
        part = stage.component
        if not isinstance(part, SeedRule) or (threshold := part.by_threshold) is None:
            return None
        return cls(stage, part, threshold)

    @property
    def theta(self) -> float:
        """Return the threshold of the job."""
        return self.threshold.of(self.part)

    @property
    def recipe(self) -> Recipe | None:
        """Return the recipe by which the page makes the seeds; None if it cannot."""
        return self.threshold.recipe

    @property
    def crf(self) -> bool:
        """Return True if the recipe leaves out a dense CRF of the rule."""
        return self.threshold.crf and self.recipe is not None

    @property
    def symbol(self) -> str:
        """Return the name of the threshold in the page: θ, or the name of its field if that says more."""
        name = self.threshold.field.rpartition(".")[2]
        return "\N{GREEK SMALL LETTER THETA}" if name in ("theta", "threshold") else name

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_] | None:
        """Return the background cues of an image, which do not depend on the threshold.

        Args:
            peak_CHW: maximum over the estimates of the maps.
            saliency_HW: saliency map (0..1) of the same size; None if there is none.

        Returns:
            Cues (H, W); None if the rule needs a saliency map and there is none.
        """
        if self.part.needs_saliency and saliency_HW is None:
            return None
        if self.threshold.cues is None:
            return np.zeros(peak_CHW.shape[1:], np.bool_)
        return self.threshold.cues(peak_CHW, saliency_HW)

    def at(self, theta: float) -> SeedRule | None:
        """Return the rule with another threshold; None if its field does not allow the value."""
        try:
            changed = _with(self.part, self.threshold.field.split("."), theta)
        except ValidationError:
            return None
        assert isinstance(changed, SeedRule)
        return changed


def _with(part: Component, names: Sequence[str], value: float) -> Component:
    """Return the component with another value in a field of its own or of a part. The result is validated."""
    name, *rest = names
    inner = _with(getattr(part, name), rest, value) if rest else value
    return type(part).model_validate(dict(part) | {name: inner})


@dataclass(frozen=True)
class Curve:
    """The scores of the seeds over the threshold. If the rule has a recipe, they are scores before the CRF.

    Attributes:
        figures: scores in [0, 1] at each of `THETAS`, by the names in `FIGURES`.
        images: number of images that were scored.
        of: number of images of the split.
    """

    figures: dict[str, list[float | None]]
    images: int
    of: int


def small_saliency(data: bytes | None) -> MapArray | None:
    """Decode a saliency map and shrink it to the size of its thumbnail.

    Args:
        data: the map as the store has it; None if there is none.

    Returns:
        The map (H, W), 0..1; None if there is none.
    """
    return None if data is None else codecs.as_saliency(shrink_labels(codecs.decode_gray(data)))


def curve(store: RunStore, rule: Rule, num_labels: int, of: int) -> Curve | None:
    """Score an evenly spaced sample of the split at every theta, at the size of thumbnails.

    Args:
        store: store of the run.
        rule: the rule.
        num_labels: number of labels, with background.
        of: number of images of the split.

    Returns:
        The scores; None without masks or maps.

    Example:
        >>> found = curve(store, rule, num_labels=21, of=1464)
        >>> best = THETAS[np.nanargmax(np.array(found.figures["miou"], float))]
    """
    total = np.zeros((len(THETAS), num_labels, num_labels + 1), np.int64)
    images = 0
    rules = [rule.at(float(theta)) for theta in THETAS] if rule.recipe is None else []
    follows = rule.recipe is not None
    for row, maps, saliency in sample(store, rule, _IMAGES if follows else _CALLED, image=not follows):
        if row["mask"] is None or maps["peak"] is None:
            continue
        mask_HW = shrink_labels(codecs.decode_gray(row["mask"]))
        found, saliency_HW = codecs.decode_maps(maps), small_saliency(saliency["saliency"] if saliency else None)
        if rule.recipe is not None:
            counted = _followed(rule, rule.recipe, found, saliency_HW, mask_HW, num_labels)
        else:
            counted = _called(rules, shrink(codecs.decode_rgb(row["image"])), found, saliency_HW, mask_HW, num_labels)
        if counted is not None:
            total += counted
            images += 1
    if not images:
        return None
    figures: dict[str, list[float | None]] = {name: [] for name in FIGURES}
    for matrix in total:
        found_scores = scores(matrix)
        for name in FIGURES:
            value = getattr(found_scores, name)
            figures[name].append(average(value if isinstance(value, tuple) else [value]))
    return Curve(figures, images, of)


def _followed(
    rule: Rule, recipe: Recipe, maps: Maps, saliency_HW: MapArray | None, mask_HW: LabelArray, num_labels: int
) -> NDArray[np.int64] | None:
    """Follow the recipe: return the confusion matrix of an image at every theta. None if its saliency map is missing."""
    height, width = mask_HW.shape
    peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
    mean_CHW = resize_maps(maps.mean_CHW, height, width, maps.rows, maps.columns) if recipe.reads_mean else peak_CHW
    cue_HW = rule.cues(peak_CHW, saliency_HW)
    if cue_HW is None:
        return None
    return confusions_over_thresholds(recipe, THETAS, peak_CHW, mean_CHW, cue_HW, maps.classes, mask_HW, num_labels)


def _called(
    rules: Sequence[SeedRule | None], image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None, mask_HW: LabelArray,
    num_labels: int,
) -> NDArray[np.int64] | None:  # fmt: skip
    """Call the rule: return the confusion matrix of an image at every theta. None if the rule fails."""
    if saliency_HW is None and any(rule is not None and rule.needs_saliency for rule in rules):
        return None
    nothing = np.zeros((num_labels, num_labels + 1), np.int64)
    try:
        return np.stack([
            nothing if rule is None else confusion(mask_HW, rule.seed(image_HWC, maps, saliency_HW), num_labels) for rule in rules
        ])  # fmt: skip
    except Exception:  # noqa: BLE001  a plug-in's rule may fail at a threshold that no run has tried; the report must not
        return None


def sample(
    store: RunStore, rule: Rule, wanted: int, *, image: bool
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]]:
    """Yield evenly spaced rows of evenly spaced shards: of the data, the maps and the saliency.

    Args:
        store: store of the run.
        rule: the rule, whose inputs are read.
        wanted: number of rows, about.
        image: True reads the images too, not only their masks.
    """
    data, maps, saliency = rule.stage.input("data"), rule.stage.input("maps"), rule.stage.optional("saliency")
    both = sorted(set(readable_shards(store, data)) & set(readable_shards(store, maps)))
    chosen = evenly_spaced(both, _SHARDS)
    columns = ["image_id", "mask", *(["image"] if image else [])]
    for shard in chosen:
        rows = count_rows(store, data, shard)
        places = evenly_spaced(range(rows), -(-wanted // len(chosen)))
        masks = read_rows(store, data, shard, "images", places, columns)
        if all(row["mask"] is None for row in masks):
            continue
        found = read_rows(store, maps, shard, "maps", places)
        salient: Sequence[dict[str, Any] | None] = [None] * len(places)
        if rule.part.needs_saliency and saliency is not None:
            salient = read_rows(store, saliency, shard, "saliency", places)
        yield from zip(masks, found, salient, strict=True)
