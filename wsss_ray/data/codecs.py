"""Encode and decode what stands in a shard: images and label maps as PNG or JPEG, localization maps as float16."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from wsss_ray.core.contracts import Axis, Maps

MOST_PIXELS = 1 << 30
"""An image or label map in the store that says it is larger is not decoded."""


def encode_labels(label_HW: NDArray[np.uint8]) -> bytes:
    """An 8-bit grayscale PNG whose pixel values are the labels."""
    return encode_gray(label_HW)


def encode_gray(gray_HW: NDArray[np.uint8]) -> bytes:
    """A lossless 8-bit PNG; the same array always gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(gray_HW, dtype=np.uint8)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def decode_gray(data: bytes, *, max_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """The array of an 8-bit PNG (H, W); palette images give their indices. Writable. Raises ValueError on a larger one."""
    return np.array(_sized(PngImageFile(io.BytesIO(data)), max_pixels), dtype=np.uint8)


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """The pixels of an ingested image, (H, W, 3) RGB. Writable, as pydensecrf wants it.

    Not by Image.open, whose limit on pixels would refuse what ingest took.
    """
    reader = PngImageFile if data.startswith(b"\x89PNG") else JpegImageFile
    return np.array(_sized(reader(io.BytesIO(data)), MOST_PIXELS).convert("RGB"), dtype=np.uint8)


def _sized(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image, its header read and its pixels not yet, if it is not too large."""
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels; was the store edited by hand?")
    return image


def encode_maps(maps: Maps) -> dict[str, Any]:
    """The columns of a `maps` row but for the id."""
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
    """The maps of a `maps` row, as float32."""
    shape = (len(row["classes"]), row["height"], row["width"])
    peak, mean = (np.frombuffer(row[key], "<f2").reshape(shape).astype(np.float32) for key in ("peak", "mean"))
    grid = row["grid"]
    return Maps(tuple(row["classes"]), peak_CHW=peak, mean_CHW=mean, rows=Axis(*grid[:2]), columns=Axis(*grid[2:]))
