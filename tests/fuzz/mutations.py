"""Mutations of bytes, as plain values: hypothesis draws and shrinks them, and a seeded generator draws millions of them."""

from __future__ import annotations

import copy
import math
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

MOST = 1 << 18  # bytes of an input

KINDS = (*("flip", "byte", "splice", "token", "number") * 3, "cut", "drop", "drop", "repeat", "swap", "fill", "fill")
NUMBERS = (0, 1, *(1 << bits for bits in (7, 15, 31, 40, 63)), *((1 << bits) - 1 for bits in (7, 8, 15, 16, 31, 32, 63, 64)))

LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 255, 2**31, 2**63, 10**17, 10**30, 1e308, math.nan, math.inf, "", "a", "0", "1"),
    *(
        "x" * 300,
        "a\0b",
        "a\nb",
        "../a",
        "/etc/passwd",
        "\ud800",
        "ä",
        "${HOME}",
        "null",
        "kind",
        "name",
        [],
        {},
        [[]],
        [1, 2],
        [0.1, 0.2],
    ),
    *({"kind": "x"}, {"a": 1}, {"kind": "adam"}, {"kind": "vgg16"}, {"name": "mdc"}, [None], ["a", "a"], [{}], [0] * 100),
)

Mutation = tuple[str, int, int, int]
"""A kind, and three numbers that say where and how. They are taken modulo whatever fits the input."""

Recipe = tuple[int, tuple[Mutation, ...], bool]
"""An input: the place of a file in the corpus, its mutations, and whether checksums are mended afterwards."""

_WORD = st.integers(0, 2**32 - 1)


def recipes(files: int) -> st.SearchStrategy[Recipe]:
    """Draw recipes for a corpus of that many files."""
    mutation = st.tuples(st.sampled_from(KINDS), _WORD, _WORD, _WORD)
    return st.tuples(st.integers(0, files - 1), st.lists(mutation, max_size=5).map(tuple), st.booleans())


def recipe_number(number: int, files: int) -> Recipe:
    """Draw recipe number `number`: the same for equal arguments."""
    draw = random.Random(number)
    count = draw.choice((1, 1, 1, 2, 2, 3, 5, 8))
    mutations = tuple((draw.choice(KINDS), *(draw.getrandbits(32) for _ in range(3))) for _ in range(count))
    return draw.randrange(files), mutations, draw.random() < 0.8


def mutated(files: Sequence[bytes], mutations: Sequence[Mutation], start: int, tokens: Sequence[bytes]) -> bytes:
    """Apply mutations to one file of a corpus. Others lend their pieces."""
    data = files[start]
    for kind, a, b, c in mutations:
        data = _mutated(data, kind, a, b, c, files, tokens)[:MOST]
    return data


def _mutated(data: bytes, kind: str, a: int, b: int, c: int, files: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    size = len(data)
    at = a % (size + 1)
    length = b % (1 + (16 if c % 3 else size))
    end = min(size, at + length)
    if kind == "cut":
        return data[:at]
    if kind == "drop":
        return data[:at] + data[end:]
    if kind == "repeat":
        return data[:at] + data[at:end] * (1 + c % 1000) + data[end:] if length * (c % 1000) < MOST else data
    if kind == "splice":
        other = files[c % len(files)]
        piece = other[(b >> 8) % (len(other) + 1) :][: 1 + b % 200]
        return data[:at] + piece + data[at + (len(piece) if c & 256 else 0) :]
    if kind == "token" and tokens:
        token = tokens[b % len(tokens)]
        return data[:at] + token + data[at + (len(token) if c & 1 else 0) :]
    if kind == "swap":
        to = (a >> 7) % (size + 1)
        first, last = sorted((at, to))
        return data[last:] + data[first:last] + data[:first]
    if kind == "number":
        form = "<>"[c & 1] + "BHIQ"[(c >> 1) & 3]
        width = struct.calcsize(form)
        raw = struct.pack(form, NUMBERS[b % len(NUMBERS)] & (1 << 8 * width) - 1)
        return data[:at] + raw + data[at + width :]
    if not size:
        return data
    at %= size
    if kind == "fill":
        return data[:at] + bytes([c & 255]) * (end - at) + data[end:]
    changed = data[at] ^ (1 << (b & 7)) if kind == "flip" else b & 255
    return data[:at] + bytes([changed]) + data[at + 1 :]


def mutated_tree(value: Any, mutations: Sequence[Mutation]) -> Any:
    """Apply mutations to parsed data: parts are replaced, removed, renamed, nested, or put in the place of others."""
    holder = {"": copy.deepcopy(value)}
    for _, a, b, c in mutations:
        places = list(_places(holder))
        block, key = places[a % len(places)]
        other, name = places[(a >> 9) % len(places)]
        how = c % 8
        if how == 0 and block is not holder:
            del block[key]
        elif how == 1:
            block[key] = copy.deepcopy(other[name])
        elif how == 2 and isinstance(block, dict) and block is not holder:
            block[str(LEAVES[b % len(LEAVES)])[:20]] = block.pop(key)
        elif how == 3 and isinstance(block[key], list):
            block[key] += copy.deepcopy(block[key]) * (b % 3) or [copy.deepcopy(LEAVES[b % len(LEAVES)])]
        elif how == 4:
            block[key] = [block[key]] if b & 1 else {str(LEAVES[(b >> 1) % len(LEAVES)])[:20]: block[key]}
        else:
            block[key] = copy.deepcopy(LEAVES[b % len(LEAVES)])
    return holder[""]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every block or list with each of its keys or positions."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(part, dict | list) and part:
            yield from _places(part)


def mend_png(data: bytes) -> bytes:
    """Compute the checksums of a PNG's chunks anew, so that a reader looks at what is in them."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join([*parts, data[at:]])
