"""One's own images: a folder, and a table of tags or one subfolder per class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, NoReturn

from pydantic import Field, model_validator

from wsss_ray.core.component import NotIdentity
from wsss_ray.data.source import Item, Raw, Source, Split, expand, file_state, once
from wsss_ray.data.tags import Table, TagRow, check_classes, indices, read_table

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")


class Folder(Source):
    """A folder of images with a CSV, JSON, JSONL or Parquet table of their tags.

    A table has a column `image` (file relative to `root`, with or without its extension), and either `tags` (names with ; or | or
    , between) or one 0/1 column for every class; `split` (train or val) where it holds both. JSON may also map image to names.
    An image is known by its path in `root` without the extension; so are its mask and its saliency map. Other paths start where
    the command was given.
    """

    root: Annotated[str, NotIdentity()] = Field(description="Folder of the images, with subfolders or without.")
    tags: Annotated[str | None, NotIdentity()] = Field(
        default=None, description="Table of tags (.csv, .json, .jsonl, .parquet); null: the first subfolder's name is the tag."
    )
    val: Annotated[str | None, NotIdentity()] = Field(
        default=None, description="Table of the images to score on, if they are not marked in tags; needs masks."
    )
    masks: Annotated[str | None, NotIdentity()] = Field(default=None, description="Folder of the masks, <image>.png.")
    saliency: Annotated[str | None, NotIdentity()] = Field(default=None, description="Folder of saliency maps, <image>.png.")
    classes: Annotated[tuple[str, ...] | None, NotIdentity()] = Field(
        default=None, description="Class names in label order; null: all names in tags, sorted."
    )

    @model_validator(mode="after")
    def _val_has_masks(self) -> Folder:
        if self.val is not None and self.masks is None:
            raise ValueError("val is set but masks is not; set masks to the folder of the masks, or val to null")
        return self

    def class_names(self) -> tuple[str, ...]:
        """List the classes given, or all that the tags name."""
        if self.classes is not None:
            return check_classes(self.classes, "data.classes")
        if self.tags is not None:
            return check_classes(_table(self.tags, "tags").names, f"data.tags: {self.tags}")
        names = {tag for row in self._folder_rows() for tag in row.tags}
        return check_classes(sorted(names), f"data.root: {self.root}")

    def splits(self) -> tuple[Split, ...]:
        """`weak`, `val` where there are masks and images marked so, `saliency` where there is a folder."""
        found: list[Split] = ["weak"]
        if self.masks is not None and self._rows("val"):
            found.append("val")
        return (*found, "saliency") if self.saliency is not None else tuple(found)

    def has_masks(self, split: Split) -> bool:
        """Whether val; for weak, whether there is any mask."""
        return split == "val" or (split == "weak" and self.masks is not None and any(item.mask for item in self.listed("weak")))

    def items(self, split: Split) -> list[Item]:
        """List a split in the order of its table, or by name where the folders are the tags."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """See `items`."""
        if split == "strong":
            raise ValueError("data.strong: a folder has no such split")
        classes, files = self.class_names(), self._scan()
        root, rows = str(expand(self.root)), self._rows("weak" if split == "saliency" else split)
        folder = self.saliency if split == "saliency" else self.masks
        others = None if folder is None else str(expand(folder))
        first, masked, same = None, False, dict[tuple[str, ...], tuple[int, ...]]()
        for row in rows:
            name = _find(row, files, self.root)
            image_id, tags = bare(name), same.get(row.tags)
            if tags is None:
                tags = same[row.tags] = indices(row.tags, classes, row.where)
            other = f"{others}/{image_id}.png"
            found = None if others is None else file_state(other)
            if split == "saliency":
                if found is None:
                    raise ValueError(f"data.saliency: {other} is missing; every image with tags needs a map")
                yield Item(image_id, tags, other, None, found[0], changed=found[1])
                continue
            if split == "val" and others is not None and found is None:
                raise ValueError(f"{row.where}: mask {other} is missing; every validation image needs one")
            path = f"{root}/{name}"
            size, changed = file_state(path) or _fail(f"{row.where}: image {path} is gone")
            first, masked = first or image_id, masked or found is not None
            if found is None:
                yield Item(image_id, tags, path, None, size, changed=changed)
            else:
                yield Item(image_id, tags, path, other, size + found[0], changed=max(changed, found[1]))
        if first is not None and not masked and split == "weak" and others is not None and not self._rows("val"):
            raise ValueError(f"data.masks: no image has a mask in {others}; that of {first!r} would be {first}.png")

    def load(self, item: Item) -> Raw:
        """Read the image and, if it has one, the mask."""
        if item.path is None:
            raise ValueError(f"image {item.image_id} has no file")
        return Raw(Path(item.path).read_bytes(), Path(item.mask).read_bytes() if item.mask else None)

    def _rows(self, split: Split) -> list[TagRow]:
        listed = list(_table(self.val, "val").rows) if self.val is not None else []
        if self.tags is None:
            scored = {bare(row.image) for row in listed}
            return listed if split == "val" else [row for row in self._folder_rows() if bare(row.image) not in scored]
        rows = [row for row in _table(self.tags, "tags").rows if row.split == split]
        return rows + listed if split == "val" else rows

    def _folder_rows(self) -> list[TagRow]:
        """Make rows of the images whose first folder is their class."""
        rows = []
        for name in sorted(path for paths in self._scan().values() for path in paths):
            first, slash, _ = name.partition("/")
            if not slash:
                raise ValueError(f"data.root: {name} lies in no class folder; move it into one, or set data.tags to a table")
            rows.append(TagRow(name, (first,), "weak"))
        return rows

    def _scan(self) -> dict[str, tuple[str, ...]]:
        """Find all images below the root: path without extension -> paths, relative, with forward slashes."""
        return once((self.root, self.masks, self.saliency), self._walk)

    def _walk(self) -> dict[str, tuple[str, ...]]:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is no folder; set it to the folder of the images")
        if self.masks is not None and not expand(self.masks).is_dir():
            raise ValueError(f"data.masks: {expand(self.masks)} is no folder; set it to the folder of the masks, or to null")
        other = {os.path.realpath(expand(path)) for path in (self.masks, self.saliency) if path is not None}
        found: dict[str, tuple[str, ...]] = {}
        for folder, subfolders, files in walk(root):
            inner = [sub for sub in subfolders if not sub.startswith(".")]
            subfolders[:] = [sub for sub in inner if os.path.realpath(os.path.join(folder, sub)) not in other]
            inside = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            for file in files:
                if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                    name = prefix + file
                    key = nfc(bare(name))
                    found[key] = (*found[key], name) if key in found else (name,)
        return found


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, but a folder that may not be read is an OSError that names it, and not an empty one.

    Except `lost+found`, which the file systems of disks have for themselves.
    """

    def stop(error: OSError) -> None:
        if PurePosixPath(str(error.filename)).name != "lost+found":
            raise error

    return os.walk(folder, onerror=stop)


