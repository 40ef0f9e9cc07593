"""What a data set offers: splits, their items, and the bytes of one item. Listing is cheap and needs no decoding."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from wsss_ray.component import Component, NotIdentity, digest
from wsss_ray.plan import Data, ingest

Split = Literal["weak", "val", "strong", "saliency"]

_ID = re.compile(r"[^/\\\x00-\x1f\x7f]+(/[^/\\\x00-\x1f\x7f]+)*")


@dataclass(frozen=True)
class Item:
    """One image of a split before ingest. `path` and `mask` are files, or None for sources that make their images.

    `tags` are 0-based class indices, sorted. `size` is the sum of the bytes of the files behind it: part of the data's identity.
    `annotation` is a digest of what the mask is drawn from where it is no file, and then part of the identity too.
    """

    image_id: str
    tags: tuple[int, ...]
    path: str | None = None
    mask: str | None = None
    size: int = 0
    annotation: str | None = None


@dataclass(frozen=True)
class Raw:
    """The bytes of one item: an image file, and a mask as an image file or as the array of its labels already encoded."""

    image: bytes
    mask: bytes | None = None


class Source(Component):
    """A data set: where its images, tags and masks come from."""

    version: int = Field(default=1, description="Raise it when files have changed and kept their names, tags and sizes.")
    shard_size: int = Field(default=128, ge=1, description="Images per Parquet shard: the unit of work, retry and resume.")
    max_pixels: int = Field(default=80_000_000, ge=1, description="Larger images are recorded as errors and skipped.")
    max_side: int | None = Field(
        default=None, ge=16, description="Shrink images with a longer side to it, their masks too."
    )

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The K object classes in label order; background (label 0) is not among them."""

    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """The splits that are there; `weak` always."""

    @abstractmethod
    def has_masks(self, split: Split) -> bool:
        """Whether the split's items have masks."""

    @abstractmethod
    def items(self, split: Split) -> list[Item]:
        """The items in a fixed order. Raises ValueError that names the file, and what is wrong with it."""

    @abstractmethod
    def load(self, item: Item) -> Raw:
        """Read the files of one item. Raises OSError or ValueError, which is recorded for that image."""


class DataSplit(Component):
    """One split of one source with the digest of its listing: the component of an ingest stage."""

    source: Source
    split: Split
    classes: tuple[str, ...]
    listing: str
    num_images: Annotated[int, NotIdentity()]
    tagged: Annotated[tuple[int, ...], NotIdentity()] = ()
    num_masks: Annotated[int, NotIdentity()] = 0
    num_untagged: Annotated[int, NotIdentity()] = 0
    num_bytes: Annotated[int, NotIdentity()] = 0
    samples: Annotated[tuple[str, ...], NotIdentity()] = Field(
        default=(), description="Some of its files, to look for on every machine."
    )

    def identity(self) -> dict[str, Any]:
        """The data's identity is what is in it (ids, tags, sizes, classes) and how it is sharded, not how it was found."""
        return {
            "kind": self.kind(),
            "revision": self.revision,
            "source": self.source.identity(),
            "split": self.split,
            "classes": list(self.classes),
            "listing": self.listing,
        }

    def summary(self) -> str:
        """What the listing holds, in one line for people."""
        parts = [f"{self.num_images} images, {self.num_masks} with masks"]
        if self.num_untagged:
            parts.append(f"{self.num_untagged} without tags")
        counts = ", ".join(f"{name} {count}" for name, count in zip(self.classes, self.tagged, strict=True))
        return f"{', '.join(parts)}; {counts}"

    @property
    def num_shards(self) -> int:
        """Shards of this split, and so of everything made from it."""
        return -(-self.num_images // self.source.shard_size)

    def shard_items(self, items: list[Item], shard: int) -> list[Item]:
        """The items of one shard."""
        size = self.source.shard_size
        return items[shard * size : (shard + 1) * size]


def describe(source: Source, split: Split) -> DataSplit:
    """List a split and take its digest: ids, tags and the byte size of every file."""
    items = source.items(split)
    check_items(items, split, len(source.class_names()))
    classes = source.class_names()
    tags = Counter(tag for item in items for tag in item.tags)
    masks = sum(item.mask is not None for item in items)
    return DataSplit(
        source=source,
        split=split,
        classes=classes,
        listing=listing_digest(items),
        num_images=len(items),
        tagged=tuple(tags[place] for place in range(len(classes))),
        num_masks=masks or (len(items) if source.has_masks(split) else 0),
        num_untagged=sum(not item.tags for item in items),
        num_bytes=sum(item.size for item in items),
        samples=tuple(item.path for item in (items[0], items[len(items) // 2], items[-1]) if item.path and item.size),
    )


def listing_digest(items: Iterable[Item]) -> str:
    """The digest of a listing: ids, tags, the byte size of every file, and the digests of annotations where there are any."""
    return digest([[item.image_id, item.tags, item.size, *([item.annotation] if item.annotation else [])] for item in items])


def check_items(items: Iterable[Item], split: str, num_classes: int) -> None:
    """Raise ValueError on an empty split, an id given twice or unfit as a name, or a tag out of range."""
    seen: dict[str, str | None] = {}
    for item in items:
        if item.image_id in seen:
            places = " and ".join(dict.fromkeys(str(path) for path in (seen[item.image_id], item.path)))
            raise ValueError(f"data: {split}: image {item.image_id!r} is listed twice ({places}); remove one, or rename its file")
        if not _ID.fullmatch(item.image_id) or ".." in item.image_id.split("/"):
            wrong = "it may hold no control character, backslash or '..'; rename the file"
            raise ValueError(f"data: {split}: image id {item.image_id!r} is not usable: {wrong}")
        unknown = [tag for tag in item.tags if not 0 <= tag < num_classes]
        if unknown:
            raise ValueError(f"data: {split}: image {item.image_id}: tag {unknown[0]} is not one of the {num_classes} classes")
        seen[item.image_id] = item.path
    if not seen:
        raise ValueError(f"data: {split}: the list is empty")


def expand(path: str) -> Path:
    """A path from a job file: `~` is the home folder, relative paths start where the command was given."""
    return Path(path).expanduser()


def stages_of(source: Source) -> Data:
    """The ingest stages of a source's splits, listed and digested. Raises ValueError on what is wrong with the lists."""
    splits = {split: describe(source, split) for split in source.splits() if split != "saliency"}
    found = {split: ingest(component, name=f"images-{split}") for split, component in splits.items()}
    weak = found["weak"]
    saliency = None
    if "saliency" in source.splits():
        saliency = ingest(describe(source, "saliency"), name="saliency", like=weak)
    return Data(
        classes=source.class_names(),
        weak=weak,
        val=found.get("val"),
        strong=found.get("strong"),
        saliency=saliency,
        weak_has_masks=splits["weak"].num_masks > 0,
    )
