"""Find image files in folders, compare their names, and read them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from wsss_ray.data.source import Item, Raw

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")


def walk_folder(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder like `os.walk`, but raise an OSError that names a folder if it cannot be read.

    An unreadable `lost+found` is skipped: file systems create it for their own use.
    """

    def stop(error: OSError) -> None:
        if PurePosixPath(str(error.filename)).name != "lost+found":
            raise error

    return os.walk(folder, onerror=stop)


def is_image_name(name: str) -> bool:
    """Return True if a file name, without folder, has the extension of an image and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def bare(name: str) -> str:
    """Return a file name without the extension of an image. Other extensions stay, and so does a name that is all extension."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in SUFFIXES and stem.rpartition("/")[2] else name


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
