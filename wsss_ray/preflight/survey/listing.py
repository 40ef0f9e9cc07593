"""What a folder was found to hold: images with tags and masks, and the fields of a `data:` block that name them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsss_ray.data.source import Source


@dataclass(frozen=True)
class ListedImage:
    """One image: its id, its file and the mask's, the names of its classes. `name` is the file as a table would name it."""

    image_id: str
    name: str
    path: str
    tags: tuple[str, ...]
    split: Literal["weak", "val"] = "weak"
    mask: str | None = None


@dataclass
class FolderListing:
    """What was understood of a folder.

    `what` is the layout in words; `fields` are those of the job's `data:` block; `own` says why the job needs a table of its own
    (the folder or the user's table cannot be used as it stands), if it does. `left_out` are files by the reason. `unread` are the
    files of one extension that no reader here reads.
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
        """The data source that the fields describe. Raises ValueError."""
        return Source.model_validate({"kind": self.kind} | self.fields)

    @property
    def drawn(self) -> bool:
        """Whether masks are drawn from annotations and are no files."""
        return self.has_masks and not any(picture.mask for picture in self.pictures)

    def tagged(self) -> dict[str, int]:
        """Images of each class."""
        counts = Counter(tag for picture in self.pictures for tag in picture.tags)
        return {name: counts[name] for name in self.classes}


def inside(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The subfolders of a folder with one of these names, in any case, in the order of the names."""
    try:
        found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    except OSError as error:
        raise ValueError(f"{folder}: cannot be read: {error.strerror}") from error
    return [found[name] for name in names if name in found]
