"""Read Pascal VOC, and other sets with the same layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated
from xml.etree import ElementTree

from pydantic import Field

from wsss_ray.core.component import LocalPath, NotIdentity
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.image_files import read_files
from wsss_ray.data.remembered import Remembered
from wsss_ray.data.source import Item, Raw, Source, Split, expand, file_state, once
from wsss_ray.data.tags import check_classes, indices, numbered_lines

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MASKS = "SegmentationClassAug"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SUFFIXES = (".jpg", ".jpeg", ".png")

Tagger = Callable[["Entry"], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list: the image id, its place for messages, and the files and tags that the line gives."""

    image_id: str
    where: str
    image: str | None = None
    mask: str | None = None
    tags: tuple[int, ...] | None = None


class Voc(Source):
    """Pascal VOC's folders of images, XML annotations, masks and lists.

    The lines of a list have the form of PSA (`/JPEGImages/x.jpg /SegmentationClassAug/x.png`), of IRN (`x`) or of OAA (`x 0 14`,
    with 0-based class indices). All paths are absolute or relative to `root`.
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
        default=None, description="Class names in label order; null: classes.txt in root if it exists, else VOC's twenty."
    )

    def class_names(self) -> tuple[str, ...]:
        """Return the given classes, or those of `classes.txt` in the root, or VOC's."""
        if self.classes is not None:
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
        return any(file_state(_mask(entry, root, folder)) for entry in self._entries(self.train, "train"))

    def items(self, split: Split) -> list[Item]:
        """List a split from its text file. Saliency maps have the order of the weak images."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        listed = {"weak": self.train, "val": self.val, "strong": self.strong, "saliency": self.train}[split]
        if listed is None:
            raise ValueError(f"data.{split}: is null; set it to a list of images")
        field = "train" if split in ("weak", "saliency") else split
        root, images, maps = self._root(), self._folder(self.images), self._folder(self.saliency_folder)
        folder = self._folder((self.val_masks if split == "val" else None) or self.masks)
        with self._tagger(split) as tags_of:
            for entry in self._entries(listed, field):
                if split == "saliency":
                    path = f"{maps}/{entry.image_id}.png"
                    state = file_state(path)
                    if state is None:
                        raise ValueError(f"data.saliency: {path} is missing; every tagged image needs one")
                    size, changed = state
                    yield Item(entry.image_id, tags_of(entry), path, None, size, changed=changed)
                    continue
                path, size, changed = _image(entry, root, images or root)
                mask: str | None = _mask(entry, root, folder)
                found = file_state(mask or "")
                if found is None and split != "weak":
                    raise ValueError(f"{entry.where}: mask {mask} is missing; every image of data.{split} needs one")
                if found is None:
                    mask, found = None, (0, 0.0)
                yield Item(entry.image_id, tags_of(entry), path, mask, size + found[0], changed=max(changed, found[1]))

    def load(self, item: Item) -> Raw:
        """Read the image, and the mask if there is one."""
        return read_files(item)

    def _path(self, name: str, field: str) -> Path:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder (asked for data.{field}); set it to the one with {self.images}/")
        return root / expand(name)

    def _entries(self, listed: str, field: str) -> Iterator[Entry]:
        path = self._path(listed, field)
        for number, line in numbered_lines(path, field):
            yield _entry(line, f"{path}:{number}")

    def _root(self) -> str:
        return str(expand(self.root))

    def _folder(self, name: str | None) -> str | None:
        """Return the path of a folder, which may be relative to the root."""
        return None if name is None else str(expand(self.root) / expand(name))

    @contextmanager
    def _tagger(self, split: Split) -> Iterator[Tagger]:
        """Choose where tags come from. A tag file need not hold the validation images: they are only scored."""
        classes = self.class_names()
        if self.tags != "auto":
            yield self._from_tag_file(self._path(self.tags, "tags"), classes, split)
            return
        folder, drop = self._folder(self.annotations), self.drop_difficult
        known = once((folder, drop), lambda: Remembered("VOC XML", folder, drop))
        same: dict[tuple[str, ...], tuple[int, ...]] = {}

        def look_up(entry: Entry) -> tuple[int, ...]:
            if entry.tags is not None:
                return _fit(entry.tags, classes, entry.where)
            path = f"{folder}/{entry.image_id}.xml"
            try:
                names = tuple(known.words(entry.image_id, path, lambda data: read_annotation(data, path, drop_difficult=drop)))
            except OSError as err:
                annotation = shown(path, 1000)
                raise ValueError(f"{entry.where}: no tags in the list, and annotation {annotation}: {err.strerror}") from err
            if names not in same:
                same[names] = indices(names, classes, path)
            return same[names]

        try:
            yield look_up
        finally:
            known.keep()

    def _from_tag_file(self, path: Path, classes: tuple[str, ...], split: Split) -> Tagger:
        table = once(path, lambda: self._tag_file(path))

        def look_up(entry: Entry) -> tuple[int, ...]:
            if entry.image_id not in table and split != "val":
                image = shown(entry.image_id)
                raise ValueError(f"{entry.where}: image {image} has no tags in {path}; add them, or remove this line")
            return _fit(table.get(entry.image_id, ()), classes, f"data.tags: {path}: {entry.image_id}")

        return look_up

    def _tag_file(self, path: Path) -> dict[str, tuple[int, ...]]:
        if path.suffix == ".npy":
            try:
                return read_cls_labels(path.read_bytes())
            except OSError as err:
                raise ValueError(f"data.tags: cannot read {path}: {err.strerror}") from err
            except ValueError as err:
                raise ValueError(f"data.tags: {path}: {err}") from err
        entries = (_entry(line, f"{path}:{number}") for number, line in numbered_lines(path, "tags"))
        same: dict[tuple[int, ...], tuple[int, ...]] = {}
        tags = ((entry.image_id, entry.tags or ()) for entry in entries)
        return {image_id: same.setdefault(some, some) for image_id, some in tags}


def read_annotation(data: bytes, where: str, *, drop_difficult: bool = False) -> tuple[str, ...]:
    """Read the class names of the objects in a VOC annotation, each once. Raises ValueError that names the file (`where`)."""
    try:
        top = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Plain()))
    except _DocumentType as err:
        raise ValueError(f"{where}: a document type is not expected in an annotation; remove it") from err
    except (ElementTree.ParseError, LookupError, ValueError) as err:
        raise ValueError(f"{where}: not XML: {shown(str(err), 200)}") from err
    objects = top.findall("object")
    easy = [found for found in objects if (found.findtext("difficult") or "0").strip() != "1"]
    kept = easy if drop_difficult and easy else objects
    names = [(found.findtext("name") or "").strip() for found in kept]
    return tuple(dict.fromkeys(names))


class _DocumentType(Exception):
    """Raised if an annotation has a document type, which may define entities that expand or name other files."""


class _Plain(ElementTree.TreeBuilder):
    """Build elements and text, but refuse a document type."""

    def doctype(self, *_: object) -> None:
        """Refuse the document type before anything in it is read."""
        raise _DocumentType


def _entry(line: str, where: str) -> Entry:
    """Parse a line in any of the three forms."""
    head, *rest = line.split()
    if _CONTROL.search(line):
        raise ValueError(f"{where}: {shown(repr(line))} holds a control character; save the list as text")
    if not rest and "/" not in head and "." not in head:
        return Entry(head, where)
    tags = tuple(sorted({int(word) for word in rest})) if rest and all(re.fullmatch(r"\d{1,6}", word) for word in rest) else None
    path = PurePosixPath(head)
    is_path = path.suffix.lower() in _SUFFIXES
    mask = rest[0].lstrip("/") if is_path and len(rest) == 1 and rest[0].lower().endswith(".png") else None
    if rest and tags is None and mask is None:
        forms = "`id`, `id 0 14` or `/folder/image.jpg /folder/mask.png`"
        raise ValueError(f"{where}: {shown(repr(line))} is not understood; expected {forms}")
    return Entry(path.stem, where, head.lstrip("/"), mask, tags) if is_path else Entry(head, where, tags=tags)


def _fit(tags: tuple[int, ...], classes: tuple[str, ...], where: str) -> tuple[int, ...]:
    if tags and tags[-1] >= len(classes):
        raise ValueError(f"{where}: tag {tags[-1]} is not one of the {len(classes)} classes (0 to {len(classes) - 1})")
    return tags


def _image(entry: Entry, root: str, folder: str) -> tuple[str, int, float]:
    """Return the file of an image, its size, and when it was last written."""
    paths = [f"{root}/{entry.image}"] if entry.image else [f"{folder}/{entry.image_id}{suffix}" for suffix in _SUFFIXES]
    for path in paths:
        state = file_state(path)
        if state is not None:
            return path, *state
    raise ValueError(f"{entry.where}: image {shown(paths[0], 1000)} is missing; add it, or remove this line")


def _mask(entry: Entry, root: str, folder: str | None) -> str:
    """Return the path at which the mask of an image is expected."""
    if folder is None and entry.mask:
        return f"{root}/{entry.mask}"
    return f"{folder or f'{root}/{_MASKS}'}/{entry.image_id}.png"
