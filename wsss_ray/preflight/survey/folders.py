"""List a folder of images that has a table of tags, or one subfolder per class. It may have masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from wsss_ray.core.errors import shown
from wsss_ray.data.finder import beside, relative
from wsss_ray.data.image_files import alike, bare, nfc
from wsss_ray.data.tables import read_tag_table
from wsss_ray.data.tags import Table, TagRow, check_spelling
from wsss_ray.preflight.survey.listing import FolderListing, ListedImage, inside
from wsss_ray.preflight.survey.tree import Tree, scan

TABLES = (".csv", ".json", ".jsonl", ".parquet")
OWN_TABLE = ".tags.jsonl"
"""The end of the names of tables that `init` writes. It ignores them when it looks for the user's table."""

_IMAGES = ("images", "image", "imgs", "img", "photos", "pictures", "jpegimages", "data")
_MASKS = ("masks", "mask", "segmentationclassaug", "segmentationclass", "segmentation", "labels", "annotations", "gt",
          "ground_truth", "groundtruth")  # fmt: skip
_SPLITS: dict[str, Literal["weak", "val"] | None] = {
    **dict.fromkeys(("train", "training"), "weak"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": None,
}
_LARGEST_TABLE = 1 << 28


def read_folder(tree: Tree, *, tags: Path | None, masks: Path | None) -> FolderListing | None:
    """List a folder that has a table of tags, or one subfolder per class.

    Args:
        tree: Everything below the folder.
        tags: A table of tags. None looks for one in the folder and beside it.
        masks: A folder of masks. None looks for one in the folder and beside it.

    Returns:
        The listing, or None if the folder has neither.

    Raises:
        ValueError: if `tags` or `masks` do not fit the folder, if several tables fit, or if none can be read.
    """
    folder, problems = tree.root, list[str]()
    table, tree = _with_table(folder, tree, tags, problems)
    found_masks = _masks(folder, tree, masks)
    tree = tree.without(found_masks)
    listing = _of_table(tree, table) if table is not None else _of_folders(tree)
    if listing is None:
        if problems:
            raise ValueError("\n".join(problems))
        return None
    if found_masks is not None:
        listing.fields["masks"] = str(found_masks)
    listing.notes += [f"not used as a table of tags: {problem}" for problem in problems]
    _settle(listing, found_masks)
    return listing


def _with_table(folder: Path, tree: Tree, given: Path | None, problems: list[str]) -> tuple[Path | None, Tree]:
    """Choose the table of tags, and the tree that its names refer to. Append mistakes in tables to `problems`."""
    if given is not None:
        table = read_tag_table(given, "tags")
        rows, best = table.rows, _best_root(tree, table)
        if best is None:
            first = shown(repr(rows[0].image), 300)
            raise ValueError(f"--tags {given}: none of its {len(rows)} images is in {folder}; the first is {first}")
        return given, best
    fitting = []
    for path in _tables(folder):
        try:
            table = read_tag_table(path, "tags")
        except ValueError as error:
            problems.append(str(error))
            continue
        best = _best_root(tree, table)
        if best is not None:
            fitting.append((len(_resolved(table.rows, best, table.home)), path, best))
    if not fitting:
        return None, tree
    most = max(count for count, _, _ in fitting)
    top = [(path, best) for count, path, best in fitting if count == most]
    if len(top) > 1:
        names = " and ".join(str(path) for path, _ in top[:3])
        raise ValueError(f"{folder}: {names} fit its images equally well; say which by --tags FILE")
    return top[0]


def _tables(folder: Path) -> list[Path]:
    """List tables that may hold the tags: all in the folder, and those beside it with the folder's or a usual name."""
    usual = {folder.name.lower(), "tags", "labels", "classes", f"{folder.name}_tags".lower(), f"{folder.name}_labels".lower()}
    found = []
    for place, all_names in ((folder, True), (folder.parent, False)):
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for path in entries:
            if path.suffix.lower() not in TABLES or path.name.endswith(OWN_TABLE) or path.name.startswith("."):
                continue
            if (all_names or path.stem.lower() in usual) and path.is_file() and path.stat().st_size <= _LARGEST_TABLE:
                found.append(path)
    return found


def _best_root(tree: Tree, table: Table) -> Tree | None:
    """Return the tree that holds at least half of a table's images: that of the folder or of an image subfolder, or None."""
    some = table.rows[:: max(1, len(table.rows) // 1000)]
    subs = sorted({name.partition("/")[0] for name in tree.names if "/" in name})
    for candidate in (tree, *(tree.below(name) for name in subs if name.lower() in _IMAGES)):
        hits = len(_resolved(some, candidate, table.home))
        if hits and 2 * hits >= len(some):
            return candidate
    return None


def _resolved(rows: Iterable[TagRow], tree: Tree, home: str) -> list[str]:
    names, root = Names(tree), str(tree.root)
    return [found for row in rows if (found := names.find(relative(row.image, root, home))) is not None]


class Names:
    """An index of files by the names that tables use for them."""

    def __init__(self, tree: Tree) -> None:
        self.whole: dict[str, list[str]] = defaultdict(list)
        self.loose: dict[str, list[str]] = defaultdict(list)
        for name in tree.names:
            self.whole[nfc(bare(name))].append(name)
            self.loose[alike(name)].append(name)

    def find(self, image: str) -> str | None:
        """Return the file that a table means. Folder, extension and case may differ if only one file fits. None if none fits."""
        named = self.whole.get(nfc(bare(image)), [])
        exact = [name for name in named if nfc(name) == nfc(image)]
        if exact or len(named) == 1:
            return (exact or named)[0]
        near = self.loose.get(alike(image), [])
        return near[0] if len(near) == 1 else None

    def strictly(self, image: str) -> bool:
        """Return True if the data source `Folder` finds the file as well, as it is stricter than `find`."""
        named = self.whole.get(nfc(bare(image)), [])
        return any(nfc(name) == nfc(image) for name in named) or (len(named) == 1 and image == bare(image))


def _of_table(tree: Tree, path: Path) -> FolderListing:
    table = read_tag_table(path, "tags")
    names = Names(tree)
    tags: dict[str, tuple[str, ...]] = {}
    splits: dict[str, Literal["weak", "val"]] = {}
    check_spelling(table.names, str(path))
    fields = {"root": str(tree.root), "tags": str(path)}
    listing = FolderListing("folder", f"a folder with a table of tags, {path}", fields, (), [], {str(path)})
    missing = listing.left_out[f"named in {path.name} and missing in the folder"]
    for row in table.rows:
        if row.split == "test":
            here = names.find(relative(row.image, str(tree.root), table.home))
            listing.left_out["marked test"].append(row.image if here is None else str(tree.root / here))
            continue
        image = relative(row.image, str(tree.root), table.home)
        name = names.find(image)
        if name is None:
            missing.append(row.image)
            continue
        if not names.strictly(image):
            _say(listing.own, f"{path.name} and the files differ in folders, extensions or case")
        if name in tags:
            _say(listing.own, f"{path.name} names images several times; their tags are joined")
        tags[name] = tuple(dict.fromkeys((*tags.get(name, ()), *row.tags)))
        splits[name] = "val" if row.split == "val" else "weak"
    if missing:
        _say(listing.own, f"{path.name} names images that are missing")
    listing.classes = table.names
    listing.pictures = [_picture(tree.root, name, tags[name], splits[name]) for name in tags]
    listing.left_out["not in the table (images without tags are no use to a classifier)"] += [
        str(tree.root / name) for name in tree.names if name not in tags
    ]
    return listing


def _of_folders(tree: Tree) -> FolderListing | None:
    firsts = {name.partition("/")[0] for name in tree.names if "/" in name}
    if len(firsts) == 1 and (only := next(iter(firsts))).lower() in _IMAGES and all(name.count("/") > 1 for name in tree.names):
        return _of_folders(tree.below(only))
    by_split = bool(firsts) and all(first.lower() in _SPLITS for first in firsts)
    depth = 2 if by_split else 1
    inner = [name for name in tree.names if name.count("/") >= depth]
    loose = [name for name in tree.names if name.count("/") < depth]
    classes = sorted({name.split("/")[depth - 1] for name in inner})
    check_spelling(classes, str(tree.root))
    if len(loose) > len(inner) or not inner or (len(classes) == 1 and classes[0].lower() in (*_IMAGES, *_SPLITS)):
        return None
    fields: dict[str, Any] = {"root": str(tree.root), "tags": None}
    listing = FolderListing("folder", "a folder with one subfolder for each class", fields, (), [])
    if by_split:
        listing.what = "folders train, val or test, with one subfolder for each class"
        listing.own.append("the class folders lie one level down")
    if loose:
        listing.left_out["in no class folder"] += [str(tree.root / name) for name in loose]
        listing.own.append("some images lie in no class folder")
    plain = [name for name in classes if name.strip("_").lower() != "background"]
    if len(plain) < len(classes):
        listing.own.append("images in the folder background get no tag")
    for name in inner:
        first, tag = name.split("/")[0], name.split("/")[depth - 1]
        split = _SPLITS[first.lower()] if by_split else "weak"
        if split is None:
            listing.left_out["in a test folder"].append(str(tree.root / name))
        else:
            listing.pictures.append(_picture(tree.root, name, (tag,) if tag in plain else (), split))
    listing.classes = tuple(plain)
    return listing


def _picture(root: Path, name: str, tags: tuple[str, ...], split: Literal["weak", "val"]) -> ListedImage:
    return ListedImage(bare(name), name, str(root / name), tags, split)


def _masks(folder: Path, tree: Tree, given: Path | None) -> Path | None:
    """Choose the folder of masks: the given one, or one in or beside the folder whose PNG files are named like the images."""
    usual = (*_MASKS, *(f"{folder.name}{mark}masks".lower() for mark in "_-"))
    near = [*inside(folder, _MASKS), *inside(tree.root, _MASKS), *inside(folder.parent, usual)]
    candidates = [given] if given is not None else [path for path in near if path not in (folder, tree.root)]
    for path in dict.fromkeys(candidates):
        if not path.is_dir():
            there = next((one for one in near if one not in (folder, tree.root)), None)
            mend = "give the folder of the PNG masks" + (f", such as {there}" if there is not None else "")
            raise ValueError(f"--masks {path}: is no folder; {mend}")
        ids = {nfc(bare(name)) for name in tree.without(path).names}
        masks = {nfc(bare(name)) for name in scan(path).names if name.endswith(".png")}
        hits = len(ids & masks)
        if hits and (given is not None or 2 * hits >= len(masks)):
            return path
        if given is not None:
            first = next(iter(sorted(ids)), "dog/001")
            expected = f"the mask of {shown(repr(first), 300)} would be {shown(str(path / first), 1000)}.png"
            raise ValueError(f"--masks {path}: no image has a mask in it; {expected}")
    return None


def _settle(listing: FolderListing, masks: Path | None) -> None:
    """Leave out images whose ids are not valid, and give the others their masks."""
    kept: dict[str, ListedImage] = {}
    for picture in listing.pictures:
        reason = _unusable(picture.image_id)
        if picture.image_id in kept:
            reason = "named like another image except for the extension"
        if reason is not None:
            listing.left_out[reason].append(picture.path)
            _say(listing.own, "some names cannot be used")
            continue
        mask, state = ("", None) if masks is None else beside(str(masks), picture.image_id)
        found = None if state is None else mask
        kept[picture.image_id] = ListedImage(picture.image_id, picture.name, picture.path, picture.tags, picture.split, found)
    listing.pictures = list(kept.values())


def _unusable(image_id: str) -> str | None:
    if any(ord(letter) < 32 or letter in "\\\x7f" for letter in image_id):
        return "a control character or backslash in the name"
    if any("\ud800" <= letter <= "\udfff" for letter in image_id):
        return "a name that is not UTF-8"
    return "a space at the end of the name" if image_id != image_id.strip() else None


def _say(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
