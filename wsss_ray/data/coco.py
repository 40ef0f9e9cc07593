"""Read MS COCO 2014 as weakly supervised segmentation uses it, and other sets that are annotated in the same JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_ray.core.component import LocalPath
from wsss_ray.core.errors import shown
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.coco_json import CocoImage, Instances, read_instances
from wsss_ray.data.coco_masks import Crowd, draw_labels, pycocotools
from wsss_ray.data.image_files import read_files, read_image
from wsss_ray.data.source import Item, Raw, Source, Split, expand
from wsss_ray.data.tags import check_classes, numbered_lines


@dataclass(frozen=True)
class _Part:
    """One part of the set: its JSON, the folder of its images, and the folder of its masks; None if masks are drawn."""

    side: Literal["train", "val"]
    annotations: Path
    images: Path
    masks: Path | None

    def read(self) -> Instances:
        return read_instances(self.annotations, f"{self.side}_annotations")

    def item(self, picture: CocoImage, where: str) -> Item:
        path = self.images / picture.file_name
        size = _size(path, f"data.{self.side}_images: {shown(str(path), 1000)} is missing ({where})")
        if self.masks is None:
            return Item(picture.name, picture.tags, str(path), None, size, picture.digest)
        mask = self.masks / f"{picture.name}.png"
        mend = "every image needs one, or set it to null to draw them"
        missing = f"data.{self.side}_masks: {shown(str(mask), 1000)} is missing ({where}); {mend}"
        return Item(picture.name, picture.tags, str(path), str(mask), size + _size(mask, missing))


class Coco(Source):
    """COCO's folders of images and its JSON of object annotations. Tags and masks are made from the JSON.

    Classes are the categories in the order of their ids: COCO's 80 categories, with ids 1 to 90, become the labels 1 to 80. The
    tags of an image are the categories of its objects. Crowds do not count. Images without objects are left out, even if a list
    names them. So the defaults give the 82,081 training and 40,137 validation images of the papers. In a mask a later object
    covers an earlier one, and no pixel is 255 unless `crowd` is `ignore`.

    A list names one image per line: by its file, with or without folder and extension (`COCO_train2014_000000000009`), or by its
    id (`9`). The rest of a line is ignored, such as the class indices in CLIP-ES's lists. All paths are absolute or relative to
    `root`.
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
    train_masks: Annotated[str | None, LocalPath(below="root")] = Field(
        default=None, description="Folder of existing masks, <name>.png, such as SegmentationClass/train2014; null: draw them."
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

    @model_validator(mode="after")
    def _val_is_annotated(self) -> Coco:
        if self.val_annotations is None and (self.val is not None or self.val_masks is not None):
            given = "val" if self.val is not None else "val_masks"
            raise ValueError(f"{given} is set but val_annotations is null; set val_annotations to the JSON, or {given} to null")
        return self

    def class_names(self) -> tuple[str, ...]:
        """List the categories of train_annotations in the order of their ids."""
        part = self._part("train")
        return check_classes(tuple(part.read().categories.values()), f"data.train_annotations: {part.annotations}: categories")

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`, and those of val, strong and saliency that have annotations, a list or a folder."""
        given: tuple[tuple[Split, str | None], ...]
        given = (("val", self.val_annotations), ("strong", self.strong), ("saliency", self.saliency_folder))
        return ("weak", *(split for split, path in given if path is not None))

    def has_masks(self, split: Split) -> bool:
        """Return True for weak, val and strong, where every image has a mask."""
        return split != "saliency"

    def items(self, split: Split) -> list[Item]:
        """List a split from its JSON and its list. Saliency maps have the order of the weak images."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        if split == "saliency":
            folder = self._path(self.saliency_folder or "", "saliency")
            yield from (_with_map(item, folder / f"{item.image_id}.png") for item in self.listed("weak"))
            return
        if split not in self.splits():
            raise ValueError(f"data.{'val_annotations' if split == 'val' else split}: is null; set it to a file")
        part = self._part("val" if split == "val" else "train")
        if part.masks is None:
            pycocotools()  # if it is missing, say so before the first image
        file = part.read()
        if split == "val":
            _check_categories(self._part("train").read(), file)
        field, listed = {"weak": ("train", self.train), "val": ("val", self.val)}.get(split, ("strong", self.strong))
        found = _all(file) if listed is None else _listed(file, self._path(listed, field), field)
        yield from (part.item(picture, where) for picture, where in found if picture.tags)

    def load(self, item: Item) -> Raw:
        """Read the image, and read or draw the mask."""
        return read_files(item) if item.annotation is None else Raw(read_image(item), self._draw(item))

    def _path(self, name: str, field: str) -> Path:
        root = expand(self.root)
        if not root.is_dir():
            raise ValueError(f"data.root: {root} is not a folder (asked for data.{field}); set it to the folder of the set")
        return root / expand(name)

    def _part(self, side: Literal["train", "val"]) -> _Part:
        annotations, images, masks = self.train_annotations, self.train_images, self.train_masks
        if side == "val":
            assert self.val_annotations is not None
            annotations, images, masks = self.val_annotations, self.val_images, self.val_masks
        folder = None if masks is None else self._path(masks, f"{side}_masks")
        return _Part(side, self._path(annotations, f"{side}_annotations"), self._path(images, f"{side}_images"), folder)

    def _draw(self, item: Item) -> bytes:
        """Draw the mask of an image, as PNG."""
        from wsss_ray.data.codecs import encode_labels

        file, picture = self._listed_as(item)
        height, width = picture.height, picture.width
        if height * width > self.max_pixels:
            raise ValueError(f"{width}x{height} is more than {self.max_pixels} pixels; raise data.max_pixels to take it")
        labels = {category: label for label, category in enumerate(file.categories, start=1)}
        annotations = file.annotations(picture)
        return encode_labels(draw_labels(annotations, height=height, width=width, labels=labels, crowd=self.crowd))

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
        found = (file.find(word) for text in (line, line.split()[0]) for word in _spellings(text))
        picture = next((picture for picture in found if picture is not None), None)
        if picture is None:
            image = shown(repr(line.split()[0]))
            raise ValueError(f"{path}:{number}: image {image} is not in {file.path}; expected a file's name or an id")
        yield picture, f"{path}:{number}"


def _spellings(text: str) -> tuple[str, ...]:
    """Return a name as it is, without extension, and without folder and extension."""
    path = PurePosixPath(text)
    return text, str(path.parent / path.stem), path.stem


def _check_categories(train: Instances, val: Instances) -> None:
    for category in sorted({*train.categories, *val.categories}):
        ours, theirs = (file.categories.get(category, "missing") for file in (train, val))
        if ours != theirs:
            different = f"category {category} is {theirs}, in {train.path} {ours}"
            raise ValueError(f"data.val_annotations: {val.path}: {different}; both files need the same categories")


def _with_map(item: Item, path: Path) -> Item:
    size = _size(path, f"data.saliency: {path} is missing; every image with tags needs a map")
    return Item(item.image_id, item.tags, str(path), None, size)


def _size(path: Path, missing: str) -> int:
    """Return the size of a file. If it is missing, raise ValueError with the text `missing`."""
    try:
        return path.stat().st_size
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        raise ValueError(missing) from err
