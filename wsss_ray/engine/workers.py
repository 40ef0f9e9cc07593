"""Make the rows of per-image stages. Each stage kind has a worker, built once per process and called with shard numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.contracts import Classifier, Segmenter
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.core.refiner import Refiner
from wsss_ray.core.rules import Localizer, MaskNoise, Metric, Relabel, SaliencyNet, SeedRule
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import (
    NO_MAPS,
    as_saliency,
    decode_gray,
    decode_maps,
    decode_rgb,
    encode_gray,
    encode_labels,
    encode_maps,
)
from wsss_ray.data.source import DataSplit
from wsss_ray.engine.batches import Row
from wsss_ray.engine.features import FeaturesWorker
from wsss_ray.engine.packing import ExtraWorker, IngestWorker, SaliencyFileWorker
from wsss_ray.engine.refining import RefinedMapsWorker, RefinedSeedsWorker
from wsss_ray.engine.shard_worker import ShardWorker, Task
from wsss_ray.ops.confusion import confusion, sparse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core.values import ImageArray, LabelArray, MapArray, Maps


class LocalizeWorker(ShardWorker):
    """Make localization maps of every image for its tags. Randomness is keyed by the image."""

    schema = "maps"
    nulls = dict(NO_MAPS)

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        return [self.by_network(row) for (row,) in self.joined(shard)]

    def decoded(self, image: Row) -> tuple[ImageArray, list[int], int]:
        """Read an image, its tags and the key of its randomness."""
        assert self.stage.seed is not None
        return decode_rgb(image["image"]), image["tags"], random_key(self.stage.seed, "localize", image["image_id"])

    def run(self, items: Sequence[tuple[ImageArray, list[int], int]]) -> list[Maps]:
        """Make the maps of several images."""
        localizer = self.stage.component
        assert isinstance(localizer, Localizer)
        images, tags, keys = zip(*items, strict=True)
        return localizer.localize_batch(self.model, images, tags, keys)

    def encoded(self, item: tuple[ImageArray, list[int], int], maps: Maps) -> Row:
        """Make the row of an image: maximum and mean of its maps."""
        return encode_maps(maps)


class SaliencyWorker(ShardWorker):
    """Make the saliency map of every image with a network that is trained already."""

    schema = "saliency"
    nulls = {"saliency": None}

    @property
    def rule(self) -> SaliencyNet:
        """Return the rule that runs the network."""
        assert isinstance(self.stage.component, SaliencyNet)
        return self.stage.component

    @cached_property
    def model(self) -> nn.Module:
        """Build the network, for inference."""
        import torch

        torch.set_num_threads(1)
        return self.rule.build().to(self.device)

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        return [self.by_network(row) for (row,) in self.joined(shard)]

    def decoded(self, image: Row) -> ImageArray:
        """Read an image."""
        return decode_rgb(image["image"])

    def run(self, items: Sequence[ImageArray]) -> list[MapArray]:
        """Make the saliency maps of several images."""
        return self.rule.saliency(self.model, items)

    def encoded(self, image_HWC: ImageArray, saliency_HW: MapArray) -> Row:
        """Make the row of an image: its saliency map as PNG."""
        if not np.isfinite(saliency_HW).all():
            raise ValueError("the saliency map is not finite")
        return {"saliency": encode_gray(np.rint(saliency_HW * 255).clip(0, 255).astype(np.uint8))}


class SeedWorker(ShardWorker):
    """Make label maps from localization maps, from a segmenter's own predictions, or from human masks with noise."""

    schema = "seeds"
    nulls = {"seed": None}

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        if isinstance(self.stage.component, Relabel):
            return [self.by_network(row) for (row,) in self.joined(shard)]
        roles = {role: schema for role, schema in (("maps", "maps"), ("saliency", "saliency")) if self.stage.optional(role)}
        return [(row[0]["image_id"], None, partial(self.row, *row)) for row in self.joined(shard, **roles)]

    def decoded(self, image: Row) -> tuple[ImageArray, list[int]]:
        """Read an image and its tags."""
        return decode_rgb(image["image"]), image["tags"]

    def run(self, items: Sequence[tuple[ImageArray, list[int]]]) -> list[LabelArray]:
        """Make the pseudo-labels of several images with a segmenter."""
        rule, segmenter = self.stage.component, self.stage.input("model").component
        assert isinstance(rule, Relabel)
        assert isinstance(segmenter, Segmenter)
        images, tags = zip(*items, strict=True)
        return rule.label_batch(segmenter, self.model, images, tags)

    def encoded(self, item: tuple[ImageArray, list[int]], label_HW: LabelArray) -> Row:
        """Make the row of an image from its pseudo-labels."""
        return {"seed": encode_labels(label_HW)}

    def row(self, image: Row, maps: Row | None = None, saliency: Row | None = None) -> Row:
        """Make the row of an image without a network: its label map as PNG."""
        rule = self.stage.component
        image_HWC = decode_rgb(image["image"])
        if isinstance(rule, MaskNoise):
            return {"seed": encode_labels(self.spoilt(rule, image, image_HWC))}
        assert isinstance(rule, SeedRule)
        assert maps is not None
        if maps["peak"] is None:
            raise ValueError("has no localization maps; see the errors of the localize stage")
        saliency_HW: MapArray | None = None
        if saliency is not None:
            if saliency["saliency"] is None:
                raise ValueError("has no saliency map; see the errors of the saliency stage")
            saliency_HW = as_saliency(decode_gray(saliency["saliency"]))
        return {"seed": encode_labels(rule.seed(image_HWC, decode_maps(maps), saliency_HW))}

    def spoilt(self, noise: MaskNoise, image: Row, image_HWC: ImageArray) -> LabelArray:
        """Add noise to the human mask; `IGNORE` everywhere without a mask. Randomness is keyed by the image."""
        if image["mask"] is None:
            return np.full(image_HWC.shape[:2], IGNORE, np.uint8)
        assert self.stage.seed is not None
        key = random_key(self.stage.seed, "noise", noise.draw, image["image_id"])
        return noise.spoil(decode_gray(image["mask"]), np.random.default_rng(key))


