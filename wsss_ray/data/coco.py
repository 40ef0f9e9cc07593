"""Read MS COCO 2014 as weakly supervised segmentation uses it, and other sets that are annotated in the same JSON."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_ray.core.component import LocalPath, NotIdentity
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.coco_json import CocoImage, Instances, read_instances
from wsss_ray.data.coco_masks import Crowd, draw_labels, pycocotools
from wsss_ray.data.finder import Finder, beside, clean
from wsss_ray.data.image_files import bare, read_files, read_image
from wsss_ray.data.lookup import expand
from wsss_ray.data.source import Item, Raw, Source, Split
from wsss_ray.data.tags import check_classes, indices, numbered_lines


@dataclass(frozen=True)
class _Part:
    """One part of the set: its JSON, the folder of its images, and the folder of its masks; None if masks are drawn."""

    side: Literal["train", "val"]
    annotations: Path
    images: Path
    masks: Path | None
    bare: bool  # without masks

    def read(self) -> Instances:
        return read_instances(self.annotations, f"{self.side}_annotations")

    @cached_property
    def finder(self) -> Finder:
        return Finder(str(self.images))

    def item(self, picture: CocoImage, tags: tuple[int, ...], drawable: bool, where: str, *, needed: bool) -> Item:
        found = self.finder.find(picture.file_name, where=where)
        if found is None:
            near, missing = self.finder.files.near(picture.file_name), shown(str(self.images / picture.file_name), 1000)
            mend = f"; did you mean {shown(repr(near), 300)}?" if near is not None else ""
            raise ValueError(f"data.{self.side}_images: {missing} is missing ({where}){mend}")
        path, size, changed = found
        if self.bare:
            return Item(picture.name, tags, path, None, size, changed=changed)
        if self.masks is None:
            return Item(picture.name, tags, path, None, size, picture.digest, drawable=drawable)
        mask, state = beside(str(self.masks), picture.name)
        if state is not None:
            return Item(picture.name, tags, path, mask, size + state[0])
        if needed:
            mend = "every image that is scored or strong needs one; set it to null to draw them"
            raise ValueError(f"data.{self.side}_masks: {shown(mask, 1000)} is missing ({where}); {mend}")
        return Item(picture.name, tags, path, None, size, changed=changed)


class Coco(Source):
    """COCO's folders of images and its JSON of object annotations. Tags and masks are made from the JSON.

    Classes are the categories in the order of their ids: COCO's 80 categories, with ids 1 to 90, become the labels 1 to 80. The
    tags of an image are the categories of its objects. Crowds do not count. With `untagged: drop`, images without objects are
    left out, even if a list names them: these are the 82,081 training and 40,137 validation images of the papers. In a mask a
    later object covers an earlier one, and no pixel is 255 unless `crowd` or `others` is `ignore`. A training image whose shapes
    cannot be drawn, such as one with boxes only, has tags and no mask.

    A list names one image per line: by its file, with or without folder and extension (`COCO_train2014_000000000009`), or by its
    id (`9`). Behind a space there may be more, such as the class indices in CLIP-ES's lists. All paths are absolute or relative
    to `root`.
    """

    root: Annotated[str, LocalPath()] = Field(description="Folder of the set, such as coco2014.")
    train_annotations: Annotated[str, LocalPath(below="root")] = Field(
        default="annotations/instances_train2014.json", description="JSON with the objects in the training images."
    )
    val_annotations: Annotated[str | None, LocalPath(below="root")] = Field(
        default="annotations/instances_val2014.json", description="JSON with the objects in the validation images; null for none."
    )
    train_images: Annotated[str, LocalPath(below="root")] = Field(
        default="train2014", description="Folder of the training images."
    )
    val_images: Annotated[str, LocalPath(below="root")] = Field(default="val2014", description="Folder of the validation images.")
    train: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="List of the training images; null: all of train_annotations."
    )
    val: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="List of the validation images; null: all of val_annotations."
    )
    strong: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="List of images of train_annotations whose masks are used for training."
    )
    train_masks: Annotated[str | None, LocalPath(below="root", unless=("none",))] = Field(
        default=None,
        description="Folder of existing masks, <name>.png, such as SegmentationClass/train2014; null: drawn; none: tags only.",
    )
    val_masks: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of the validation masks; null: draw them."
    )
    saliency: Annotated[str | SaliencyNet | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of saliency maps, <name>.png; or the network that makes them, such as {kind: u2net}."
    )
    crowd: Crowd = Field(
        default="background",
        description="Crowds in drawn masks: `background` leaves them out, `ignore` labels them 255 where no object is.",
    )
    classes: Annotated[tuple[str, ...] | None, NotIdentity()] = Field(
        default=None,
        description="Categories to use, in label order; null: all, without a background that has no object. See `others`.",
    )

    @model_validator(mode="after")
    def _val_is_annotated(self) -> Coco:
        if self.val_annotations is None and (self.val is not None or self.val_masks is not None):
            given = "val" if self.val is not None else "val_masks"
            raise ValueError(f"{given} is set but val_annotations is null; set val_annotations to the JSON, or {given} to null")
        if self.strong is not None and self.train_masks == "none":
            raise ValueError("strong is set but train_masks is none; set train_masks to null or a folder, or strong to null")
        return self

    def class_names(self) -> tuple[str, ...]:
        """Return the given classes, or the categories of train_annotations in the order of their ids."""
        part = self._part("train")
        file, where = part.read(), f"data.train_annotations: {part.annotations}: categories"
        if self.classes is None:
            listed = next((name for name in file.classes if name.strip("_ ").lower() == "background"), None)
            if listed is not None:
                mend = "list the others in data.classes; background is label 0 by itself"
                raise ValueError(f"{where}: leave {listed!r} out: {mend}")
            return check_classes(file.classes, where)
        names = check_classes(self.classes, "data.classes")
        indices(names, tuple(file.categories.values()), "data.classes")
        return names

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`, and those of val, strong and saliency that have annotations, a list or a folder."""
        given: tuple[tuple[Split, str | None], ...]
        given = (("val", self.val_annotations), ("strong", self.strong), ("saliency", self.saliency_folder))
        return ("weak", *(split for split, path in given if path is not None))

    def has_masks(self, split: Split) -> bool:
        """Return True for val and strong, and for weak if any image has a mask or a shape that may be drawn."""
        if split == "weak" and self.train_masks is None:
            classes = self.class_names()
            return any(item[1] and item[2] for item in self._pictures("weak", classes))
        return split != "saliency" and (split == "val" or self.train_masks != "none")

    def items(self, split: Split) -> list[Item]:
        """List a split from its JSON and its list. Saliency maps have the order of the weak images."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        if split == "saliency":
            folder = self._path(self.saliency_folder or "", "saliency")
            yield from (_with_map(item, folder / f"{item.image_id}.png") for item in self.taken("weak"))
            return
        if split not in self.splits():
            raise ValueError(f"data.{'val_annotations' if split == 'val' else split}: is null; set it to a file")
        part, drawn, masked = self._part("val" if split == "val" else "train"), False, False
        if part.masks is None and not part.bare and self.has_masks(split):
            pycocotools()  # if it is missing, say so before the first image
        classes = self.class_names()
        for picture, tags, drawable, where in self._pictures(split, classes):
            drawn = drawn or drawable
            item = part.item(picture, tags, drawable, where, needed=split != "weak")
            masked = masked or item.mask is not None
            yield item
        if split == "weak" and part.masks is not None and not masked:
            raise ValueError(f"data.train_masks: no image has a mask in {part.masks}; set it to null to draw them")
        if split != "weak" and (part.bare or (part.masks is None and not drawn)):
            field = "data.val_annotations" if split == "val" else "data.strong"
            raise ValueError(f"{field}: no image has a mask: none has a shape that can be drawn. Set it to null")

    def _pictures(self, split: Split, classes: tuple[str, ...]) -> Iterator[tuple[CocoImage, tuple[int, ...], bool, str]]:
        """Yield the images of a split with their tags, whether their masks may be drawn, and their places for messages."""
        file = self._part("val" if split == "val" else "train").read()
        if split == "val" and self.classes is None:
            _check_categories(self._part("train").read(), file)
        field, listed = {"weak": ("train", self.train), "val": ("val", self.val)}.get(split, ("strong", self.strong))
        found = _all(file) if listed is None else _listed(file, self._path(listed, field), field)
        tag_of = {number: classes.index(name) for number, name in file.categories.items() if name in classes}
        for picture, where in found:
            tags = tuple(sorted(tag_of[number] for number in picture.categories if number in tag_of))
            yield picture, tags, not any(number in tag_of for number in picture.shapeless), where

    def load(self, item: Item) -> Raw:
        """Read the image, and read or draw the mask."""
        if item.annotation is None:
            numbered = self._part("train").read() if item.mask is not None and self.classes is not None else None
            return replace(read_files(item), labels=None if numbered is None else numbered.classes)
        image, (file, picture) = read_image(item), self._listed_as(item)
        try:
            return Raw(image, self._draw(image, file, picture))
        except ValueError as err:
            return Raw(image, no_mask=str(err))

    def _path(self, name: str, field: str) -> Path:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder (asked for data.{field}); set it to the folder of the set")
        return root / expand(name)

    def _part(self, side: Literal["train", "val"]) -> _Part:
        annotations, images, masks = self.train_annotations, self.train_images, self.train_masks
        bare = side == "train" and masks == "none"
        if side == "val":
            assert self.val_annotations is not None
            annotations, images, masks = self.val_annotations, self.val_images, self.val_masks
        folder = None if masks is None or bare else self._path(masks, f"{side}_masks")
        return _Part(side, self._path(annotations, f"{side}_annotations"), self._path(images, f"{side}_images"), folder, bare)

    def _draw(self, image: bytes, file: Instances, picture: CocoImage) -> bytes:
        """Draw the mask of an image, as PNG."""
        from wsss_ray.data.codecs import encode_labels
        from wsss_ray.data.images import read_header

        height, width = picture.height, picture.width
        if height is None or width is None:
            header = read_header(io.BytesIO(image))
            height, width = header.upright if self.masks_on == "upright" else (header.height, header.width)
        if height * width > self.max_pixels:
            size = shown(f"{width}x{height}")  # the file may claim numbers of thousands of digits
            raise ValueError(f"{size} is more than {self.max_pixels} pixels; raise data.max_pixels to take it")
        classes = self.class_names()
        labels = {number: 1 + classes.index(name) for number, name in file.categories.items() if name in classes}
        annotations, how = file.annotations(picture), {"labels": labels, "crowd": self.crowd, "others": self.others}
        return encode_labels(draw_labels(annotations, height=height, width=width, **how))  # type: ignore[arg-type]

    def _listed_as(self, item: Item) -> tuple[Instances, CocoImage]:
        """Find a listed image by its digest: train and val may have images of the same name, or share a folder."""
        parts = [self._part("train"), *([self._part("val")] if self.val_annotations is not None else [])]
        for part in parts:
            if item.path is not None and Path(item.path).is_relative_to(part.images):
                file = part.read()
                picture = file.find(item.image_id)
                if picture is not None and picture.digest == item.annotation:
                    return file, picture
        raise ValueError("the plan saw other annotations of this image: they changed; submit again")


def _all(file: Instances) -> Iterator[tuple[CocoImage, str]]:
    """Yield all images of a file, each with its place for messages."""
    for picture in file.images.values():
        yield picture, f"{file.path}: image {picture.image_id}"


def _listed(file: Instances, path: Path, field: str) -> Iterator[tuple[CocoImage, str]]:
    """Yield the images that a list names, each with its place for messages."""
    for number, line in numbered_lines(path, field):
        where = f"{path}:{number}"
        whole, first = (_find(file, text) for text in (line, line.split()[0]))
        if whole is not None and first is not None and whole != first:
            named = f"image {shown(repr(whole.name), 300)}, or {shown(repr(first.name), 300)} and more"
            raise ValueError(f"{where}: {shown(repr(line), 300)} is {named}; give its id instead")
        picture = whole or first
        if picture is None:
            image = shown(repr(line.split()[0]))
            raise ValueError(f"{where}: image {image} is not in {file.path}; expected a file's name or an id")
        yield picture, where


def _find(file: Instances, text: str) -> CocoImage | None:
    """Find an image by a name as it is, without extension, or without folder and extension; or by its id."""
    name = bare(clean(text))
    found = (file.find(spelling) for spelling in (text, name, name.lstrip("/"), name.rpartition("/")[2]))
    return next((picture for picture in found if picture is not None), None)


def _check_categories(train: Instances, val: Instances) -> None:
    for category in sorted({*train.categories, *val.categories}):
        ours, theirs = (file.categories.get(category, "missing") for file in (train, val))
        if ours != theirs:
            different = f"category {category} is {theirs}, in {train.path} {ours}"
            raise ValueError(f"data.val_annotations: {val.path}: {different}; both files need the same categories")


def _with_map(item: Item, path: Path) -> Item:
    size = _size(path, f"data.saliency: {shown(str(path), 1000)} is missing; every image with tags needs a map")
    return Item(item.image_id, item.tags, str(path), None, size)


def _size(path: Path, missing: str) -> int:
    """Return the size of a file. If it is missing, raise ValueError with the text `missing`."""
    try:
        return path.stat().st_size
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        raise ValueError(missing) from err
