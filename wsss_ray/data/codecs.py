"""Encode and decode the columns of shards: images and label maps as PNG or JPEG, localization maps as float16."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from wsss_ray.core.errors import in_one_line, shown
from wsss_ray.core.values import Axis, Maps
from wsss_ray.data.strips import STRIP, strips

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""The exceptions that Pillow's decoders are known to raise on damaged files. A size that is not there may need any memory."""

MOST_PIXELS = 1 << 30
_PNG_PIXELS_PER_BYTE = 8 * 1032  # eight pixels a byte, and a byte of deflate stands for at most 1032
"""Most pixels of an image or label map of the store. One whose header claims more is not decoded."""


def encode_labels(label_HW: NDArray[np.uint8]) -> bytes:
    """Encode a label map as an 8-bit grayscale PNG whose pixel values are the labels.

    Example:
        >>> (decode_gray(encode_labels(label_HW)) == label_HW).all()
        True
    """
    return encode_gray(label_HW)


def encode_gray(gray_HW: NDArray[np.uint8]) -> bytes:
    """Encode an array as a lossless 8-bit PNG. Equal arrays give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(gray_HW, dtype=np.uint8)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def decode_gray(data: bytes, *, max_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """Decode an 8-bit PNG to a writable array (H, W). A palette image gives its indices.

    Args:
        data: The content of the file.
        max_pixels: Most pixels that are decoded.

    Raises:
        ValueError: if the header claims more pixels, or the file is damaged or no PNG of 8 bits.
    """
    try:
        image = _sized(PngImageFile(io.BytesIO(data)), max_pixels, len(data))
        if image.mode not in ("L", "P", "1"):
            raise ValueError(f"a label map of mode {image.mode}")
        return np.array(image, dtype=np.uint8)
    except DAMAGED as error:
        raise _damaged(error) from error


def as_saliency(gray_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert the gray values of a stored saliency map to float32 in [0, 1]."""
    return np.asarray(gray_HW.astype(np.float32) / np.float32(255))


def encode_extra(value_HW: NDArray[np.uint16]) -> bytes:
    """Encode the numbers of an extra input as a lossless 16-bit PNG. Equal arrays give equal bytes.

    Example:
        >>> (decode_extra(encode_extra(segment_HW)) == segment_HW).all()
        True
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(value_HW, dtype=np.uint16)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def decode_extra(data: bytes) -> NDArray[np.uint16]:
    """Decode the numbers of an extra input, (H, W).

    Raises:
        ValueError: if the header claims more than `MOST_PIXELS` pixels, or the file is damaged or no gray PNG of 16 bits.
    """
    try:
        image = _sized(PngImageFile(io.BytesIO(data)), MOST_PIXELS, len(data))
        if image.mode not in ("I;16", "I"):
            raise ValueError(f"an extra input of mode {image.mode}")
        return np.array(image).astype(np.uint16)
    except DAMAGED as error:
        raise _damaged(error) from error


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """Decode an ingested image to a writable RGB array (H, W, 3); pydensecrf needs it writable.

    `Image.open` is not used: its limit on pixels would refuse images that ingest accepted.

    Raises:
        ValueError: if the header claims more than `MOST_PIXELS` pixels, or the file is damaged, or neither PNG nor JPEG.
    """
    reader = PngImageFile if data.startswith(b"\x89PNG") else JpegImageFile
    try:
        image = _sized(reader(io.BytesIO(data)), MOST_PIXELS, len(data))
        if image.width * image.height <= STRIP:
            return np.array(image.convert("RGB"), dtype=np.uint8)
        rgb_HWC = np.empty((image.height, image.width, 3), np.uint8)
        for rows, strip in strips(image):
            rgb_HWC[rows] = np.asarray(strip.convert("RGB"))
        return rgb_HWC
    except DAMAGED as error:
        raise _damaged(error) from error


class _TooLarge(ValueError):
    """Raised for an image that claims too many pixels."""


def _sized(image: Image.Image, max_pixels: int, num_bytes: int) -> Image.Image:
    """Return the image unless it is too large, or claims more than its file can hold. Only its header has been read so far."""
    claimed = image.width * image.height
    if claimed > max_pixels:
        raise _TooLarge(f"{image.width}x{image.height} is more than {max_pixels} pixels; was the store edited by hand?")
    if isinstance(image, PngImageFile) and claimed > _PNG_PIXELS_PER_BYTE * num_bytes:
        raise _TooLarge(f"{num_bytes} bytes cannot hold {image.width}x{image.height} pixels; was the store edited by hand?")
    return image


def _damaged(error: BaseException) -> ValueError:
    """Return the error about an image of the store."""
    if isinstance(error, _TooLarge):
        return ValueError(str(error))
    return ValueError(f"an image of the store is damaged ({shown(in_one_line(error), 200)}); was the store edited by hand?")


NO_MAPS: Mapping[str, Any] = {"classes": [], "height": 0, "width": 0, "peak": None, "mean": None, "grid": None}
"""The columns of a `maps` row, without the id, that stand for an image on which the maps failed."""


def encode_maps(maps: Maps) -> dict[str, Any]:
    """Encode localization maps as the columns of a `maps` row, without the id.

    Returns:
        `classes`, `height` and `width` of the maps (not of the image), `peak` and `mean` as float16 (C, H, W) in row-major
        order, and `grid`: first and step of the rows, then of the columns.

    Raises:
        ValueError: if a value is not finite.
    """
    if not (np.isfinite(maps.peak_CHW).all() and np.isfinite(maps.mean_CHW).all()):
        raise ValueError("the localization maps are not finite")
    height, width = maps.peak_CHW.shape[1:]
    return {
        "classes": list(maps.classes),
        "height": height,
        "width": width,
        "peak": maps.peak_CHW.astype("<f2").tobytes(),
        "mean": maps.mean_CHW.astype("<f2").tobytes(),
        "grid": [maps.rows.first, maps.rows.step, maps.columns.first, maps.columns.step],
    }


def decode_maps(row: Mapping[str, Any]) -> Maps:
    """Decode the localization maps of a `maps` row, as float32 (C, H, W). The reverse of `encode_maps`.

    Raises:
        ValueError: if the sizes of the columns do not fit each other.
    """
    shape, grid = (len(row["classes"]), row["height"], row["width"]), row["grid"]
    if min(shape) < 0 or len(grid) != 4 or any(len(row[key]) != 2 * math.prod(shape) for key in ("peak", "mean")):
        raise ValueError(f"localization maps of the store are damaged: they are not {shape}; was the store edited by hand?")
    peak, mean = (np.frombuffer(row[key], "<f2").reshape(shape).astype(np.float32) for key in ("peak", "mean"))
    return Maps(tuple(row["classes"]), peak_CHW=peak, mean_CHW=mean, rows=Axis(*grid[:2]), columns=Axis(*grid[2:]))
