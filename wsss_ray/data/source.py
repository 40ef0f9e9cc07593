"""What a data set offers: splits, their items, and the bytes of one item. Listing is cheap and needs no decoding.

A listing is made one item after another and is never held whole where it need not be: there may be millions.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from wsss_ray.core.component import Component, NotIdentity, canonical
from wsss_ray.core.plan import Data, ingest

T = TypeVar("T")
Split = Literal["weak", "val", "strong", "saliency"]

MAX_PIXELS = 80_000_000
_ID = re.compile(r"[^/\\\x00-\x1f\x7f]+(/[^/\\\x00-\x1f\x7f]+)*")
_DIGESTED = 1000  # items whose digest is taken at a time
_looked_up: ContextVar[dict[Any, Any] | None] = ContextVar("looked_up", default=None)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a split before ingest. `path` and `mask` are files, or None for sources that make their images.

    `tags` are 0-based class indices, sorted. `size` is the sum of the bytes of the files behind it: part of the data's identity.
    `annotation` is a digest of what the mask is drawn from where it is no file, and then part of the identity too. `changed` is
    when the newer of the files was last written, in seconds since the epoch; 0 where the source did not look.
    """

    image_id: str
    tags: tuple[int, ...]
    path: str | None = None
    mask: str | None = None
    size: int = 0
    annotation: str | None = None
    changed: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Raw:
    """The bytes of one item: an image file, and a mask as an image file or as the array of its labels already encoded."""

    image: bytes
    mask: bytes | None = None


class Source(Component):
    """A data set: where its images, tags and masks come from."""

    version: int = Field(default=1, description="Raise it when files have changed and kept their names, tags and sizes.")
    shard_size: int = Field(default=128, ge=1, description="Images per Parquet shard: the unit of work, retry and resume.")
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Larger images are recorded as errors and skipped.")
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

    def listed(self, split: Split) -> Iterator[Item]:
        """The same items one after another, for sources that need not hold them all."""
        yield from self.items(split)

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
        default=None, description="When the newest of its files was written, in seconds since the epoch; null: not known."
    )
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
        """The items of one shard, out of those of all."""
        size = self.source.shard_size
        return items[shard * size : (shard + 1) * size]


def describe(source: Source, split: Split, classes: tuple[str, ...] | None = None) -> DataSplit:
    """List a split and take its digest: ids, tags and the byte size of every file. `classes` are the source's, if they are known.

    Raises ValueError on what is wrong with the lists.
    """
    classes = source.class_names() if classes is None else classes
    tags, masks, untagged, size, newest, looked = Counter[int](), 0, 0, 0, 0.0, True
    count, hashed, samples = 0, ListingDigest(), dict[str, Item]()
    for count, item in enumerate(checked(source, split, len(classes)), start=1):
        hashed.add(item)
        tags.update(item.tags)
        masks += item.mask is not None
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
        tagged=tuple(tags[place] for place in range(len(classes))),
        num_masks=masks or (count if source.has_masks(split) else 0),
        num_untagged=untagged,
        num_bytes=size,
        newest=newest if looked else None,
        samples=tuple(dict.fromkeys(path for path in paths if path)),
    )


class ListingDigest:
    """The digest of a listing, which is that of its canonical JSON, taken piece by piece."""

    def __init__(self) -> None:
        self._hash, self._rows, self._is_first = hashlib.sha256(b"["), list[list[Any]](), True

    def add(self, item: Item) -> None:
        """The next item: id, tags, the byte size of its files, and the digest of annotations where there are any."""
        self._rows.append([item.image_id, item.tags, item.size, *([item.annotation] if item.annotation else [])])
        if len(self._rows) == _DIGESTED:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            text = canonical(self._rows)[1:-1]
            self._hash.update((text if self._is_first else f",{text}").encode())
            self._rows, self._is_first = [], False

    def hexdigest(self) -> str:
        """As 64 hexadecimal digits."""
        self._flush()
        ended = self._hash.copy()
        ended.update(b"]")
        return ended.hexdigest()


def checked(source: Source, split: Split, num_classes: int) -> Iterator[Item]:
    """The items of a split.

    Raises ValueError on an empty split, an id given twice or unfit as a name, or a tag out of range.
    """
    seen = set[str]()
    for item in source.listed(split):
        if item.image_id in seen:
            both = islice((other.path for other in source.listed(split) if other.image_id == item.image_id), 2)
            places = " and ".join(dict.fromkeys(map(str, both)))
            raise ValueError(f"data: {split}: image {item.image_id!r} is listed twice ({places}); remove one, or rename its file")
        if not _ID.fullmatch(item.image_id) or ".." in item.image_id.split("/"):
            wrong = "it may hold no control character, backslash or '..'; rename the file"
            raise ValueError(f"data: {split}: image id {item.image_id!r} is not usable: {wrong}")
        unknown = [tag for tag in item.tags if not 0 <= tag < num_classes]
        if unknown:
            raise ValueError(f"data: {split}: image {item.image_id}: tag {unknown[0]} is not one of the {num_classes} classes")
        seen.add(item.image_id)
        yield item
    if not seen:
        raise ValueError(f"data: {split}: the list is empty")


@contextmanager
def looked_up_once() -> Iterator[None]:
    """Within it, what `once` has looked up is not looked up again: a listing asks for its folders and tables several times."""
    token = _looked_up.set({})
    try:
        yield
    finally:
        _looked_up.reset(token)


def once(key: Any, look: Callable[[], T]) -> T:
    """What `look` finds; within `looked_up_once`, what it found for that key before."""
    known = _looked_up.get()
    if known is None:
        return look()
    if key not in known:
        known[key] = look()
    found: T = known[key]
    return found


def file_state(path: str) -> tuple[int, float] | None:
    """The size of a file in bytes, and when it was last written in seconds since the epoch; None where there is no such file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return (state.st_size, state.st_mtime) if stat.S_ISREG(state.st_mode) else None


def expand(path: str) -> Path:
    """A path from a job file: `~` is the home folder, relative paths start where the command was given."""
    return Path(path).expanduser()


def stages_of(source: Source) -> Data:
    """The ingest stages of a source's splits, listed and digested. Raises ValueError on what is wrong with the lists."""
    with looked_up_once():
        classes, names = source.class_names(), source.splits()
        splits = {split: describe(source, split, classes) for split in names if split != "saliency"}
        found = {split: ingest(component, name=f"images-{split}") for split, component in splits.items()}
        weak = found["weak"]
        saliency = None
        if "saliency" in names:
            saliency = ingest(describe(source, "saliency", classes), name="saliency", like=weak)
    return Data(
        classes=classes,
        weak=weak,
        val=found.get("val"),
        strong=found.get("strong"),
        saliency=saliency,
        weak_has_masks=splits["weak"].num_masks > 0,
    )
