"""Make one shard of a per-image stage. Each stage kind has a worker, built once per process and called with shard numbers.

No Ray here: the runners hand these workers to Ray Data, and a test or a script can call them in a loop. A call reads its input
shards and writes its own shard atomically; repeating it does no harm. An image that fails becomes a row of nulls, so that shards
stay aligned, and a row in the stage's errors. It does not end the run: `commit_shards` checks the share of failed images.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsss_ray.core.contracts import Segmenter
from wsss_ray.core.errors import is_out_of_memory
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.core.rules import Localizer, MaskNoise, Metric, Relabel, SeedRule
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import as_saliency, decode_gray, decode_maps, decode_rgb, encode_labels, encode_maps
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency, shrink
from wsss_ray.data.source import DataSplit, Item
from wsss_ray.engine.listing import StoredListing
from wsss_ray.ops.confusion import confusion, sparse
from wsss_ray.storage.shards import read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from torch import nn

    from wsss_ray.core.values import ImageArray, LabelArray, MapArray

Row = dict[str, Any]


class ShardWorker:
    """Make the shards of one stage. A subclass makes the row of one image."""

    schema: ClassVar[str]
    nulls: ClassVar[Row]

    def __init__(self, store: RunStore, stage: Stage, device: str = "cpu") -> None:
        self.store, self.stage, self.device = store, stage, device
        self.image: str | None = None  # id of the image whose row is being made

    def __call__(self, shard: int) -> int:
        """Make one shard. Return the number of its images, or 0 if the shard exists already."""
        if self.store.exists(shard_path(self.store, self.stage, shard)):
            return 0
        if needs_model(self.stage):
            _ = self.model  # loaded here, because a failure is not the fault of one image
        rows: list[Row] = []
        errors: list[Row] = []
        for image_id, path, make in self.images(shard):
            self.image = image_id
            try:
                rows.append({"image_id": image_id} | make())
            except Exception as error:  # one bad image must not end a run
                if _is_machine_failure(error):
                    raise
                reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError | OSError) else str(error)
                errors.append({"image_id": image_id, "path": path, "reason": reason})
                rows.extend(self.failed(image_id))
        self.image = None
        path = shard_path(self.store, self.stage, shard, "errors")
        if errors:
            write_shard(self.store, self.stage, shard, "errors", errors, folder="errors")
        elif self.store.exists(path):  # left by an attempt that died before it wrote the shard
            self.store.delete(path)
        write_shard(self.store, self.stage, shard, self.schema, rows)
        return len(rows)

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """Return for each image of the shard its id, its file if it has one, and a function that makes its row."""
        raise NotImplementedError

    def failed(self, image_id: str) -> list[Row]:
        """Return the rows that stand for a failed image: one row of nulls unless overridden."""
        return [{"image_id": image_id} | self.nulls]

    def joined(self, shard: int, **inputs: str) -> list[tuple[Row, ...]]:
        """Zip the rows of the data shard with those of other inputs (role=schema): the same images in the same order."""
        tables = [read_shard(self.store, self.stage.input("data"), shard, "images")]
        tables += [read_shard(self.store, self.stage.input(role), shard, schema) for role, schema in inputs.items()]
        for table in tables[1:]:
            assert [row["image_id"] for row in table] == [row["image_id"] for row in tables[0]], "shards are not aligned"
        return list(zip(*tables, strict=True))

    @cached_property
    def model(self) -> nn.Module:
        """Load the trained network of the stage's `model` input, for inference."""
        import torch

        from wsss_ray.engine.checkpoints import load_model

        torch.set_num_threads(1)
        return load_model(self.store, self.stage.input("model"), self.device)


class IngestWorker(ShardWorker):
    """Pack the images, tags and masks of one split."""

    schema = "images"

    @cached_property
    def listing(self) -> StoredListing:
        """Return the listing of the images to pack."""
        return StoredListing(self.store, self.stage)

    @property
    def split(self) -> DataSplit:
        """Return the split, which is the stage's component."""
        assert isinstance(self.stage.component, DataSplit)
        return self.stage.component

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        items = self.listing.shard(shard)
        return [(item.image_id, item.path, lambda item=item: self.row(item)) for item in items]  # type: ignore[misc]

    def row(self, item: Item) -> Row:
        """Make the row of an image: the image, its tags and mask, and the digest of its file."""
        raw = self.split.source.load(item)
        size = len(raw.image) + (len(raw.mask or b"") if item.mask else 0)  # a drawn mask has no file
        if item.size and size != item.size:
            raise ValueError(f"the files have {size} bytes, the plan saw {item.size}: they changed; submit again")
        image = normalise_image(raw.image, max_pixels=self.split.source.max_pixels)
        mask = None
        if raw.mask is not None:
            labels = len(self.split.classes) + 1
            mask = normalise_mask(raw.mask, height=image.height, width=image.width, num_labels=labels)
        image, mask = shrink(image, mask, self.split.source.max_side)
        return {
            "tags": list(item.tags),
            "height": image.height,
            "width": image.width,
            "image": image.image,
            "sha256": hashlib.sha256(raw.image).hexdigest(),
            "mask": mask,
        }

    def failed(self, image_id: str) -> list[Row]:
        """Return no row: an image that cannot be read is left out of the data."""
        return []


