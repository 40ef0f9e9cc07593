"""Find the format of an image by its first bytes, and choose Pillow's reader for it. Only the formats listed here are tried."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

START = 32
"""The bytes at the start of a file that tell its format."""

Reader = Callable[[Any], ImageFile.ImageFile]


def _avif(file: io.IOBase) -> ImageFile.ImageFile:
    try:
        plugin = import_module("PIL.AvifImagePlugin")
    except ImportError as err:
        raise OSError("this Pillow does not read it; install Pillow 11.3 or later, or save the image as JPEG") from err
    image: ImageFile.ImageFile = plugin.AvifImageFile(file)
    return image


_READERS: tuple[tuple[str, bytes, Reader], ...] = (
    ("JPEG", rb"\xff\xd8\xff", JpegImageFile),
    ("PNG", rb"\x89PNG\r\n\x1a\n", PngImageFile),
    ("WEBP", rb"RIFF....WEBP", WebPImageFile),
    ("GIF", rb"GIF8", GifImageFile),
    ("TIFF", rb"II|MM", TiffImageFile),
    ("BMP", rb"BM", BmpImageFile),
    ("PPM", rb"P[1-6]\s", PpmImageFile),
    ("JPEG2000", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", Jpeg2KImageFile),
    ("AVIF", rb"....ftypavi[fs]", _avif),
)


def reader_of(start: bytes) -> tuple[str, Reader]:
    """Find the format of an image by its first `START` bytes. Return its name and Pillow's reader.

    Raises:
        ValueError: if there are no bytes, or if the format is not read.

    Example:
        >>> reader_of(Path("1.jpg").read_bytes()[:START])[0]
        'JPEG'
    """
    if not start:
        raise ValueError("the file is empty (0 bytes); copy it again")
    found = next(((name, reader) for name, mark, reader in _READERS if re.match(mark, start, re.DOTALL)), None)
    if found is None:
        raise ValueError(f"not an image in a format that is read here ({', '.join(name for name, _, _ in _READERS)})")
    return found
