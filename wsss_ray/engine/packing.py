"""Pack images, tags, masks, saliency maps and extra inputs into shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar

from wsss_ray.data.extra_files import normalise_extra
from wsss_ray.data.image_files import file_of
from wsss_ray.data.images import Decoded, normalise_image, normalise_saliency, shrink
from wsss_ray.data.label_maps import mask_of
from wsss_ray.data.source import DataSplit, Item, Raw
from wsss_ray.engine.batches import Row, reason_of
from wsss_ray.engine.listing import StoredListing
from wsss_ray.engine.shard_worker import ShardWorker
from wsss_ray.storage.shards import read_shard


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
        packed, mask = shrink(image, self._mask(item, raw, image), self.split.source.max_side)
        return {
            "tags": list(item.tags),
            "height": packed.height,
            "width": packed.width,
            "image": packed.image,
            "sha256": hashlib.sha256(raw.image).hexdigest(),
            "mask": mask,
            "file": None if item.path is None else file_of(item.image_id, item.path),
            "file_height": image.height,
            "file_width": image.width,
        }

    def _mask(self, item: Item, raw: Raw, image: Decoded) -> bytes | None:
        """Make the mask of an image. A training image whose mask cannot be used goes without one, which is noted."""
        split = self.split
        try:
            return mask_of(raw, height=image.height, width=image.width, source=split.source, classes=split.classes)
        except ValueError as error:
            if split.split != "weak":
                raise
            self.notes.append({"image_id": item.image_id, "path": item.mask, "reason": reason_of(error)})
            return None

    def failed(self, image_id: str) -> list[Row]:
        """Return no row: an image that cannot be read is left out of the data."""
        return []


class _BesideWorker(IngestWorker):
    """Pack one file for each ingested image, in the order of the images."""

    normalise: ClassVar[Callable[..., bytes]]  # the content of a file -> what is stored; the name of its column is the schema's

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        items = {item.image_id: item for item in self.listing.shard(shard)}
        rows = read_shard(self.store, self.stage.input("like"), shard, "images", columns=["image_id", "height", "width"])
        return [
            (row["image_id"], items[row["image_id"]].path, lambda row=row: self.beside(items[row["image_id"]], row))  # type: ignore[misc]
            for row in rows
        ]

    def beside(self, item: Item, image: Row) -> Row:
        """Make the row of a file, without the id."""
        source = self.split.source
        size = {"height": image["height"], "width": image["width"], "max_side": source.max_side}
        return {self.schema: type(self).normalise(source.load(item).image, max_pixels=source.max_pixels, **size)}

    def failed(self, image_id: str) -> list[Row]:
        """Return a row without content, which keeps the shards aligned."""
        return [{"image_id": image_id, self.schema: None}]


class SaliencyFileWorker(_BesideWorker):
    """Pack saliency maps, aligned with the ingested images."""

    schema = "saliency"
    normalise = staticmethod(normalise_saliency)


class ExtraWorker(_BesideWorker):
    """Pack extra inputs, aligned with the ingested images."""

    schema = "extra"
    normalise = staticmethod(normalise_extra)
