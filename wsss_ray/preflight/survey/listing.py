"""List what a folder holds: images with tags and masks, and the fields of a `data:` block that name them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsss_ray.data.source import Source


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
    """

    image_id: str
    name: str
    path: str
    tags: tuple[str, ...]
    split: Literal["weak", "val"] = "weak"
    mask: str | None = None


@dataclass
class FolderListing:
    """The images of a folder, and how a job names them.

    Attributes:
        kind: The kind of the data source.
        what: The layout in words.
        fields: The fields of the job's `data:` block.
        classes: The names of the classes, in the order of the labels 1, 2, ...
        pictures: The images.
        has_masks: True if images have masks, as files or drawn from annotations.
        own: Reasons why the job needs a table or lists of its own, because the folder or the user's table cannot be used as it
            is. Empty if it needs none.
        left_out: Files by the reason why they are left out.
        unread: The number of files by extension, for formats that are not read.
        notes: Remarks for the user.
    """

    kind: str
    what: str
    fields: dict[str, Any]
    classes: tuple[str, ...]
    pictures: list[ListedImage]
    has_masks: bool = False
    own: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unread: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def source(self) -> Source:
        """Make the data source that the fields describe. Raises ValueError if they are not valid."""
        return Source.model_validate({"kind": self.kind} | self.fields)

    @property
    def drawn(self) -> bool:
        """Return True if the masks are drawn from annotations and are no files."""
        return self.has_masks and not any(picture.mask for picture in self.pictures)

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