class SaliencyWorker(IngestWorker):
    """Pack saliency maps, aligned with the ingested images."""

    schema = "saliency"

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        items = {item.image_id: item for item in self.listing.shard(shard)}
        rows = read_shard(self.store, self.stage.input("like"), shard, "images", columns=["image_id", "height", "width"])
        return [
            (row["image_id"], items[row["image_id"]].path, lambda row=row: self.map(items[row["image_id"]], row))  # type: ignore[misc]
            for row in rows
        ]

    def map(self, item: Item, image: Row) -> Row:
        """Make the row of a saliency map, without the id."""
        source = self.split.source
        size = {"height": image["height"], "width": image["width"], "max_side": source.max_side}
        return {"saliency": normalise_saliency(source.load(item).image, max_pixels=source.max_pixels, **size)}

    def failed(self, image_id: str) -> list[Row]:
        """Return a row without a map, which keeps the shards aligned."""
        return [{"image_id": image_id, "saliency": None}]


class LocalizeWorker(ShardWorker):
    """Make localization maps of every image for its tags. Randomness is keyed by the image."""

    schema = "maps"
    nulls = {"classes": [], "height": 0, "width": 0, "peak": None, "mean": None, "grid": None}

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        return [(row["image_id"], None, lambda row=row: self.row(row)) for (row,) in self.joined(shard)]  # type: ignore[misc]

    def row(self, image: Row) -> Row:
        """Make the row of an image: maximum and mean of its maps."""
        localizer = self.stage.component
        assert isinstance(localizer, Localizer)
        assert self.stage.seed is not None
        key = random_key(self.stage.seed, "localize", image["image_id"])
        maps = localizer.localize(self.model, decode_rgb(image["image"]), image["tags"], key)
        if not (np.isfinite(maps.peak_CHW).all() and np.isfinite(maps.mean_CHW).all()):
            raise ValueError("the localization maps are not finite")
        return encode_maps(maps)


class SeedWorker(ShardWorker):
    """Make label maps from localization maps, from a segmenter's own predictions, or from human masks with noise."""

    schema = "seeds"
    nulls = {"seed": None}

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        roles = {role: schema for role, schema in (("maps", "maps"), ("saliency", "saliency")) if self.stage.optional(role)}
        rows = self.joined(shard, **roles)
        return [(row[0]["image_id"], None, lambda row=row: self.row(*row)) for row in rows]  # type: ignore[misc]

    def row(self, image: Row, maps: Row | None = None, saliency: Row | None = None) -> Row:
        """Make the row of an image: its label map as PNG."""
        rule = self.stage.component
        image_HWC = decode_rgb(image["image"])
        if isinstance(rule, Relabel):
            segmenter = self.stage.input("model").component
            assert isinstance(segmenter, Segmenter)
            return {"seed": encode_labels(rule.label(segmenter, self.model, image_HWC, image["tags"]))}
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


class EvaluateWorker(ShardWorker):
    """Make the confusion matrix of every image that has a mask, and store the prediction if a model made it."""

    schema = "scores"
    nulls = {"prediction": None, "cells": [], "counts": []}

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        rows = self.joined(shard, **({"seeds": "seeds"} if self.stage.optional("seeds") else {}))
        return [(row[0]["image_id"], None, lambda row=row: self.row(*row)) for row in rows]  # type: ignore[misc]

    def row(self, image: Row, seed: Row | None = None) -> Row:
        """Make the row of an image: cells of the confusion matrix; none for an image without a mask."""
        split = self.stage.input("data").component
        assert isinstance(split, DataSplit)
        if image["mask"] is None:
            return self.nulls
        mask_HW, prediction = decode_gray(image["mask"]), None
        if seed is None:
            metric, segmenter = self.stage.component, self.stage.input("model").component
            assert isinstance(metric, Metric)
            assert isinstance(segmenter, Segmenter)
            label_HW = metric.predict(segmenter, self.model, decode_rgb(image["image"]))
            prediction = encode_labels(label_HW)
        elif seed["seed"] is not None:
            label_HW = decode_gray(seed["seed"])
        else:
            label_HW = np.full_like(mask_HW, IGNORE)  # the seed stage recorded why; here all pixels count as missed
        cells, counts = sparse(confusion(mask_HW, label_HW, len(split.classes) + 1))
        return {"prediction": prediction, "cells": cells, "counts": counts}


def _is_machine_failure(error: Exception) -> bool:
    """Return True if memory, a disk, a device or the network failed: the shard is then made again, and no image is to blame."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES)
    return is_out_of_memory(error) or type(error).__name__ == "AcceleratorError"


def worker_class(stage: Stage) -> type[ShardWorker]:
    """Return the worker class of a per-image stage."""
    if stage.kind == "ingest":
        return SaliencyWorker if stage.optional("like") else IngestWorker
    return {"localize": LocalizeWorker, "seed": SeedWorker, "evaluate": EvaluateWorker}[stage.kind]


def needs_model(stage: Stage) -> bool:
    """Return True if a per-image stage runs a network, and so should run on a GPU."""
    return stage.optional("model") is not None


def data_split(stage: Stage) -> DataSplit:
    """Return the split that determines the shards of a per-image stage."""
    source = stage if stage.kind == "ingest" else stage.input("data")
    assert isinstance(source.component, DataSplit)
    return source.component
