"""List what a folder holds: images with tags and masks, and the fields of a `data:` block that name them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsss_ray.data.source import Item, Source, Split


@dataclass(frozen=True)
class ListedImage:
    """One image.

    Attributes:
        image_id: The id that the data source gives it.
        name: The file as a table names it.
        path: The file.
        tags: The names of its classes.
        split: "weak" for the training set, "val" for the validation set.
        mask: The file of its mask, if it has one.
        drawn: True if its mask may be drawn from annotations.
        item: The image as the data source lists it, if the data source listed it.
    """

    image_id: str
    name: str
    path: str
    tags: tuple[str, ...]
    split: Literal["weak", "val"] = "weak"
    mask: str | None = None
    drawn: bool = False
    item: Item | None = None

    @property
    def masked(self) -> bool:
        """Return True if it has a mask, as a file or drawn."""
        return self.mask is not None or self.drawn


@dataclass
class FolderListing:
    """The images of a folder, and how a job names them.

    Attributes:
        kind: The kind of the data source.
        what: The layout in words.
        fields: The fields of the job's `data:` block.
        classes: The names of the classes, in the order of the labels 1, 2, ...
        pictures: The images.
        reads: The paths of other files that are used: tables, lists, annotations.
        own: Reasons why the job needs a table or lists of its own, because the folder or the user's table cannot be used as it
            is. Empty if it needs none.
        left_out: By the reason: paths of files that are left out, and names in tables or lists that lead to no file.
        notes: Remarks for the user.
    """

    kind: str
    what: str
    fields: dict[str, Any]
    classes: tuple[str, ...]
    pictures: list[ListedImage]
    reads: set[str] = field(default_factory=set)
    own: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def source(self) -> Source:
        """Make the data source that the fields describe. Raises ValueError if they are not valid."""
        return Source.model_validate({"kind": self.kind} | self.fields)

    @property
    def drawn(self) -> bool:
        """Return True if the masks are drawn from annotations and are no files."""
        return any(picture.drawn for picture in self.pictures)

    @property
    def has_masks(self) -> bool:
        """Return True if images have masks, as files or drawn."""
        return any(picture.masked for picture in self.pictures)

    def leave_out(self, reason: str, leave: Callable[[ListedImage], bool]) -> int:
        """Move the images for which `leave` is True to those that are left out. Return their number."""
        gone = [picture for picture in self.pictures if leave(picture)]
        if gone:
            self.left_out[reason] += [picture.path for picture in gone]
            self.pictures = [picture for picture in self.pictures if not leave(picture)]
        return len(gone)

    def tagged(self) -> dict[str, int]:
        """Count the images of each class."""
        counts = Counter(tag for picture in self.pictures for tag in picture.tags)
        return {name: counts[name] for name in self.classes}


def inside(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the subfolders with one of these names, in the order of the names. Upper and lower case are the same.

    Raises:
        ValueError: if the folder cannot be read.
    """
    try:
        found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    except OSError as error:
        raise ValueError(f"{folder}: cannot be read: {error.strerror}") from error
    return [found[name] for name in names if name in found]


def add_items(listing: FolderListing, source: Source, splits: Sequence[Split] = ("weak", "val")) -> None:
    """Add the images that the data source lists in these splits.

    Raises:
        ValueError: if the source refuses its lists or annotations.
    """
    for split in splits:
        if split not in source.splits():
            continue
        for item in source.taken(split):
            assert item.path is not None
            tags = tuple(listing.classes[tag] for tag in item.tags)
            drawn = item.annotation is not None and item.drawable
            part: Literal["weak", "val"] = "val" if split == "val" else "weak"
            listing.pictures.append(ListedImage(item.image_id, item.image_id, item.path, tags, part, item.mask, drawn, item))