class ClassifyWorker(ShardWorker):
    """Score the tags of every image with a classifier, on the whole image."""

    schema = "tag_scores"
    nulls = {"scores": None, "tags": []}

    @property
    def classifier(self) -> Classifier:
        """Return the learner of the network."""
        learner = self.stage.input("model").component
        assert isinstance(learner, Classifier)
        return learner

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        return [self.by_network(row) for (row,) in self.joined(shard)]

    def decoded(self, image: Row) -> tuple[ImageArray, list[int]]:
        """Read an image and its tags; those of its mask if the data has none for it."""
        tags = image["tags"]
        if not tags and image["mask"] is not None:
            tags = [int(label) - 1 for label in np.unique(decode_gray(image["mask"])) if label not in (0, IGNORE)]
        return self.classifier.augment.whole(decode_rgb(image["image"])), tags

    def run(self, items: Sequence[tuple[ImageArray, list[int]]]) -> list[Tensor]:
        """Score several images, with images of equal size in one batch."""
        import torch

        from wsss_ray.ops.multiscale import run_inputs

        images = [image_HWC for image_HWC, _ in items]
        sizes, device = [[image_HWC.shape[:2]] for image_HWC in images], next(self.model.parameters()).device
        with torch.inference_mode():
            found = run_inputs(
                lambda image: self.classifier.tag_scores(self.model, image), images, sizes=sizes, flip=False, device=device
            )
            scores = {place: score_1K[0].float().cpu() for place, _, score_1K, _ in found}
        return [scores[place] for place in range(len(images))]

    def encoded(self, item: tuple[ImageArray, list[int]], score_K: Tensor) -> Row:
        """Make the row of an image: its scores and its tags."""
        scores = score_K.tolist()
        if not np.isfinite(scores).all():
            raise ValueError("the scores of the tags are not finite")
        return {"scores": scores, "tags": item[1]}


class EvaluateWorker(ShardWorker):
    """Make the confusion matrix of every image that has a mask, and store the prediction if a model made it."""

    schema = "scores"
    nulls = {"prediction": None, "cells": [], "counts": []}

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        if self.stage.optional("seeds"):
            return [(row[0]["image_id"], None, partial(self.row, *row)) for row in self.joined(shard, seeds="seeds")]
        rows = [row for (row,) in self.joined(shard)]
        return [self.by_network(row) if row["mask"] is not None else (row["image_id"], None, lambda: self.nulls) for row in rows]

    def decoded(self, image: Row) -> tuple[LabelArray, ImageArray]:
        """Read a mask and its image."""
        return decode_gray(image["mask"]), decode_rgb(image["image"])

    def run(self, items: Sequence[tuple[LabelArray, ImageArray]]) -> list[LabelArray]:
        """Predict the labels of several images."""
        metric, segmenter = self.stage.component, self.stage.input("model").component
        assert isinstance(metric, Metric)
        assert isinstance(segmenter, Segmenter)
        return metric.predict_batch(segmenter, self.model, [image_HWC for _, image_HWC in items])

    def encoded(self, item: tuple[LabelArray, ImageArray], label_HW: LabelArray) -> Row:
        """Make the row of an image: its prediction, and the cells of the confusion matrix."""
        prediction = encode_labels(label_HW)
        return self._scored(item[0], label_HW) | {"prediction": prediction}

    def row(self, image: Row, seed: Row) -> Row:
        """Make the row of an image from its seed: cells of the confusion matrix; none for an image without a mask."""
        if image["mask"] is None:
            return self.nulls
        mask_HW = decode_gray(image["mask"])
        if seed["seed"] is None:
            return self._scored(mask_HW, np.full_like(mask_HW, IGNORE))  # the seed stage recorded why; all pixels count as missed
        return self._scored(mask_HW, decode_gray(seed["seed"]))

    def _scored(self, mask_HW: LabelArray, label_HW: LabelArray) -> Row:
        split = self.stage.input("data").component
        assert isinstance(split, DataSplit)
        cells, counts = sparse(confusion(mask_HW, label_HW, len(split.classes) + 1))
        return {"prediction": None, "cells": cells, "counts": counts}


def worker_class(stage: Stage) -> type[ShardWorker]:
    """Return the worker class of a per-image stage."""
    if stage.kind == "ingest":
        split = stage.component.split if isinstance(stage.component, DataSplit) else None
        return {"extra": ExtraWorker, "saliency": SaliencyFileWorker}.get(split or "", IngestWorker)
    if isinstance(stage.component, Refiner):
        return RefinedMapsWorker if stage.component.makes == "maps" else RefinedSeedsWorker
    workers: dict[str, type[ShardWorker]] = {
        "features": FeaturesWorker,
        "localize": LocalizeWorker,
        "saliency": SaliencyWorker,
        "seed": SeedWorker,
        "classify": ClassifyWorker,
        "evaluate": EvaluateWorker,
    }
    return workers[stage.kind]
