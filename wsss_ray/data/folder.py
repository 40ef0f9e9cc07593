"""Read your own images: a folder, and a table of tags or one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from wsss_ray.core.component import LocalPath, NotIdentity, SinceThen
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.finder import FoundFiles, beside, relative
from wsss_ray.data.image_files import bare, image_names, nfc, read_files
from wsss_ray.data.lookup import expand, file_state, once
from wsss_ray.data.source import Item, Raw, Source, Split
from wsss_ray.data.tables import read_tag_table
from wsss_ray.data.tags import Table, TagRow, check_classes, check_spelling, indices


class Folder(Source):
    """A folder of images with a CSV, JSON, JSONL or Parquet table of their tags, or with one subfolder per class.

    A table has a column `image` (a file relative to `root`, with or without extension), and either a column `tags` (names
    separated by ; or | or ,) or one 0/1 column per class. If it holds training and validation images, a column `split` (train or
    val) tells them apart. A JSON file may also map images to lists of names.

    The id of an image is its path in `root` without extension. Its mask and its saliency map have that path in their folders,
    with the extension .png. Other relative paths start at the current folder.
    """

    root: Annotated[str, LocalPath()] = Field(description="Folder of the images, with or without subfolders.")
    tags: Annotated[str | None, LocalPath()] = Field(
        default=None,
        description="Table of tags (.csv, .json, .jsonl, .parquet); null: the name of the first subfolder is the tag.",
    )
    val: Annotated[str | None, LocalPath()] = Field(
        default=None, description="Table of the validation images, if `tags` does not mark them; needs masks."
    )
    masks: Annotated[str | None, LocalPath()] = Field(default=None, description="Folder of the masks, <image>.png.")
    saliency: Annotated[str | SaliencyNet | None, LocalPath()] = Field(
        default=None, description="Folder of saliency maps, <image>.png; or the network that makes them, such as {kind: u2net}."
    )
    classes: Annotated[tuple[str, ...] | None, NotIdentity()] = Field(
        default=None, description="Class names in label order; null: `labels`, or else all names in tags, sorted."
    )
    labels: Annotated[tuple[str, ...] | None, SinceThen()] = Field(
        default=None, description="Names of the labels 1, 2, ... in the masks, if `classes` are others or only some of them."
    )
    strong: Annotated[str | None, LocalPath(unless=("masks",))] = Field(
        default=None,
        description="Images whose masks are used for training: `masks` for all training images with one, or a table.",
    )

    @model_validator(mode="after")
    def _has_masks_for(self) -> Folder:
        for field in ("val", "strong"):
            if getattr(self, field) is not None and self.masks is None:
                raise ValueError(f"{field} is set but masks is not; set masks to the folder of the masks, or {field} to null")
        return self

    def class_names(self) -> tuple[str, ...]:
        """Return the given classes, or all that the tags name."""
        if self.classes is not None:
            return check_classes(self.classes, "data.classes")
        if self.labels is not None:
            return check_classes(self.labels, "data.labels")
        if self.tags is not None:
            where, names = f"data.tags: {self.tags}", set(_table(self.tags, "tags").names)
        else:
            where = f"data.root: {self.root}"
            names = once(("classes", self.root), lambda: {tag for row in self._folder_rows() for tag in row.tags})
        check_spelling(names, where)
        return check_classes(sorted(names), where)

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`; `val` if there are masks and validation images; those of strong and saliency that are set."""
        found: list[Split] = ["weak"]
        if self.masks is not None and self._has_rows("val"):
            found.append("val")
        if self.strong is not None:
            found.append("strong")
        return (*found, "saliency") if self.saliency_folder is not None else tuple(found)

    def has_masks(self, split: Split) -> bool:
        """Return True for val and strong, and for weak if any image has a mask."""
        if split == "weak":
            return self.masks is not None and any(item.mask for item in self.listed("weak"))
        return split != "saliency"

    def items(self, split: Split) -> list[Item]:
        """List a split in the order of its table, or sorted by name if subfolders are the tags."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        if split == "strong" and self.strong is None:
            raise ValueError("data.strong: is null; set it to `masks`, or to a table of images with masks")
        classes, files = self.class_names(), self._scan()
        root, other = str(expand(self.root)), self._home(split)
        folder = self.saliency_folder if split == "saliency" else self.masks
        others = None if folder is None else str(expand(folder))
        first, masked, same = None, False, dict[tuple[str, ...], tuple[int, ...]]()
        for row in self._rows("weak" if split == "saliency" else split):
            name = _find(row, files, self.root, other)
            image_id, tags = bare(name), same.get(row.tags)
            if tags is None:
                tags = same[row.tags] = indices(row.tags, classes, row.where, others=self.labels or ())
            beside_it, found = ("", None) if others is None else beside(others, image_id)
            if split == "saliency":
                if found is None:
                    raise ValueError(f"data.saliency: {shown(beside_it, 1000)} is missing; every image with tags needs a map")
                yield Item(image_id, tags, beside_it, None, found[0], changed=found[1])
                continue
            if others is not None and found is None and split != "weak":
                if self.strong == "masks" and split == "strong":
                    continue
                what = "validation image" if split == "val" else "image of data.strong"
                raise ValueError(f"{row.where}: mask {shown(beside_it, 1000)} is missing; every {what} needs one")
            path = f"{root}/{name}"
            state = file_state(path)
            if state is None:
                raise ValueError(f"{row.where}: image {shown(path, 1000)} is gone; restore it, or remove its row")
            size, changed = state
            first, masked = first or image_id, masked or found is not None
            if found is None:
                yield Item(image_id, tags, path, None, size, changed=changed)
            else:
                yield Item(image_id, tags, path, beside_it, size + found[0], changed=max(changed, found[1]))
        if first is not None and not masked and split == "weak" and others is not None and not self._has_rows("val"):
            named = f"that of {shown(repr(first), 300)} would be {shown(first, 300)}.png"
            raise ValueError(f"data.masks: no image has a mask in {others}; {named}")

    def load(self, item: Item) -> Raw:
        """Read the image, and the mask if there is one."""
        return replace(read_files(item), labels=self.labels)

    def _home(self, split: Split) -> str:
        """Return the folder of another machine in which the names of a split's table lie."""
        path, field = (self.val, "val") if split == "val" and self.val is not None else (self.tags, "tags")
        if split == "strong" and self.strong != "masks":
            path, field = self.strong, "strong"
        return "" if path is None else _table(path, field).home

    def _rows(self, split: Split) -> Iterator[TagRow]:
        listed = _table(self.val, "val").rows if self.val is not None else ()
        if split == "strong":
            yield from self._rows("weak") if self.strong in (None, "masks") else _table(self.strong, "strong").rows
            return
        if self.tags is not None:
            yield from _table(self.tags, "tags").rows.of_split(split)
        elif split != "val":
            scored = {nfc(bare(row.image)) for row in listed}
            yield from (row for row in self._folder_rows() if nfc(bare(row.image)) not in scored)
        if split == "val":
            yield from listed

    def _has_rows(self, split: Split) -> bool:
        return next(self._rows(split), None) is not None

    def _folder_rows(self) -> Iterator[TagRow]:
        """Make one row per image, with its first folder as its tag."""
        for name in self._scan().names:
            first, slash, _ = name.partition("/")
            if not slash:
                found = f"{shown(name, 300)} is not in a class folder"
                raise ValueError(f"data.root: {found}; move it into one, or set data.tags to a table")
            yield TagRow(name, (first,), "weak")

    def _scan(self) -> FoundFiles:
        """Find all images below the root."""
        return once((self.root, self.masks, self.saliency_folder), self._find_files)

    def _find_files(self) -> FoundFiles:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder; set it to the folder of the images")
        if self.masks is not None and not expand(self.masks).is_dir():
            raise ValueError(f"data.masks: {expand(self.masks)} is not a folder; set it to the folder of the masks, or to null")
        others = {os.path.realpath(expand(path)) for path in (self.masks, self.saliency_folder) if path is not None}
        return FoundFiles(image_names(str(root), skip=others))


def _table(path: str, field: str) -> Table:
    return once((path, field), lambda: read_tag_table(expand(path), field))


def _find(row: TagRow, files: FoundFiles, root: str, other: str) -> str:
    image = relative(row.image, root, other)
    found = files.meant(image, where=row.where)
    if found is None:
        raise ValueError(f"{row.where}: image {shown(repr(row.image), 300)} is not in {root}; {files.remedy(image)}")
    return found
