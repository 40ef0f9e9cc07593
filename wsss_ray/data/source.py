"""Define a data set by its splits, their items, and the bytes of one item. Listing is cheap: no image is decoded or kept."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from wsss_ray.core.component import Component, LocalPath, NotIdentity, SinceThen, canonical
from wsss_ray.core.counted import counted
from wsss_ray.core.errors import shown
from wsss_ray.core.plugins import load_plugins
from wsss_ray.core.refiner import ROLES
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data import load_sources
from wsss_ray.data.flat import Places

Split = Literal["weak", "val", "strong", "saliency", "extra"]

MAX_PIXELS = 80_000_000
_ID = re.compile(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]+(/[^/\\\x00-\x1f\x7f\ud800-\udfff]+)*")  # no names that are not UTF-8
_DIGESTED = 1000  # items hashed at a time


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a split before ingest.

    Attributes:
        image_id: Name of the image, such as its relative path without extension. It must be unique in the split.
        tags: 0-based class indices, sorted.
        path: The image file; None if the source makes the image.
        mask: The mask file; None if there is none, or the source makes the mask.
        size: Number of bytes in both files. It is part of the data's identity.
        annotation: Digest of what the mask is drawn from, if it is drawn. It is part of the data's identity too.
        drawable: False if it is known before the image is read that its mask cannot be drawn.
        changed: When the newer of the files changed last, in seconds since the epoch; 0 if the source did not look.
    """

    image_id: str
    tags: tuple[int, ...]
    path: str | None = None
    mask: str | None = None
    size: int = 0
    annotation: str | None = None
    changed: float = field(default=0.0, compare=False)
    drawable: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Raw:
    """The bytes of one item.

    Attributes:
        image: An image file.
        mask: A mask, either an image file or a label map that is encoded already.
        labels: The names of the labels 1, 2, ... in the mask; None if they are the classes of the source in their order.
        no_mask: Why a mask that was listed cannot be made. Training images then go without a mask.
    """

    image: bytes
    mask: bytes | None = None
    labels: tuple[str, ...] | None = None
    no_mask: str | None = None


