"""List sets in the layout of Pascal VOC, and images with COCO's JSON, mostly by means of the data sources themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss_ray.data.coco_json import Instances, read_instances
from wsss_ray.data.source import Item, Source
from wsss_ray.data.voc import VOC_CLASSES
from wsss_ray.data.voc_xml import read_annotation
from wsss_ray.preflight.survey.listing import FolderListing, ListedImage, inside

_TRAIN_LISTS = ("SegmentationAug/train_aug.txt", "Segmentation/train.txt", "Main/train.txt", "Main/trainval.txt")
_VAL_LIST = "Segmentation/val.txt"
_MASKS = ("SegmentationClassAug", "SegmentationClass")
_DEPTH = 3  # levels of folders that may hold the images of a JSON file
_SAMPLE = 5  # images of a JSON file to look for


def read_voc(folder: Path) -> FolderListing | None:
    """List a folder in the layout of Pascal VOC: JPEGImages, and ImageSets or Annotations.

    Args:
        folder: The folder, or one that is up to two levels above.

    Returns:
        The listing, or None if there is no such folder.
    """
    root = next((path for path in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))) if _is_voc(path)), None)
    if root is None:
        return None
    sets = root / "ImageSets"
    train = next((name for name in _TRAIN_LISTS if (sets / name).is_file()), None)
    masks = next((name for name in _MASKS if (root / name).is_dir()), None)
    fields: dict[str, Any] = {"root": str(root), "train": f"ImageSets/{train}" if train else None, "masks": masks}
    fields["val"] = f"ImageSets/{_VAL_LIST}" if masks and (sets / _VAL_LIST).is_file() else None
    listing = FolderListing("voc", f"a set like Pascal VOC, {root}", fields, (), [])
    if train is None:
        listing.own.append("there is no list in ImageSets")
        fields["train"] = "ImageSets/" + _TRAIN_LISTS[0]  # the list that `init` writes replaces it
    if not (root / "classes.txt").is_file():
        others = _other_classes(root)
        if others is not None:
            fields["classes"] = others
            listing.notes.append("the classes are those of the XML in alphabetical order; masks must use 1, 2, ... in this order")
    if masks is None:
        del fields["masks"]
    _fill_voc(listing, root, by_list=train is not None)
    return listing


def _is_voc(path: Path) -> bool:
    return (path / "JPEGImages").is_dir() and any((path / name).is_dir() for name in ("ImageSets", "Annotations"))


def _other_classes(root: Path) -> tuple[str, ...] | None:
    """Return the classes in the annotations, or None if all of them are VOC's."""
    names: set[str] = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        names |= set(read_annotation(path.read_bytes(), str(path)))
    return None if names <= set(VOC_CLASSES) else tuple(sorted(names))


def _fill_voc(listing: FolderListing, root: Path, *, by_list: bool) -> None:
    if not by_list:
        ids = [path.stem for path in sorted((root / "JPEGImages").iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        named = [name for name in ids if len(name.split()) == 1 and "#" not in name]
        usable = [name for name in named if (root / f"Annotations/{name}.xml").is_file()]
        listing.left_out["without an annotation, or with a space or # in the name"] += sorted(set(ids) - set(usable))
        listing.classes = listing.fields.get("classes", VOC_CLASSES)
        for name in usable:
            path = next(p for ending in (".jpg", ".jpeg", ".png") if (p := root / f"JPEGImages/{name}{ending}").exists())
            tags = read_annotation((root / f"Annotations/{name}.xml").read_bytes(), name)
            mask = root / f"{listing.fields.get('masks')}/{name}.png"
            listing.pictures.append(ListedImage(name, name, str(path), tags, "weak", str(mask) if mask.is_file() else None))
        listing.has_masks = any(picture.mask for picture in listing.pictures)
        return
    source = listing.source()
    listing.classes = source.class_names()
    _add_items(listing, source)
    known = {picture.image_id for picture in listing.pictures}
    here = {path.stem for path in (root / "JPEGImages").iterdir() if not path.name.startswith(".")}
    listing.left_out["in no list that is used"] += sorted(here - known)
    listing.has_masks = any(picture.mask for picture in listing.pictures)


def read_coco(folder: Path) -> FolderListing | None:
    """List a folder with COCO's instances JSON and its images.

    Returns:
        The listing, or None if there is no such file.

    Raises:
        ValueError: if the images of a JSON file are not in the folder.
    """
    files = dict(_instances(folder))
    if not files:
        return None
    train = next((path for path in files if "train" in path.name.lower()), next(iter(files)))
    val = next((path for path in files if "val" in path.name.lower() and path != train), None)
    fields: dict[str, Any] = {"root": str(folder), "train_annotations": _relative(train, folder)}
    fields["train_images"] = _relative(_images_of(files[train], folder), folder)
    fields["val_annotations"] = None if val is None else _relative(val, folder)
    if val is not None:
        fields["val_images"] = _relative(_images_of(files[val], folder), folder)
    listing = FolderListing("coco", f"COCO's annotations, {train}{f' and {val}' if val else ''}", fields, (), [], has_masks=True)
    source = listing.source()
    listing.classes = source.class_names()
    _add_items(listing, source)
    bare = [picture.file_name for picture in files[train].images.values() if not picture.tags]
    listing.left_out["without objects in the JSON"] += bare
    if used := [path.name for path in files if path not in (train, val)]:
        listing.notes.append(f"not used: {', '.join(used)}")
    return listing


def _instances(folder: Path) -> Iterator[tuple[Path, Instances]]:
    """Yield the JSON files of a folder and its annotation folders that look like COCO's instances."""
    for place in (folder, *inside(folder, ("annotations", "annotation", "labels"))):
        for path in sorted(place.glob("*.json")):
            with path.open("rb") as file:
                start = file.read(1 << 16)
            named = path.name.startswith("instances") or any(mark in start for mark in (b'"annotations"', b'"categories"'))
            if named and start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and not _other_kind(path):
                yield path, read_instances(path, "train_annotations")


def _other_kind(path: Path) -> bool:
    """Return True if this is another of COCO's files, such as captions, which lie beside the instances."""
    return path.name.startswith(("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_"))


def _images_of(file: Instances, folder: Path) -> Path:
    """Find the folder that holds the images of a JSON file. It holds one of the first few."""
    names = [picture.file_name for picture in file.images.values()][:_SAMPLE]
    if not names:
        raise ValueError(f"{file.path}: lists no images; add them, or move the file away")
    level = [folder, *([file.path.parent] if file.path.parent != folder else [])]
    for _ in range(_DEPTH):
        for place in level:
            if any((place / name).is_file() for name in names):
                return place
        level = [sub for place in level for sub in sorted(place.iterdir()) if sub.is_dir() and not sub.name.startswith(".")]
    raise ValueError(f"{file.path}: its images ({names[0]}, ...) are not in {folder}; put their folder beside the JSON")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _add_items(listing: FolderListing, source: Source) -> None:
    """Add the images that the data source lists."""
    for split in ("weak", "val"):
        if split not in source.splits():
            continue
        for item in source.listed(split):
            listing.pictures.append(_picture(item, listing.classes, "val" if split == "val" else "weak"))


def _picture(item: Item, classes: tuple[str, ...], split: Any) -> ListedImage:
    assert item.path is not None
    tags = tuple(classes[tag] for tag in item.tags)
    return ListedImage(item.image_id, item.image_id, item.path, tags, split, item.mask)
