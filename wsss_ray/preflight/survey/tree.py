"""List everything below a folder, and account for every file: used, or named with the reason why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wsss_ray.data.finder import FoundFiles
from wsss_ray.data.image_files import UNREAD, Entry, walk
from wsss_ray.preflight.survey.listing import FolderListing

_WHY = {
    "hidden": "hidden",
    "loop": "links to a folder that holds them",
    "dangling": "links that lead nowhere",
    "unreadable": "folders that cannot be read",
    "image": "images that this layout does not use",
    "file": "other files",
}


@dataclass(frozen=True)
class Tree:
    """What is below `root`.

    Attributes:
        root: The folder.
        names: The images: sorted relative paths with forward slashes.
        others: The rest, as `walk` yields it, sorted.
    """

    root: Path
    names: tuple[str, ...]
    others: tuple[Entry, ...] = ()

    def without(self, folder: Path | None) -> Tree:
        """Return the tree without the images of one folder below the root."""
        if folder is None or not folder.is_relative_to(self.root) or folder == self.root:
            return self
        start = folder.relative_to(self.root).as_posix() + "/"
        return Tree(self.root, tuple(name for name in self.names if not name.startswith(start)), self.others)

    def below(self, name: str) -> Tree:
        """Return the images of one subfolder."""
        start = f"{name}/"
        return Tree(self.root / name, tuple(one[len(start) :] for one in self.names if one.startswith(start)))

    @property
    def unread(self) -> dict[str, int]:
        """Count the pictures of formats that are not read, by their endings."""
        endings = [ending for name, what in self.others if what == "file" and (ending := _unread(name))]
        return {ending: endings.count(ending) for ending in sorted(set(endings))}

    @cached_property
    def found(self) -> FoundFiles:
        """Return the images as they are found by name."""
        return FoundFiles(self.names)


def scan(root: Path) -> Tree:
    """List everything below a folder. Raises OSError that names a folder if it cannot be read."""
    names, others = [], []
    for name, what in walk(root):
        if what == "image":
            names.append(name)
        else:
            others.append((name, what))
    return Tree(root, tuple(sorted(names)), tuple(sorted(others)))


def account(tree: Tree, listing: FolderListing, told: Iterable[str]) -> None:
    """Add what is not used to the listing's `left_out`, with the reason.

    Args:
        tree: Everything below the folder.
        listing: What is used, and what is left out for a reason that is known already.
        told: Paths that are reported elsewhere.
    """
    known = {*told, *listing.reads}
    for picture in listing.pictures:
        known.add(picture.path)
        if picture.mask is not None:
            known.add(picture.mask)
    for paths in listing.left_out.values():
        known.update(paths)
    masks = f"{listing.fields['masks']}/" if listing.kind == "folder" and listing.fields.get("masks") else None
    for name, what in (*((name, "image") for name in tree.names), *tree.others):
        path = str(tree.root / name)
        if path in known:
            continue
        ending = _unread(name) if what == "file" else None
        reason = f"with the ending {ending}, which is not read; save as JPEG" if ending else _WHY[what]
        if what == "image" and masks is not None and path.startswith(masks):
            reason = "masks of no image that is used"
        listing.left_out[reason].append(path)


def _unread(name: str) -> str | None:
    return next((ending for ending in UNREAD if name.lower().endswith(ending)), None)
