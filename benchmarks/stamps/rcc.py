"""Read Qt binary resource files (`.rcc`), as written by Qt's `rcc --binary`, versions 1 to 3. Everything is big-endian.

* header   b"qres", u32 version, u32 offset of the tree, of the data, of the names; version 3 adds u32 of all flags together
* tree     nodes of 14 bytes (22 from version 2 on), node 0 is the root, the children of a node lie side by side, after it:
           u32 name, u16 flags, then a folder has u32 number of children, u32 index of the first,
           and a file has u16 country, u16 language, u32 data; version 2 adds u64 time of last change
* names    u16 length in UTF-16 units, u32 hash, UTF-16; a node's `name` counts from the start of the names; the root has none
* data     u32 bytes that follow; a node's `data` counts from the start of the data
* flags    1: the data are u32 size and a zlib stream; 2: folder; 4: the data are a zstd frame
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import pyarrow as pa

ZLIB, FOLDER, ZSTD = 1, 2, 4
_HEADER = struct.Struct(">4s4I")
_NODE = struct.Struct(">IHII")


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its path, with slashes and none in front, its flags and where its data are."""

    path: str
    flags: int
    offset: int


def entries(blob: bytes) -> list[Entry]:
    """List all files, in the order of the tree; of one kept in several languages, the first. Raises ValueError if damaged."""
    try:
        magic, version, tree, data, names = _HEADER.unpack_from(blob)
        if magic != b"qres" or not 1 <= version <= 3:
            raise ValueError(f"not a Qt resource file of version 1 to 3 (it starts with {blob[:8]!r})")
        width = 14 if version == 1 else 22
        found: dict[str, Entry] = {}
        todo = [(0, "")]
        while todo:
            index, parent = todo.pop()
            name_at, flags, first, second = _NODE.unpack_from(blob, tree + index * width)
            path = "/".join(part for part in (parent, _name(blob, names + name_at) if index else "") if part)
            if not flags & FOLDER:
                found.setdefault(path, Entry(path, flags, data + second))
            elif first and (second <= index or tree + (second + first) * width > len(blob)):
                raise ValueError(f"folder {path!r} has its children outside the tree")
            else:
                todo += [(child, path) for child in reversed(range(second, second + first))]
            if len(found) + len(todo) > len(blob) // width:
                raise ValueError("more nodes than the file has room for")
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"damaged Qt resource file ({error})") from error
    return list(found.values())


def _name(blob: bytes, at: int) -> str:
    (units,) = struct.unpack_from(">H", blob, at)
    raw = blob[at + 6 : at + 6 + 2 * units]
    if len(raw) < 2 * units:
        raise ValueError("a name runs over the end of the file")
    return raw.decode("utf-16-be")


def read(blob: bytes, entry: Entry) -> bytes:
    """Return the bytes of one file, unpacked. Raises ValueError if they are damaged."""
    if entry.offset + 4 > len(blob):
        raise ValueError(f"{entry.path}: its data lie outside the file")
    (length,) = struct.unpack_from(">I", blob, entry.offset)
    raw = blob[entry.offset + 4 : entry.offset + 4 + length]
    if len(raw) < length:
        raise ValueError(f"{entry.path}: its data run over the end of the file")
    try:
        if entry.flags & ZLIB:
            (size,) = struct.unpack_from(">I", raw)
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(raw[4:], size + 1)
            if len(content) != size:
                raise ValueError(f"{entry.path}: {size} bytes announced, {len(content)} or more found")
            return content
        if entry.flags & ZSTD:
            with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
                return bytes(stream.read())
    except (struct.error, zlib.error, OSError) as error:
        raise ValueError(f"{entry.path}: cannot be unpacked ({error})") from error
    return raw