def _table(path: str, field: str) -> Table:
    return once((path, field), lambda: read_table(expand(path), field))


def _fail(message: str) -> NoReturn:
    raise ValueError(message)


def bare(name: str) -> str:
    """Drop the extension of an image file."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in SUFFIXES else name


def nfc(name: str) -> str:
    """One spelling of accents: macOS stores a letter and its accent apart."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def alike(path: str) -> str:
    """What a path is but for case, extension and folder."""
    return nfc(bare(PurePosixPath(path).name)).lower()


def _find(row: TagRow, files: dict[str, tuple[str, ...]], root: str) -> str:
    named = files.get(nfc(bare(row.image)), ())
    same = [name for name in named if nfc(name) == nfc(row.image)]
    if same:
        return same[0]
    if not named or row.image != bare(row.image):
        near = [path for paths in files.values() for path in paths if alike(path) == alike(row.image)]
        mend = f"; did you mean {near[0]!r}?" if near else f"; names are relative to that folder, formats: {' '.join(SUFFIXES)}"
        raise ValueError(f"{row.where}: image {row.image!r} is not in {root}{mend}")
    if len(named) > 1:
        raise ValueError(f"{row.where}: image {row.image!r} may be {' or '.join(sorted(named))}; give the extension")
    return named[0]
