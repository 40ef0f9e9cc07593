"""Find image files in folders, compare their names, and read them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from wsss_ray.data.source import Item, Raw

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".avif"),
)
"""Endings of image files, in lower case."""

UNREAD = (
    *(".heic", ".heif", ".jxl", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".psd", ".xcf", ".svg", ".pdf"),
    *(".tga", ".ico", ".exr", ".hdr", ".dcm", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
)
"""Endings of pictures and films that are not read."""

Entry = tuple[str, Literal["image", "file", "hidden", "loop", "dangling", "skipped", "unreadable"]]
"""A relative path with forward slashes, and what is there: an image, another file, a hidden file or folder, a link to a folder
that holds the link, a link that leads nowhere, a folder to skip, or an unreadable `lost+found`."""


def walk(folder: str | Path, skip: Container[str] = ()) -> Iterator[Entry]:
    """Yield every file below a folder one by one, in no fixed order. Links to folders are followed.

    Args:
        folder: The folder.
        skip: Real paths of folders that are not entered.

    Raises:
        OSError: that names a folder if it cannot be read. An unreadable `lost+found` is yielded instead: file systems create it.

    Example:
        >>> sorted(walk("photos"))
        [('cat/1.jpg', 'image'), ('notes.txt', 'file')]
    """
    todo: list[tuple[str, str, tuple[str, ...]]] = [("", os.path.realpath(folder), ())]
    while todo:
        inside, real, left = todo.pop()
        prefix = f"{inside}/" if inside else ""
        try:
            with os.scandir(os.path.join(folder, inside) if inside else folder) as entries:
                for entry in entries:
                    name, link = prefix + entry.name, entry.is_symlink()
                    if entry.name.startswith("."):
                        yield name, "hidden"
                    elif not _is(entry.is_dir):
                        whole = _is(entry.is_file)
                        yield name, "image" if whole and is_image_name(name) else "file" if whole or not link else "dangling"
                    else:
                        target = os.path.realpath(entry) if link else os.path.join(real, entry.name)
                        if target in skip:
                            yield name, "skipped"
                        elif link and any(_holds(target, other) for other in (*left, real)):
                            yield name, "loop"
                        else:
                            todo.append((name, target, (*left, real) if link else left))
        except OSError as error:
            if PurePosixPath(str(error.filename)).name != "lost+found":
                raise
            yield inside, "unreadable"


def _holds(folder: str, path: str) -> bool:
    """Return True if a real path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def image_names(folder: str | Path, skip: Container[str] = ()) -> Iterator[str]:
    """Yield the images below a folder as `walk` does. Hidden files and folders are left out."""
    return (name for name, what in walk(folder, skip) if what == "image")


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:
        return False


def is_image_name(name: str) -> bool:
    """Return True if a file has the extension of an image and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


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
