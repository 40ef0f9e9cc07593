"""Make the rows of refiners: join what a refiner names of every image, and encode the maps or labels that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.plan import extra_role
from wsss_ray.core.randomness import random_key
from wsss_ray.core.refiner import ROLES, Given, Refiner
from wsss_ray.core.values import Maps
from wsss_ray.data.codecs import (
    NO_MAPS,
    as_saliency,
    decode_extra,
    decode_gray,
    decode_maps,
    decode_rgb,
    encode_labels,
    encode_maps,
)
from wsss_ray.engine.batches import Row
from wsss_ray.engine.shard_worker import ShardWorker, Task, data_split, needs_model

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

_COLUMNS = {"maps": "peak", "seeds": "seed", "saliency": "saliency"}  # a null in this column stands for an image that failed


class _RefineWorker(ShardWorker):
    """Run a refiner on every image. Randomness is keyed by the image."""

    @property
    def refiner(self) -> Refiner:
        """Return the stage's component."""
        assert isinstance(self.stage.component, Refiner)
        return self.stage.component

    @cached_property
    def model(self) -> Any:
        """Load the network of the stage's `model` input, or build the refiner's own."""
        if self.stage.optional("model") is not None:
            return self.trained()
        import torch

        torch.set_num_threads(1)
        return self.refiner.build(data_split(self.stage).classes).to(self.device)

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        reads = [role for role in self.refiner.reads if role != "model"]
        schemas = {(role if role in ROLES else extra_role(role)): (role if role in ROLES else "extra") for role in reads}
        rows = self.joined(shard, **schemas)
        if needs_model(self.stage):
            return [self.by_network(*row) for row in rows]
        return [(row[0]["image_id"], None, partial(self.row, *row)) for row in rows]

    def decoded(self, image: Row, *others: Row) -> Given:
        """Read an image, and what the refiner names of it. Raises ValueError if an earlier stage failed on it."""
        assert self.stage.seed is not None
        found: dict[str, Any] = {}
        extra = {}
        for role, row in zip((role for role in self.refiner.reads if role != "model"), others, strict=True):
            value = row[_COLUMNS.get(role, "extra")]
            if value is None:
                raise ValueError(f"has no {role}; see the errors of the stage that makes them")
            if role == "maps":
                found["maps"] = decode_maps(row)
            elif role == "seeds":
                found["seed_HW"] = decode_gray(value)
            elif role == "saliency":
                found["saliency_HW"] = as_saliency(decode_gray(value))
            else:
                extra[role] = decode_extra(value)
        key = random_key(self.stage.seed, "refine", image["image_id"])
        return Given(decode_rgb(image["image"]), tuple(image["tags"]), key, extra=extra, **found)

    def run(self, items: Sequence[Given]) -> Sequence[Maps] | Sequence[LabelArray]:
        """Refine several images."""
        return self.refiner.refine_batch(self.model if needs_model(self.stage) else None, items)

    def row(self, image: Row, *others: Row) -> Row:
        """Make the row of an image without a network."""
        given = self.decoded(image, *others)
        (found,) = self.run([given])
        return self.encoded(given, found)


class RefinedMapsWorker(_RefineWorker):
    """Make localization maps with a refiner."""

    schema = "maps"
    nulls = dict(NO_MAPS)

    def encoded(self, item: Given, found: Any) -> Row:
        """Make the row of an image: maximum and mean of its maps."""
        if not isinstance(found, Maps):
            raise TypeError(f"{self.refiner.kind()}.refine returned {type(found).__name__}, not Maps")
        if set(found.classes) - set(item.classes):
            raise ValueError(f"{self.refiner.kind()}.refine made maps of classes that are no tags of the image")
        return encode_maps(found)


class RefinedSeedsWorker(_RefineWorker):
    """Make label maps with a refiner."""

    schema = "seeds"
    nulls = {"seed": None}

    def encoded(self, item: Given, found: Any) -> Row:
        """Make the row of an image: its label map as PNG."""
        size = item.image_HWC.shape[:2]
        if not (isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == size):
            what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise TypeError(f"{self.refiner.kind()}.refine returned {what}, not labels: uint8 {size}")
        return {"seed": encode_labels(found)}
