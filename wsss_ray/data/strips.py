"""Convert large images strip by strip, so that what is made of each pixel for a while takes little memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRIP = 1 << 22
"""Pixels of a strip."""


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield an image in strips of whole rows, each with the rows that it covers. A small image is one strip.

    Example:
        >>> for rows, strip in strips(image):
        ...     gray_HW[rows] = np.asarray(strip.convert("L"))
    """
    rows = max(1, STRIP // image.width)
    if rows >= image.height:
        yield slice(0, image.height), image
        return
    for top in range(0, image.height, rows):
        end = min(image.height, top + rows)
        yield slice(top, end), image.crop((0, top, image.width, end))


def turned(pixels_HW: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror an image (H, W, ...) from its EXIF orientation to upright."""
    if orientation >= 5:
        pixels_HW = pixels_HW.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels_HW = pixels_HW[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HW = pixels_HW[::-1]
    return np.ascontiguousarray(pixels_HW)
