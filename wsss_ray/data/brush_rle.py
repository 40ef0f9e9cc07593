"""Encode masks as the run lengths of Label Studio's brush, and decode them.

The format is rle-pack of thi.ng (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack): 32 bits for the number of
values, 5 bits for the bits of a value less one, four times 4 bits for the bits of a length less one, and then chunks. A chunk is
a bit (1: one value, repeated; 0: single values), 2 bits that choose the length's bits, the length less one, and the value or
values. Label Studio stores the red, green, blue and alpha of each pixel, row after row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)
_CHANNELS = 4
_VALUE = 8


def encode_brush(inside_HW: NDArray[np.bool_]) -> list[int]:
    """Encode a mask. Inside pixels are 255 in all channels, others 0.

    Args:
        inside_HW: The mask, (H, W).

    Returns:
        The bytes as numbers, as `value.rle` of a result holds them.
    """
    flat = inside_HW.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}", f"{_VALUE - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "1" * _VALUE if flat[start] else "0" * _VALUE
        for begin in range(0, length, 1 << _SIZES[-1]):
            part = min(length - begin, 1 << _SIZES[-1]) - 1
            place = next(place for place, size in enumerate(_SIZES) if part < 1 << size)
            bits.append(f"1{place:02b}{part:0{_SIZES[place]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask (H, W): the pixels whose alpha is not 0.

    Raises:
        ValueError: if the numbers are no run lengths of an image of this size.
    """
    try:
        data = bytes(rle)
    except (TypeError, ValueError) as error:
        raise ValueError("its rle is not a list of bytes (0 to 255)") from error
    bits, at = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def number(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise ValueError("its rle ends in the middle of a number")
        at += count
        return int("".join(map(str, bits[at - count : at].tolist())), 2)

    total, size = number(32), number(5) + 1
    if total != height * width * _CHANNELS:
        raise ValueError(f"its rle has {total} values; expected {_CHANNELS} for each of {width}x{height} pixels")
    sizes = [number(4) + 1 for _ in _SIZES]
    values, place = np.zeros(total, np.bool_), 0
    while place < total:
        repeated, length = number(1), 1 + number(sizes[number(2)])
        if place + length > total:
            raise ValueError("its rle has more values than it says")
        if repeated:
            values[place : place + length] = number(size) > 0
        else:
            values[place : place + length] = [number(size) > 0 for _ in range(length)]
        place += length
    return values.reshape(height, width, _CHANNELS)[..., -1]
