"""Read one field of a structure in a MATLAB file. scipy's reader makes room for what a file claims, and dies of some damage.

A file of version 5 is a header of 128 bytes and elements: a tag with a type and a number of bytes, and the bytes. A compressed
element holds one element. A matrix holds elements again: its class, its sides, its name, and then the numbers, or for a structure
the length and the names of its fields and a matrix for each.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER, _MOST = 128, 32 << 20  # bytes; a mask of SBD has less than a million
_MATRIX, _PACKED, _SIDES = 14, 15, 5
_STRUCT = 2
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read_field(data: bytes, name: str, field: str) -> NDArray[Any]:
    """Read a matrix of numbers: a field of the structure with this name.

    Args:
        data: The content of a MATLAB file of version 5, with or without compression.
        name: The variable, a structure.
        field: The field.

    Returns:
        The numbers in the type in which the file holds them.

    Raises:
        ValueError: if the file is of another kind or damaged, or has no such field.

    Example:
        >>> read_field(Path("cls/2008_000008.mat").read_bytes(), "GTcls", "Segmentation").shape
        (375, 500)
    """
    mark = data[126:128]
    if mark not in (b"IM", b"MI"):
        raise ValueError("no MATLAB file of version 5")
    order = "<" if mark == b"IM" else ">"
    for body in _matrices(data[_HEADER:], order):
        kind, _, found, parts = _matrix(body, order)
        if kind == _STRUCT and found == name.encode():
            return _numbers(_field(parts, field, order), order)
    raise ValueError(f"no structure {name}")


def _matrices(data: bytes, order: str) -> Iterator[bytes]:
    """Yield the bytes of each matrix of a file."""
    for kind, body in _elements(data, order):
        if kind == _PACKED:
            yield from (inner for inner_kind, inner in _elements(_inflated(body), order) if inner_kind == _MATRIX)
        elif kind == _MATRIX:
            yield body


def _inflated(body: bytes) -> bytes:
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(body, _MOST)
    except zlib.error as error:
        raise ValueError(f"damaged data: {error}") from error
    if not unpack.eof:
        raise ValueError("more data than a mask has, or cut short")
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the bytes of each element."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("cut short")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element: its size in the upper half, its bytes in the tag
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            start = place + 8
            end = start + size + (0 if kind == _PACKED else -size % 8)
        if start + size > min(end, len(data)):
            raise ValueError("cut short")
        yield kind, data[start : start + size]
        place = end


def _matrix(body: bytes, order: str) -> tuple[int, tuple[int, ...], bytes, list[tuple[int, bytes]]]:
    """Return the class, the sides, the name and the other elements of a matrix."""
    parts = list(_elements(body, order))
    if len(parts) < 3 or len(parts[0][1]) < 4 or parts[1][0] != _SIDES or len(parts[1][1]) % 4:
        raise ValueError("a matrix without a class or sides")
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    sides = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    return flags & 0xFF, sides, parts[2][1], parts[3:]


def _field(parts: list[tuple[int, bytes]], field: str, order: str) -> bytes:
    """Return the bytes of the matrix in a field of a structure."""
    if len(parts) < 2 or len(parts[0][1]) != 4:
        raise ValueError("a structure without fields")
    (length,), text = struct.unpack(f"{order}i", parts[0][1]), parts[1][1]
    if length < 1:
        raise ValueError("a structure whose fields have no names")
    names = [text[start : start + length].rstrip(b"\0") for start in range(0, len(text), length)]
    place = names.index(field.encode()) if field.encode() in names else len(parts)
    if 2 + place >= len(parts) or parts[2 + place][0] != _MATRIX:
        raise ValueError(f"no field {field}")
    return parts[2 + place][1]


def _numbers(body: bytes, order: str) -> NDArray[Any]:
    """Return a matrix of real numbers."""
    _, sides, _, parts = _matrix(body, order)
    if len(parts) != 1 or parts[0][0] not in _NUMBERS:
        raise ValueError("no matrix of real numbers")
    kind: np.dtype[Any] = np.dtype(order + _NUMBERS[parts[0][0]])
    if any(side < 0 for side in sides) or math.prod(sides) * kind.itemsize != len(parts[0][1]):
        raise ValueError(f"a matrix of {' x '.join(map(str, sides[:8]))} in {len(parts[0][1])} bytes")
    return np.frombuffer(parts[0][1], kind).reshape(sides, order="F")
