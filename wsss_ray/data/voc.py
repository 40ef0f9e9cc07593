"""Read Pascal VOC, and other sets with the same layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsss_ray.core.component import LocalPath, NotIdentity, SinceThen
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.finder import Finder, beside
from wsss_ray.data.image_files import read_files
from wsss_ray.data.lookup import expand, once
from wsss_ray.data.remembered import Remembered
from wsss_ray.data.source import Item, Raw, Source, Split
from wsss_ray.data.tags import check_classes, indices, numbered_lines
from wsss_ray.data.voc_lists import Entry, Lines
from wsss_ray.data.voc_xml import read_annotation

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MASKS = "SegmentationClassAug"
_SUFFIXES = (".jpg", ".jpeg", ".png")

Tagger = Callable[[Entry], tuple[int, ...]]


class Voc(Source):
    """Pascal VOC's folders of images, XML annotations, masks and lists.

    The lines of a list have the form of PSA (`/JPEGImages/x.jpg /SegmentationClassAug/x.png`), of IRN (`x`) or of OAA (`x 0 14`,
    with 0-based class indices). Names may hold spaces: a line is read in the form in which its image exists, and is an error if
    that is so for two forms. All paths are absolute or relative to `root`.
    """

    root: Annotated[str, LocalPath()] = Field(description="Folder of the set, such as VOCdevkit/VOC2012.")
    train: Annotated[str, LocalPath(below="root")] = Field(
        default="ImageSets/SegmentationAug/train_aug.txt", description="List of the training images."
    )
    val: Annotated[str | None, LocalPath(below="root")] = Field(
        default="ImageSets/Segmentation/val.txt", description="List of the validation images; null for none."
    )
    strong: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="List of images whose masks are used for training."
    )
    images: Annotated[str, LocalPath(below="root")] = Field(default="JPEGImages", description="Folder of the images.")
    masks: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of the masks, <id>.png; null: the paths in the list, else SegmentationClassAug."
    )
    val_masks: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of the validation masks; null: as masks."
    )
    saliency: Annotated[str | SaliencyNet | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of saliency maps, <id>.png; or the network that makes them, such as {kind: u2net}."
    )
    annotations: Annotated[str, LocalPath(below="root")] = Field(
        default="Annotations", description="Folder of the XML annotations."
    )
    tags: Annotated[str, LocalPath(below="root", unless=("auto",))] = Field(
        default="auto", description="auto: the list's own tags, else the XML; or the path of cls_labels.npy or of an OAA list."
    )
    drop_difficult: Annotated[bool, NotIdentity()] = Field(
        default=False, description="Leave out objects marked difficult in the XML, unless the image has no others."
    )
    classes: Annotated[tuple[str, ...] | None, NotIdentity()] = Field(
        default=None,
        description="Class names in label order; null: classes.txt in root if it exists, else VOC's twenty. A part of the "
        "classes of the set needs `labels`.",
    )
    labels: Annotated[Literal["set"] | tuple[str, ...] | None, SinceThen()] = Field(
        default=None,
        description="Names of the labels 1, 2, ... in masks and of the numbers in lists, if `classes` are a part of them, or in "
        "another order: the names, or `set` for those of classes.txt or VOC's twenty; null: `classes`.",
    )

    def class_names(self) -> tuple[str, ...]:
        """Return the given classes, or the names of the labels."""
        return self._label_names() if self.classes is None else check_classes(self.classes, "data.classes")

    def _label_names(self) -> tuple[str, ...]:
        """Return the names of the labels in the masks: those given, or those of `classes.txt` in the root, or VOC's."""
        if self.labels is not None and self.labels != "set":
            return check_classes(self.labels, "data.labels")
        if self.labels is None and self.classes is not None:
            return check_classes(self.classes, "data.classes")
        path = self._path("classes.txt", "root")
        if not path.is_file():
            return VOC_CLASSES
        return check_classes([name for _, name in numbered_lines(path, "root")], str(path))

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`, and those of val, strong and saliency that have a list or folder."""
        given: tuple[tuple[Split, str | None], ...]
        given = (("val", self.val), ("strong", self.strong), ("saliency", self.saliency_folder))
        return ("weak", *(split for split, path in given if path is not None))

    def has_masks(self, split: Split) -> bool:
        """Return True for val and strong, and for weak if any image has a mask."""
        if split != "weak":
            return split != "saliency"
        root, folder = self._root(), self._folder(self.masks)
        return any(_mask(entry, root, folder)[1] is not None for entry in self._entries(self.train, "train"))

    def items(self, split: Split) -> list[Item]:
        """List a split from its text file. Saliency maps have the order of the weak images."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        listed = {"weak": self.train, "val": self.val, "strong": self.strong, "saliency": self.train}[split]
        if listed is None:
            raise ValueError(f"data.{split}: is null; set it to a list of images")
        field = "train" if split in ("weak", "saliency") else split
        root, images, maps = self._root(), self._images(), self._folder(self.saliency_folder)
        folder = self._folder((self.val_masks if split == "val" else None) or self.masks)
        with self._tagger(split) as tags_of:
            for entry in self._entries(listed, field):
                if split == "saliency":
                    path, state = beside(maps or root, entry.image_id)
                    if state is None:
                        raise ValueError(f"data.saliency: {shown(path, 1000)} is missing; every tagged image needs one")
                    size, changed = state
                    yield Item(entry.image_id, tags_of(entry), path, None, size, changed=changed)
                    continue
                path, size, changed = _image(entry, root, images)
                mask, found = _mask(entry, root, folder)
                if found is None and split != "weak":
                    raise ValueError(f"{entry.where}: mask {shown(mask, 1000)} is missing; every image of data.{split} needs one")
                kept, found = (None, (0, 0.0)) if found is None else (mask, found)
                yield Item(entry.image_id, tags_of(entry), path, kept, size + found[0], changed=max(changed, found[1]))

    def load(self, item: Item) -> Raw:
        """Read the image, and the mask if there is one."""
        return replace(read_files(item), labels=None if self.labels is None else self._label_names())

    def _path(self, name: str, field: str) -> Path:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder (asked for data.{field}); set it to the one with {self.images}/")
        return root / expand(name)

    def _entries(self, listed: str, field: str) -> Iterator[Entry]:
        path = self._path(listed, field)
        lines = Lines(self._root(), self._images())
        for number, line in numbered_lines(path, field):
            yield lines.entry(line, f"{path}:{number}")

    def _images(self) -> Finder:
        return Finder(self._folder(self.images) or self._root(), suffixes=_SUFFIXES)

    def _root(self) -> str:
        return str(expand(self.root))

    def _folder(self, name: str | None) -> str | None:
        """Return the path of a folder, which may be relative to the root."""
        return None if name is None else str(expand(self.root) / expand(name))

    @contextmanager
    def _tagger(self, split: Split) -> Iterator[Tagger]:
        """Choose where tags come from. A tag file need not hold the validation images: they are only scored."""
        classes, labels = self.class_names(), self._label_names()
        place_of = {place: classes.index(name) for place, name in enumerate(labels) if name in classes}
        if self.tags != "auto":
            yield self._from_tag_file(self._path(self.tags, "tags"), len(labels), place_of, split)
            return
        folder, drop = self._folder(self.annotations), self.drop_difficult
        known = once((folder, drop), lambda: Remembered("VOC XML", folder, drop))
        same: dict[tuple[str, ...], tuple[int, ...]] = {}

        def look_up(entry: Entry) -> tuple[int, ...]:
            if entry.tags is not None:
                return _fit(entry.tags, len(labels), place_of, entry.where)
            path = f"{folder}/{entry.image_id}.xml"
            try:
                names = tuple(known.words(entry.image_id, path, lambda data: read_annotation(data, path, drop_difficult=drop)))
            except OSError as err:
                annotation = shown(path, 1000)
                mend = "Give data.tags, or a table of the tags: wsss-ray init PHOTOS --tags TABLE --masks MASKS."
                raise ValueError(
                    f"{entry.where}: no tags in the list, and annotation {annotation}: {err.strerror}. {mend}"
                ) from err
            if names not in same:
                same[names] = indices(names, classes, path, others=labels)
            return same[names]

        try:
            yield look_up
        finally:
            known.keep()

    def _from_tag_file(self, path: Path, count: int, place_of: dict[int, int], split: Split) -> Tagger:
        table = once(path, lambda: self._tag_file(path))

        def look_up(entry: Entry) -> tuple[int, ...]:
            if entry.image_id not in table and split != "val":
                image = shown(entry.image_id)
                raise ValueError(f"{entry.where}: image {image} has no tags in {path}; add them, or remove this line")
            return _fit(table.get(entry.image_id, ()), count, place_of, f"data.tags: {path}: {shown(entry.image_id)}")

        return look_up

    def _tag_file(self, path: Path) -> dict[str, tuple[int, ...]]:
        if path.suffix == ".npy":
            try:
                return read_cls_labels(path.read_bytes())
            except OSError as err:
                raise ValueError(f"data.tags: cannot read {path}: {err.strerror}") from err
            except ValueError as err:
                raise ValueError(f"data.tags: {path}: {err}") from err
        lines = Lines(self._root(), self._images())
        entries = (lines.entry(line, f"{path}:{number}") for number, line in numbered_lines(path, "tags"))
        same: dict[tuple[int, ...], tuple[int, ...]] = {}
        tags = ((entry.image_id, entry.tags or ()) for entry in entries)
        return {image_id: same.setdefault(some, some) for image_id, some in tags}


def _fit(tags: tuple[int, ...], count: int, place_of: dict[int, int], where: str) -> tuple[int, ...]:
    """Turn numbers of labels, from 0, into indices of classes. Labels of other classes are left out."""
    if tags and tags[-1] >= count:
        raise ValueError(f"{where}: tag {tags[-1]} is not one of the {count} classes (0 to {count - 1})")
    return tuple(sorted(place_of[tag] for tag in tags if tag in place_of))


def _image(entry: Entry, root: str, images: Finder) -> tuple[str, int, float]:
    """Return the file of an image, its size, and when it was last written."""
    finder, name = (Finder(root), entry.image) if entry.image else (images, entry.image_id)
    found = finder.find(name, where=entry.where)
    if found is None:
        path = f"{finder.folder}/{name}{'' if entry.image else _SUFFIXES[0]}"
        raise ValueError(f"{entry.where}: image {shown(path, 1000)} is missing; add it, or remove this line")
    return found


def _mask(entry: Entry, root: str, folder: str | None) -> tuple[str, tuple[int, float] | None]:
    """Return the path at which the mask of an image is expected, with its size and time; None if it is missing."""
    if folder is None and entry.mask:
        return beside(root, entry.mask, "")
    return beside(folder or f"{root}/{_MASKS}", entry.image_id)
