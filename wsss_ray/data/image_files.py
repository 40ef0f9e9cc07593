"""Find image files in folders, compare their names, and read them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath

from wsss_ray.data.source import Item, Raw

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")


def walk_folder(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder like `os.walk`, but raise an OSError that names a folder if it cannot be read.

    An unreadable `lost+found` is skipped: file systems create it for their own use.
    """
    return os.walk(folder, onerror=_unless_lost_and_found)


def _unless_lost_and_found(error: OSError) -> None:
    if PurePosixPath(str(error.filename)).name != "lost+found":
        raise error


def image_names(folder: str, skip: Container[str] = ()) -> Iterator[str]:
    """Yield the images below a folder one by one, as relative paths with forward slashes, in no fixed order.

    Args:
        folder: The folder. Hidden files and folders, and links to folders, are left out.
        skip: Real paths of folders to leave out.

    Raises:
        OSError: that names a folder if it cannot be read. An unreadable `lost+found` is skipped, as `walk_folder` does.
    """
    todo = [""]
    while todo:
        inside = todo.pop()
        prefix = f"{inside}/" if inside else ""
        try:
            with os.scandir(os.path.join(folder, inside) if inside else folder) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        if is_image_name(entry.name):
                            yield prefix + entry.name
                    elif not entry.name.startswith(".") and not entry.is_symlink() and os.path.realpath(entry) not in skip:
                        todo.append(prefix + entry.name)
        except OSError as error:
            _unless_lost_and_found(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image_name(name: str) -> bool:
    """Return True if a file name, without folder, has the extension of an image and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def bare(name: str) -> str:
    """Return a file name without the extension of an image. Other extensions stay, and so does a name that is all extension."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in SUFFIXES and stem.rpartition("/")[2] else name


def file_of(image_id: str, path: str) -> str:
    """Return the path of an image file in its data, as it is on disk: what an image id names, with its ending.

    Args:
        image_id: The id of the image, which is most often that path without its ending.
        path: Where the file lies on this machine.

    Example:
        >>> file_of("holiday/001", "/data/photos/holiday/001.JPG")
        'holiday/001.JPG'
    """
    below = "/".join(path.replace(os.sep, "/").split("/")[-1 - image_id.count("/") :])
    if nfc(below) == nfc(image_id) or nfc(below).startswith(f"{nfc(image_id)}."):
        return below
    return image_id + PurePosixPath(path).suffix  # the source gives its images other names than its files have


def nfc(name: str) -> str:
    """Normalise accents to one spelling (NFC): macOS stores a letter and its accent separately."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def alike(path: str) -> str:
    """Return a path without folder, extension and case, to compare similar names."""
    return nfc(bare(PurePosixPath(path).name)).lower()


def read_image(item: Item) -> bytes:
    """Read the image file of an item. Raises OSError, or ValueError if it has none."""
    if item.path is None:
        raise ValueError(f"image {item.image_id} has no file")
    return Path(item.path).read_bytes()


def read_files(item: Item) -> Raw:
    """Read the image file of an item, and its mask file if it has one. Raises OSError, or ValueError if it has no image file."""
    return Raw(read_image(item), Path(item.mask).read_bytes() if item.mask else None)
