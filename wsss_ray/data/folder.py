"""Read your own images: a folder, and a table of tags or one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, model_validator

from wsss_ray.core.component import LocalPath, NotIdentity
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.flat import Places, in_order
from wsss_ray.data.image_files import SUFFIXES, alike, bare, image_names, nfc, read_files
from wsss_ray.data.source import Item, Raw, Source, Split, expand, file_state, once
from wsss_ray.data.tags import Table, TagRow, check_classes, indices, read_tag_table


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
        default=None, description="Class names in label order; null: all names in tags, sorted."
    )

    @model_validator(mode="after")
    def _val_has_masks(self) -> Folder:
        if self.val is not None and self.masks is None:
            raise ValueError("val is set but masks is not; set masks to the folder of the masks, or val to null")
        return self

    def class_names(self) -> tuple[str, ...]:
        """Return the given classes, or all that the tags name."""
        if self.classes is not None:
            return check_classes(self.classes, "data.classes")
        if self.tags is not None:
            return check_classes(_table(self.tags, "tags").names, f"data.tags: {self.tags}")
        names = once(("classes", self.root), lambda: {tag for row in self._folder_rows() for tag in row.tags})
        return check_classes(sorted(names), f"data.root: {self.root}")

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`; `val` if there are masks and validation images; `saliency` if there is a folder of maps."""
        found: list[Split] = ["weak"]
        if self.masks is not None and self._has_rows("val"):
            found.append("val")
        return (*found, "saliency") if self.saliency_folder is not None else tuple(found)

    def has_masks(self, split: Split) -> bool:
        """Return True for val, and for weak if any image has a mask."""
        return split == "val" or (split == "weak" and self.masks is not None and any(item.mask for item in self.listed("weak")))

    def items(self, split: Split) -> list[Item]:
        """List a split in the order of its table, or sorted by name if subfolders are the tags."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        if split == "strong":
            raise ValueError("data.strong: a folder has no such split; kinds voc and coco have it")
        classes, files = self.class_names(), self._scan()
        root, rows = str(expand(self.root)), self._rows("weak" if split == "saliency" else split)
        folder = self.saliency_folder if split == "saliency" else self.masks
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
                    raise ValueError(f"data.saliency: {shown(other, 1000)} is missing; every image with tags needs a map")
                yield Item(image_id, tags, other, None, found[0], changed=found[1])
                continue
            if split == "val" and others is not None and found is None:
                raise ValueError(f"{row.where}: mask {shown(other, 1000)} is missing; every validation image needs one")
            path = f"{root}/{name}"
            state = file_state(path)
            if state is None:
                raise ValueError(f"{row.where}: image {shown(path, 1000)} is gone; restore it, or remove its row")
            size, changed = state
            first, masked = first or image_id, masked or found is not None
            if found is None:
                yield Item(image_id, tags, path, None, size, changed=changed)
            else:
                yield Item(image_id, tags, path, other, size + found[0], changed=max(changed, found[1]))
        if first is not None and not masked and split == "weak" and others is not None and not self._has_rows("val"):
            raise ValueError(f"data.masks: no image has a mask in {others}; that of {first!r} would be {first}.png")

    def load(self, item: Item) -> Raw:
        """Read the image, and the mask if there is one."""
        return read_files(item)

    def _rows(self, split: Split) -> Iterator[TagRow]:
        listed = _table(self.val, "val").rows if self.val is not None else ()
        if self.tags is not None:
            yield from _table(self.tags, "tags").rows.of_split(split)
        elif split != "val":
            scored = {bare(row.image) for row in listed}
            yield from (row for row in self._folder_rows() if bare(row.image) not in scored)
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
        return once((self.root, self.masks, self.saliency), self._find_files)

    def _find_files(self) -> FoundFiles:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder; set it to the folder of the images")
        if self.masks is not None and not expand(self.masks).is_dir():
            raise ValueError(f"data.masks: {expand(self.masks)} is not a folder; set it to the folder of the masks, or to null")
        others = {os.path.realpath(expand(path)) for path in (self.masks, self.saliency_folder) if path is not None}
        return FoundFiles(image_names(str(root), skip=others))


class FoundFiles:
    """The images below a folder, `names` in order, and found by a name that may lack the extension. About 30 bytes and a name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names, self._places = in_order(names), Places()
        for name in self.names:
            self._places.add(_key(name))

    def named(self, image: str) -> list[str]:
        """Return the files that a name may mean: accents in any spelling, any extension."""
        key = _key(image)
        found = (self.names[place] for place in self._places.find(key))
        return [name for name in found if name == image or _key(name) == key]


def _key(name: str) -> str:
    return nfc(bare(name))


def _table(path: str, field: str) -> Table:
    return once((path, field), lambda: read_tag_table(expand(path), field))


def _find(row: TagRow, files: FoundFiles, root: str) -> str:
    named = files.named(row.image)
    same = [name for name in named if nfc(name) == nfc(row.image)]
    if same:
        return same[0]
    if not named or row.image != bare(row.image):
        near = next((name for name in files.names if alike(name) == alike(row.image)), None)
        remedy = f"did you mean {near!r}?" if near is not None else f"add it or remove the row; formats: {' '.join(SUFFIXES)}"
        raise ValueError(f"{row.where}: image {shown(repr(row.image), 300)} is not in {root}; {remedy}")
    if len(named) > 1:
        several = shown(" or ".join(sorted(named)), 500)
        raise ValueError(f"{row.where}: image {shown(repr(row.image), 300)} may be {several}; give the extension")
    return named[0]
