"""List sets in the layout of Pascal VOC, by means of the data source itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from wsss_ray.data.finder import beside
from wsss_ray.data.image_files import bare, is_image_name
from wsss_ray.data.voc import VOC_CLASSES
from wsss_ray.data.voc_xml import read_annotation
from wsss_ray.preflight.survey.listing import FolderListing, ListedImage, add_items

_TRAIN_LISTS = ("SegmentationAug/train_aug.txt", "Segmentation/train.txt", "Main/train.txt", "Main/trainval.txt")
_VAL_LIST = "Segmentation/val.txt"
_MASKS = ("SegmentationClassAug", "SegmentationClass")


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
    if train is None:
        _without_list(listing, root)
    else:
        source = listing.source()
        listing.classes = source.class_names()
        add_items(listing, source)
        _tell_unlisted(listing, root)
    listing.reads |= {str(root / "classes.txt"), *(str(root / path) for path in (fields["train"], fields["val"]) if path)}
    listing.reads |= {f"{root}/Annotations/{picture.image_id}.xml" for picture in listing.pictures}
    return listing


def _is_voc(path: Path) -> bool:
    return (path / "JPEGImages").is_dir() and any((path / name).is_dir() for name in ("ImageSets", "Annotations"))


def _other_classes(root: Path) -> tuple[str, ...] | None:
    """Return the classes in the annotations, or None if all of them are VOC's."""
    names: set[str] = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        names |= set(read_annotation(path.read_bytes(), str(path)))
    return None if names <= set(VOC_CLASSES) else tuple(sorted(names))


def _images(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root / "JPEGImages") if is_image_name(name))


def _without_list(listing: FolderListing, root: Path) -> None:
    """List the images with an annotation."""
    listing.classes = listing.fields.get("classes", VOC_CLASSES)
    known: set[str] = set()
    for name in _images(root):
        image_id, path = bare(name), str(root / "JPEGImages" / name)
        annotation = root / f"Annotations/{image_id}.xml"
        reason = None
        if not annotation.is_file():
            reason = "without an annotation"
        elif re.search(r"^[#\s]|\s#\s|\s$", image_id):
            reason = "with a name that a list cannot hold (# after a space, or spaces at its ends)"
        elif image_id in known:
            reason = "named like another image except for the extension"
        if reason is not None:
            listing.left_out[reason].append(path)
            continue
        known.add(image_id)
        mask, state = beside(f"{root}/{listing.fields.get('masks')}", image_id)
        tags = read_annotation(annotation.read_bytes(), str(annotation))
        listing.pictures.append(ListedImage(image_id, image_id, path, tags, "weak", None if state is None else mask))


def _tell_unlisted(listing: FolderListing, root: Path) -> None:
    known = {picture.path for picture in listing.pictures}
    here = (str(root / "JPEGImages" / name) for name in _images(root))
    listing.left_out["in no list that is used"] += [path for path in here if path not in known]
