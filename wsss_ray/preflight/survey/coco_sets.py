"""List images with COCO's JSON, by means of the data source itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from wsss_ray.data.coco_json import Instances, read_instances
from wsss_ray.data.image_files import bare, nfc
from wsss_ray.preflight.survey.listing import FolderListing, add_items
from wsss_ray.preflight.survey.tree import Tree

_DEPTH = 3  # levels of folders that may hold a JSON file
_SAMPLE = 5  # images of a JSON file to look for
_MANY = 50  # JSON files in a folder: more are one for each image
_OTHERS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
_MARKS = (b'"annotations"', b'"categories"', b'"file_name"')


def read_coco(tree: Tree) -> FolderListing | None:
    """List a folder with COCO's instances JSON and its images.

    Args:
        tree: Everything below the folder.

    Returns:
        The listing, or None if there is no such file.

    Raises:
        ValueError: if the images of a JSON file are not in the folder.
    """
    folder, files = tree.root, dict(_instances(tree))
    if not files:
        return None
    parts = {path: _part(path.relative_to(folder)) for path in files}
    train = next((path for path in files if parts[path] == "train"), None)
    if train is None:
        train = next((path for path in files if parts[path] is None), next(iter(files)))
    val = next((path for path in files if parts[path] == "val" and path != train), None)
    fields: dict[str, Any] = {"root": str(folder), "train_annotations": train.relative_to(folder).as_posix()}
    fields["train_images"] = _images_of(files[train], tree)
    fields["val_annotations"] = None if val is None else val.relative_to(folder).as_posix()
    if val is not None:
        fields["val_images"] = _images_of(files[val], tree)
    listing = FolderListing("coco", f"COCO's annotations, {train}{f' and {val}' if val else ''}", fields, (), [], {str(train)})
    if files[train].groups:
        groups = files[train].groups
        fields["classes"] = tuple(name for name in files[train].classes if name not in groups)
        listing.notes.append(f"{', '.join(groups)}: groups of categories, without objects of their own, and no classes")
    if val is not None:
        listing.reads.add(str(val))
    source = listing.source()
    listing.classes = source.class_names()
    add_items(listing, source.model_copy(update={"val_annotations": None}))
    if val is not None:
        _add_val(listing, source)
    for path in files:
        if path not in (train, val):
            what = "images of the test set" if parts[path] == "test" else "annotations beside those that are used"
            listing.left_out[what].append(str(path))
    return listing


def _add_val(listing: FolderListing, source: Any) -> None:
    """Add the validation images, or leave them out if none of them has a shape that can be drawn."""
    known = len(listing.pictures)
    try:
        add_items(listing, source, splits=("val",))
    except ValueError as error:
        if "no image has a mask" not in str(error):
            raise
        del listing.pictures[known:]
        listing.fields["val_annotations"] = None
        listing.fields.pop("val_images")
        listing.notes.append("the validation images have no shapes, so they cannot be scored and are not used")


def _instances(tree: Tree) -> Iterator[tuple[Path, Instances]]:
    """Yield the JSON files of a folder that look like COCO's instances."""
    jsons = [name for name, what in tree.others if what == "file" and name.lower().endswith(".json")]
    per_folder = Counter(name.rpartition("/")[0] for name in jsons)
    for name in sorted(jsons, key=lambda name: (name.count("/"), name)):
        path, last = tree.root / name, name.rpartition("/")[2]
        crowded = per_folder[name.rpartition("/")[0]] > _MANY and not last.startswith(("instances", "_annotations"))
        if name.count("/") >= _DEPTH or crowded or last.startswith(_OTHERS):
            continue
        with path.open("rb") as file:
            start = file.read(1 << 16)
        named = last.startswith("instances") or any(mark in start for mark in _MARKS)
        if named and start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            yield path, read_instances(path, "train_annotations")


def _part(path: Path) -> Literal["train", "val", "test"] | None:
    """Return the part of the set that a JSON file has, by its name or its folder's: instances_val2014, valid/_annotations."""
    for text in (path.stem, path.parent.name):
        words = set(re.findall(r"[a-z]+", text.lower()))
        if words & {"train", "training"}:
            return "train"
        if words & {"val", "valid", "validation", "minival"}:
            return "val"
        if words & {"test", "testdev"}:
            return "test"
    return None


def _images_of(file: Instances, tree: Tree) -> str:
    """Find the folder that holds the images of a JSON file, relative to the root: the one in which most of the first few are."""
    names = [picture.file_name for picture in file.images.values()][:_SAMPLE]
    if not names:
        raise ValueError(f"{file.path}: lists no images; add them, or move the file away")
    wanted = {nfc(bare(name)) for name in names}
    hits: Counter[str] = Counter()
    for name in tree.names:
        key = nfc(bare(name))
        for one in wanted:
            if key == one or key.endswith(f"/{one}"):
                hits[key[: len(key) - len(one)].rstrip("/")] += 1
    if not hits:
        raise ValueError(f"{file.path}: its images ({names[0]}, ...) are not in {tree.root}; put their folder beside the JSON")
    near = file.path.parent.relative_to(tree.root).as_posix()

    def order(place: str) -> tuple[int, bool, int, str]:
        """The most hits first; then a folder below that of the JSON, and one that is not deep."""
        below = near == "." or place == near or place.startswith(f"{near}/")
        return -hits[place], not below, place.count("/"), place

    return min(hits, key=order) or "."
