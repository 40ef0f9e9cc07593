"""The colours in which Pascal VOC draws labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def voc_palette() -> NDArray[np.uint8]:
    """Make the (256, 3) colours of Pascal VOC: bit 3j + c of the label is bit 7 - j of channel c (c = 0, 1, 2 for R, G, B)."""
    label_N1, bit_8 = np.arange(256)[:, None], np.arange(8)
    channels = [(((label_N1 >> (3 * bit_8 + c)) & 1) << (7 - bit_8)).sum(axis=1) for c in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def voc_colours() -> dict[tuple[int, int, int], int]:
    """Map colour to label in the VOC palette."""
    return {(int(r), int(g), int(b)): label for label, (r, g, b) in enumerate(voc_palette())}
