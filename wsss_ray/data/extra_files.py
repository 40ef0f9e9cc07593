"""Convert the files of extra inputs, such as segments, to the format of the store. The bytes are not trusted."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsss_ray.data.codecs import encode_extra
from wsss_ray.data.images import GRAY_16, MOST_PIXELS, fitted, open_whole
from wsss_ray.data.strips import strips


def normalise_extra(data: bytes, *, height: int, width: int, max_side: int | None = None, max_pixels: int = MOST_PIXELS) -> bytes:
    """Convert an extra input to a 16-bit gray PNG of the size of its image (`height`, `width`).

    Args:
        data: The bytes of a gray or palette image, whose values are kept as they are.
        height: Height of the image.
        width: Width of the image.
        max_side: Most pixels of the longer side. The file is shrunk to it like its image, and takes the nearest values.
        max_pixels: Most pixels of the file.

    Raises:
        ValueError: if the file cannot be read, has colours or values above 65,535, or has another size than its image.
    """
    size = (width, height) if max_side is None else None
    kind, image = open_whole(data, max_pixels, size=size, what="extra input")
    if kind == "JPEG" or image.mode not in ("P", "L", "1", *GRAY_16):
        found = "a JPEG" if kind == "JPEG" else f"of mode {image.mode}"
        raise ValueError(f"the extra input is {found}; save it as a gray PNG of 8 or 16 bits, or with a palette")
    value_HW = np.empty((image.height, image.width), np.uint16)
    for rows, strip in strips(image):
        found_HW = np.asarray(strip).astype(np.int64)
        if found_HW.min() < 0 or found_HW.max() > 0xFFFF:
            raise ValueError("the extra input has values outside 0 to 65535; number its segments anew")
        value_HW[rows] = found_HW
    if fitted(image.height, image.width, max_side) != (height, width):
        sizes = f"the extra input is {image.width}x{image.height}, its image when shrunk {width}x{height}"
        raise ValueError(f"{sizes}; save it in the size of its image")
    if value_HW.shape != (height, width):
        value_HW = np.asarray(Image.fromarray(value_HW).resize((width, height), Image.Resampling.NEAREST))
    return encode_extra(value_HW)