class Extra(Component):
    """Further inputs of the training images under a name that refiners know: segments, scribbles, depths."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$", description="Name of the inputs, such as segments.")
    folder: Annotated[str, LocalPath()] = Field(
        description="Folder of the PNG files, <image>.png: gray of 8 or 16 bits, or palette, in the size of the image."
    )


class Source(Component):
    """A data set: it lists images with their tags and masks, and reads them.

    A plug-in adds a subclass with the abstract methods. Mark its paths as `LocalPath`, since moved files are the same data.

    Example:
        >>> class Cats(Source):
        ...     root: Annotated[str, LocalPath()]
        ...     def class_names(self):
        ...         return ("cat",)
        ...     def splits(self):
        ...         return ("weak",)
        ...     def has_masks(self, split):
        ...         return False
        ...     def items(self, split):
        ...         paths = sorted(expand(self.root).glob("*.jpg"))
        ...         return [Item(path.stem, tags=(0,), path=str(path), size=path.stat().st_size) for path in paths]
        ...     def load(self, item):
        ...         return Raw(Path(item.path).read_bytes())
    """

    version: int = Field(default=1, description="Raise it when files have changed but kept their names, tags and sizes.")
    shard_size: int = Field(default=128, ge=1, description="Images per Parquet shard, the unit of work, retry and resume.")
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Images with more pixels are recorded as errors and skipped.")
    max_side: int | None = Field(
        default=None, ge=16, description="Shrink images and masks whose longer side has more pixels; null: keep them."
    )
    untagged: Annotated[Literal["keep", "drop"], NotIdentity()] = Field(
        default="keep", description="Images without tags: `keep` takes them as images that show no class, `drop` leaves them out."
    )
    others: Annotated[Literal["background", "ignore"], SinceThen()] = Field(
        default="background", description="What pixels of classes that are not used become in masks: background, or 255."
    )
    masks_on: Annotated[Literal["upright", "stored"], SinceThen()] = Field(
        default="upright",
        description="Pixels on which masks and shapes are drawn, where EXIF turns an image: `upright` as viewers show it, or "
        "`stored` as the file holds it, so that masks are turned too.",
    )

    saliency: Annotated[str | SaliencyNet | None, LocalPath()] = Field(
        default=None, description="Network that makes the saliency maps, such as {kind: u2net}; or the folder of the maps."
    )

    extra: Annotated[tuple[Extra, ...], NotIdentity()] = Field(
        default=(), description="Further inputs of the training images, such as {name: segments, folder: segments}."
    )

    @field_validator("extra")
    @classmethod
    def _named_once(cls, value: tuple[Extra, ...]) -> tuple[Extra, ...]:
        names = [one.name for one in value]
        for name in names:
            if name in ROLES or names.count(name) > 1:
                wrong = "is listed twice" if names.count(name) > 1 else "is the name of another input"
                raise ValueError(f"{name!r} {wrong}; give another name")
        return value

    @field_validator("saliency", mode="before")
    @classmethod
    def _network(cls, value: Any) -> Any:
        """Read a block as a network at once, so that a mistake in it is reported as one of a network."""
        return SaliencyNet.model_validate(value) if isinstance(value, dict) else value

    @property
    def saliency_folder(self) -> str | None:
        """Return the folder of saliency maps, or None if there is none or a network makes them."""
        return self.saliency if isinstance(self.saliency, str) else None

    @classmethod
    def by_kind(cls) -> dict[str, list[type[Component]]]:
        """See `Component.by_kind`. The sources of the package and of plug-ins are imported first, so that none is missing."""
        load_sources()
        load_plugins()
        return super().by_kind()

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Return the K object classes in label order, without background (label 0)."""

    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """Return the splits of the data set. `weak` must be one of them."""

    @abstractmethod
    def has_masks(self, split: Split) -> bool:
        """Return True if the items of a split have masks."""

    @abstractmethod
    def items(self, split: Split) -> Iterable[Item]:
        """List the items of a split in a fixed order. Raises ValueError that names the file and says what is wrong with it.

        Return a list, or yield the items if there may be millions of them: a plan keeps none.
        """

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one. Override it if `items` returns a list that the source need not hold."""
        yield from self.items(split)

    def taken(self, split: Split) -> Iterator[Item]:
        """Yield the items of a split that take part: without `untagged` ones if they are to be dropped."""
        return (item for item in self.listed(split) if item.tags or self.untagged == "keep")

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
    newest: Annotated[float | None, NotIdentity()] = Field(
        default=None, description="When its newest file was written, in seconds since the epoch; null: not known."
    )
    samples: Annotated[tuple[str, ...], NotIdentity()] = Field(default=(), description="Some files that every machine must see.")

    def identity(self) -> dict[str, Any]:
        """Return the data's identity: its content (ids, tags, sizes, classes) and its shards, not where it was found."""
        return {
            "kind": self.kind(),
            "revision": self.revision,
            "source": self.source.identity(),
            "split": self.split,
            "classes": list(self.classes),
            "listing": self.listing,
        }

    def summary(self) -> str:
        """Describe the listing in one line."""
        parts = [f"{counted(self.num_images, 'image')}, {self.num_masks} with masks"]
        if self.num_untagged:
            parts.append(f"{self.num_untagged} without tags")
        counts = ", ".join(f"{name} {count}" for name, count in zip(self.classes, self.tagged, strict=True))
        return f"{', '.join(parts)}; {counts}"

    @property
    def num_shards(self) -> int:
        """Return the number of shards of this split, and of everything made from it."""
        return -(-self.num_images // self.source.shard_size)

    def shard_items(self, items: list[Item], shard: int) -> list[Item]:
        """Cut the items of shard number `shard` out of `items`."""
        size = self.source.shard_size
        return items[shard * size : (shard + 1) * size]


def describe(source: Source, split: Split, classes: tuple[str, ...] | None = None) -> DataSplit:
    """List a split, and hash its ids, tags and file sizes. Raises ValueError that says what is wrong with the lists.

    `classes` are the class names of the source; None asks the source for them.
    """
    classes = source.class_names() if classes is None else classes
    tagged, masks, untagged, size, newest, looked = [0] * len(classes), 0, 0, 0, 0.0, True
    count, hashed, samples = 0, ListingDigest(), dict[str, Item]()
    for count, item in enumerate(checked(source, split, len(classes)), start=1):
        hashed.add(item)
        for tag in item.tags:
            tagged[tag] += 1
        masks += item.mask is not None or (item.annotation is not None and item.drawable)
        untagged += not item.tags
        size += item.size
        newest, looked = max(newest, item.changed), looked and (item.changed > 0 or item.path is None)
        samples["first" if count == 1 else "last"] = item
        if count & (count - 1) == 0:
            samples["between"] = item  # the last power of two: somewhere in the second half
    paths = (samples[place].path for place in ("first", "between", "last") if place in samples and samples[place].size)
    return DataSplit(
        source=source,
        split=split,
        classes=classes,
        listing=hashed.hexdigest(),
        num_images=count,
        tagged=tuple(tagged),
        num_masks=masks or (count if source.has_masks(split) else 0),
        num_untagged=untagged,
        num_bytes=size,
        newest=newest if looked else None,
        samples=tuple(dict.fromkeys(path for path in paths if path)),
    )


class ListingDigest:
    """Hash a listing piece by piece. The digest is that of the listing's canonical JSON."""

    def __init__(self) -> None:
        self._hash, self._rows, self._is_first = hashlib.sha256(b"["), list[list[Any]](), True

    def add(self, item: Item) -> None:
        """Add an item: id, tags, the byte size of its files, and the digest of its annotations if it has one."""
        self._rows.append([item.image_id, item.tags, item.size, *([item.annotation] if item.annotation else [])])
        if len(self._rows) == _DIGESTED:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            text = canonical(self._rows)[1:-1]
            self._hash.update((text if self._is_first else f",{text}").encode())
            self._rows, self._is_first = [], False

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        self._flush()
        ended = self._hash.copy()
        ended.update(b"]")
        return ended.hexdigest()


def checked(source: Source, split: Split, num_classes: int) -> Iterator[Item]:
    """Yield the items of a split. Raises ValueError on an empty split, a duplicate or invalid id, or a tag out of range."""
    seen = Places()
    for item in source.taken(split):
        image_id = item.image_id
        if seen.add(image_id):  # or another id has the same hash
            both = [*islice((other.path for other in source.listed(split) if other.image_id == image_id), 2)]
            if len(both) > 1:
                where = f"{shown(repr(image_id))} is listed twice ({shown(' and '.join(dict.fromkeys(map(str, both))), 500)})"
                raise ValueError(f"data: {split}: image {where}; remove one, or rename its file")
        if not _ID.fullmatch(image_id) or (".." in image_id and ".." in image_id.split("/")):
            wrong = "it must be UTF-8 and may hold no control character, backslash or '..'; rename the file"
            raise ValueError(f"data: {split}: image id {shown(repr(image_id), 300)} is not usable: {wrong}")
        for tag in item.tags:
            if not 0 <= tag < num_classes:
                raise ValueError(f"data: {split}: image {image_id}: tag is {tag}; allowed: 0 to {num_classes - 1}")
        yield item
    if not seen:
        raise ValueError(f"data: {split}: the list is empty; list at least one image")
