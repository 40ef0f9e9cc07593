"""One's own images: a folder, and a table of tags or one subfolder per class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, model_validator

from wsss_ray.component import NotIdentity
from wsss_ray.data.source import Item, Raw, Source, Split, expand
from wsss_ray.data.tags import Row, check_classes, indices, read_table

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")


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

    def _check_masks(self, items: Sequence[Item]) -> None:
        if self.masks is None:
            return
        folder = expand(self.masks)
        if not folder.is_dir():
            raise ValueError(f"data.masks: {folder} is no folder; set it to the folder of the masks, or to null")
        if items and not any(item.mask for item in items):
            raise ValueError(
                f"data.masks: no image has a mask in {folder}; that of {items[0].image_id!r} would be {items[0].image_id}.png"
            )

    def class_names(self) -> tuple[str, ...]:
        """List the classes given, or all that the tags name."""
        if self.classes is not None:
            return check_classes(self.classes, "data.classes")
        if self.tags is not None:
            return check_classes(read_table(expand(self.tags), "tags").names, f"data.tags: {self.tags}")
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
        return split == "val" or (split == "weak" and self.masks is not None and any(item.mask for item in self.items("weak")))

    def items(self, split: Split) -> list[Item]:
        """List a split in the order of its table, or by name where the folders are the tags."""
        if split == "saliency":
            return [self._map(item) for item in self.items("weak")]
        if split == "strong":
            raise ValueError("data.strong: a folder has no such split")
        classes, files = self.class_names(), self._scan()
        items = [self._item(row, files, classes, split) for row in self._rows(split)]
        if not self._rows("val"):
            self._check_masks(items)
        return items

    def load(self, item: Item) -> Raw:
        """Read the image and, if it has one, the mask."""
        if item.path is None:
            raise ValueError(f"image {item.image_id} has no file")
        return Raw(Path(item.path).read_bytes(), Path(item.mask).read_bytes() if item.mask else None)

    def _rows(self, split: Split) -> list[Row]:
        listed = list(read_table(expand(self.val), "val").rows) if self.val is not None else []
        if self.tags is None:
            scored = {_bare(row.image) for row in listed}
            return listed if split == "val" else [row for row in self._folder_rows() if _bare(row.image) not in scored]
        rows = [row for row in read_table(expand(self.tags), "tags").rows if row.split == split]
        return rows + listed if split == "val" else rows

    def _folder_rows(self) -> list[Row]:
        """Make rows of the images whose first folder is their class."""
        rows = []
        for name in sorted(path for paths in self._scan().values() for path in paths):
            parts = PurePosixPath(name).parts
            if len(parts) < 2:
                raise ValueError(f"data.root: {name} lies in no class folder; set data.tags to a table, or move it into one")
            rows.append(Row(name, (parts[0],), "weak", name))
        return rows

    def _scan(self) -> dict[str, list[str]]:
        """Find all images below the root: path without extension -> paths, relative, with forward slashes."""
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is no folder; set it to the folder of the images")
        other = {os.path.realpath(expand(path)) for path in (self.masks, self.saliency) if path is not None}
        found: dict[str, list[str]] = {}
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = [sub for sub in subfolders if sub[0] != "." and os.path.realpath(Path(folder, sub)) not in other]
            for file in files:
                if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                    name = Path(folder, file).relative_to(root).as_posix()
                    found.setdefault(_nfc(_bare(name)), []).append(name)
        return found

    def _item(self, row: Row, files: dict[str, list[str]], classes: Sequence[str], split: Split) -> Item:
        name = _find(row, files, self.root)
        image_id = _bare(name)
        path = expand(self.root) / name
        size = path.stat().st_size
        tags = indices(row.tags, classes, row.where)
        if self.masks is None:
            return Item(image_id, tags, str(path), None, size)
        mask = expand(self.masks) / f"{image_id}.png"
        if mask.is_file():
            return Item(image_id, tags, str(path), str(mask), size + mask.stat().st_size)
        if split == "val":
            raise ValueError(f"{row.where}: mask {mask} is missing; every image to score on needs one")
        return Item(image_id, tags, str(path), None, size)

    def _map(self, item: Item) -> Item:
        path = expand(self.saliency or "") / f"{item.image_id}.png"
        if not path.is_file():
            raise ValueError(f"data.saliency: {path} is missing; every image with tags needs a map")
        return Item(item.image_id, item.tags, str(path), None, path.stat().st_size)


def _bare(name: str) -> str:
    """Drop the extension of an image file."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in _SUFFIXES else name


def _nfc(name: str) -> str:
    """One spelling of accents: macOS stores a letter and its accent apart."""
    return unicodedata.normalize("NFC", name)


def _alike(path: str) -> str:
    """What a path is but for case, extension and folder."""
    return _nfc(_bare(PurePosixPath(path).name)).lower()


def _find(row: Row, files: dict[str, list[str]], root: str) -> str:
    named = files.get(_nfc(_bare(row.image)), [])
    same = [name for name in named if _nfc(name) == _nfc(row.image)]
    if same:
        return same[0]
    if not named or row.image != _bare(row.image):
        near = [path for paths in files.values() for path in paths if _alike(path) == _alike(row.image)]
        mend = f"; did you mean {near[0]!r}?" if near else f", where it is looked for; formats: {' '.join(_SUFFIXES)}"
        raise ValueError(f"{row.where}: image {row.image!r} is not in {root}{mend}")
    if len(named) > 1:
        raise ValueError(f"{row.where}: image {row.image!r} may be {' or '.join(sorted(named))}; give the extension")
    return named[0]
