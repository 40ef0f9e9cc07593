"""Make thumbnails for the report: photographs, label maps in the colours of Pascal VOC, localization maps as heat maps."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss_ray.core.values import IGNORE
from wsss_ray.data.palette import voc_palette

LONG_SIDE = 192
"""Pixels on the longer side of a thumbnail, at most."""
_SHOWN = 128  # CSS pixels on the longer side, at least
HATCH = ((222, 222, 218, 90), (178, 178, 174, 255))
"""The two colours of undecided pixels, RGBA: ground and stripes. The ground lets an image below show through."""
_BACKGROUND = (0, 0, 0, 26)  # over an image: it darkens by a tenth
# Evenly spaced colours of matplotlib's inferno: its lightness grows evenly, so it can be read in grey and by the colour-blind.
_HEAT = np.array(
    [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)]
)


@dataclass(frozen=True)
class Thumbnail:
    """An inline image. A small image is enlarged pixel by pixel.

    Attributes:
        uri: the image as a data URI.
        width: width in CSS pixels.
        height: height in CSS pixels.
    """

    uri: str
    width: int
    height: int


def heat_colors(value: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return RGB (0..255) for values in [0, 1], along a new last axis."""
    at = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(value, at, _HEAT[:, channel]) for channel in range(3)], axis=-1)


def heat_gradient() -> str:
    """Write the heat colours as a CSS gradient, lowest first, for a legend."""
    return "linear-gradient(90deg,{})".format(",".join("rgb({},{},{})".format(*color) for color in _HEAT))


def photo(image_HWC: NDArray[np.uint8]) -> Thumbnail:
    """Make the thumbnail of an image.

    Example:
        >>> thumbnail = photo(np.zeros((375, 500, 3), np.uint8))
        >>> thumbnail.width, thumbnail.height
        (192, 144)
    """
    return _picture(shrink(image_HWC), smooth=True)


def labels(label_HW: NDArray[np.uint8]) -> Thumbnail:
    """Make the thumbnail of a label map, to be laid over its image: objects are opaque, in the colours of Pascal VOC.

    Background is nearly transparent. Undecided pixels are hatched.

    Example:
        >>> labels(np.full((64, 64), 255, np.uint8)).width
        128
    """
    small = shrink_labels(label_HW)
    height, width = small.shape
    stripe = (np.add.outer(np.arange(height), np.arange(width)) // max(1, max(width, height) // 64)) % 4 == 0
    hatch = np.where(stripe[..., None], HATCH[1], HATCH[0])
    return _picture(np.where((small == IGNORE)[..., None], hatch, label_colors()[small]).astype(np.uint8), smooth=False)


def label_colors() -> NDArray[np.uint8]:
    """Return the colour of each label over an image, RGBA (256, 4).

    Example:
        >>> label_colors()[1].tolist()
        [128, 0, 0, 255]
    """
    opaque = np.full((256, 1), 255, np.uint8)
    colors = np.concatenate([voc_palette(), opaque], axis=1)
    colors[0] = _BACKGROUND
    return colors


def heat(image_HWC: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> Thumbnail:
    """Make the thumbnail of a localization map over its image, as `heat_over` does.

    Args:
        image_HWC: the image.
        map_HW: the map, in [0, 1], of any size.

    Example:
        >>> heat(np.zeros((375, 500, 3), np.uint8), np.zeros((41, 41), np.float32)).height
        144
    """
    small = shrink(image_HWC)
    height, width = small.shape[:2]
    resized = Image.fromarray(np.ascontiguousarray(map_HW, dtype=np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return _picture(heat_over(small, np.asarray(resized)), smooth=True)


def heat_over(image_HWC: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay a localization map over its image in grey, which fades where the map is high. Both have the same size."""
    value = np.clip(np.nan_to_num(map_HW), 0, 1)
    gray = image_HWC.astype(np.float64) @ (0.299, 0.587, 0.114)
    weight = 0.15 + 0.6 * value[..., None]
    mixed = (1 - weight) * gray[..., None] + weight * heat_colors(value)
    return np.asarray(mixed.round(), np.uint8)


def shrink_labels(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a label map to the size of its thumbnail, with the nearest label at each pixel. A small one keeps its size.

    Example:
        >>> shrink_labels(np.zeros((375, 500), np.uint8)).shape
        (144, 192)
    """
    return np.asarray(Image.fromarray(label_HW).resize(small_size(*label_HW.shape), Image.Resampling.NEAREST))


def small_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in pixels of the thumbnail of an image.

    Args:
        height: height of the image.
        width: width of the image.

    Returns:
        The width, then the height.

    Example:
        >>> small_size(height=375, width=500)
        (192, 144)
    """
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink an image to the size of its thumbnail. A small one keeps its size.

    Example:
        >>> shrink(np.zeros((375, 500, 3), np.uint8)).shape
        (144, 192, 3)
    """
    size = small_size(*image_HWC.shape[:2])
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.LANCZOS))


def _picture(color_HWC: NDArray[np.uint8], *, smooth: bool) -> Thumbnail:
    """Encode an RGB or RGBA picture as JPEG if it is smooth and large, else as PNG."""
    height, width = color_HWC.shape[:2]
    jpeg = smooth and max(height, width) > 96
    buffer = io.BytesIO()
    image = Image.fromarray(color_HWC) if smooth else _with_palette(color_HWC)
    if jpeg:
        image.save(buffer, format="JPEG", quality=82)
    else:
        image.save(buffer, format="PNG", optimize=True)
    enlarged = -(-_SHOWN // max(height, width))
    uri = f"data:image/{'jpeg' if jpeg else 'png'};base64," + base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(uri, width * enlarged, height * enlarged)


def _with_palette(rgba_HWC: NDArray[np.uint8]) -> Image.Image:
    """Make an image of indices and a palette, which is a third smaller as a PNG. One with more than 256 colours stays RGBA."""
    packed_HW = np.ascontiguousarray(rgba_HWC).view(np.uint32)[..., 0]
    colors, index_HW = np.unique(packed_HW, return_inverse=True)
    if len(colors) > 256:
        return Image.fromarray(rgba_HWC)
    image = Image.fromarray(index_HW.reshape(packed_HW.shape).astype(np.uint8), "P")
    image.putpalette(colors.tobytes(), "RGBA")
    return image
