"""Inputs that are hostile on purpose: bombs, sizes that are not there, and pickles that would run code."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from functools import cache

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.fuzz import corpus
from tests.unit.test_bombs import HUGE, STUFFED, chunk


def png(width: int, height: int, depth: int, colour: int, *, pixels: bytes | None = None, extra: bytes = b"") -> bytes:
    """A PNG of zeros that decodes in full, whatever its size: a few hundred bytes for a megapixel."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    squeezer, parts = zlib.compressobj(9), []
    parts.extend(squeezer.compress(row) for _ in range(height))
    data = b"".join([*parts, squeezer.flush()]) if pixels is None else pixels
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(6))) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + palette + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def images() -> tuple[bytes, ...]:
    """Headers of enormous pictures, and chunks that unfold."""
    return (*HUGE.values(), *STUFFED.values())


@cache
def large_images() -> tuple[bytes, ...]:
    """Pictures that are just allowed, and need many bytes for each pixel."""
    turned = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    wide = (
        (8, 6, turned),
        (16, 6, b""),
        (16, 0, turned),
        (8, 4, turned),
        (8, 3, chunk(b"tRNS", b"\0\1")),
        (8, 2, chunk(b"tRNS", bytes(6))),
    )
    return tuple(png(8900, 8900, depth, colour, extra=extra) for depth, colour, extra in wide)


@cache
def large_masks() -> tuple[bytes, ...]:
    """Masks as large as an image may be."""
    return tuple(png(8900, 8900, depth, colour) for depth, colour in ((8, 0), (16, 0), (8, 2), (8, 3), (1, 0)))


class Runs:
    """What makes a folder if it is unpickled."""

    def __reduce__(self) -> object:
        return os.mkdir, ("executed",)


def pickles() -> tuple[bytes, ...]:
    """Pickles that call a function, that nest, and that grow by their memo."""
    deep = b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."
    lists = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    long = b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\xff" * 100_000 + b"."
    huge = b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x."
    put = b"\x80\x02Kr" + b"\xff" * 4 + b"."
    return (
        *(pickle.dumps(Runs(), protocol=protocol) for protocol in (0, 2, 4)),
        deep,
        lists,
        long,
        huge,
        put,
        b"I" + b"9" * 9000 + b"\n.",
    )


def torch_files() -> tuple[bytes, ...]:
    """Pickles in torch's zip, compressed zeros, storages of sizes that are not there, and tensors larger than their storage."""
    found = [corpus.zipped_pickle(data) for data in pickles()]
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(corpus.torch_files()[0])) as old,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as entry:
                if name.endswith("/0"):
                    for _ in range(30):
                        entry.write(bytes(10_000_000))
                else:
                    entry.write(old.read(name))
    for count in (1 << 33, 1 << 40, 1 << 62):
        number = b"\x8a\x08" + struct.pack("<q", count)
        found += [corpus.zipped_pickle(data.replace(b"K\x0c", number, 1)) for data in corpus.torch_pickles()]
    return (
        *found,
        *pickles(),
        bomb.getvalue(),
        *_tensors(),
        *(data.replace(b"K\x0c", b"J\xff\xff\xff\x7f") for data in corpus.torch_files()),
    )


def _tensors() -> tuple[bytes, ...]:
    """State dicts with tensors of odd kinds."""
    odd = (
        torch.zeros(1).expand(1 << 20, 1 << 20),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.empty(2, device="meta"),
        torch.nn.Parameter(torch.zeros(2)),
    )
    found = []
    for tensor in odd:
        buffer = io.BytesIO()
        torch.save({"w": tensor}, buffer)
        found.append(buffer.getvalue())
    return tuple(found)


def safetensors() -> tuple[bytes, ...]:
    """Headers that are longer than the file, or that describe tensors which are not there."""
    heads = (
        {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 64]}},
        {"w": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}},
        {"w": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}},
        {"w": {"dtype": "F8_E8M0", "shape": [64], "data_offsets": [0, 64]}},
        {"w": {"dtype": "F4", "shape": [128], "data_offsets": [0, 64]}},
        {"": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}},
        {"__metadata__": {"a": 1}},
    )
    texts = (*(json.dumps(head).encode() for head in heads), b"[" * 90_000, b'{"a":' * 20_000, b'{"w\xff": 1}')
    return (
        *(corpus.with_header(text) for text in texts),
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
    )


def cls_labels() -> tuple[bytes, ...]:
    """Pickles behind a header of numpy, among them one whose vectors are all one long text."""
    data = io.BytesIO()
    np.save(data, {}, allow_pickle=True)
    head = data.getvalue()[: 10 + int.from_bytes(data.getvalue()[8:10], "little")]
    return (*(head + one for one in pickles()), *(head + one for one in _grown()), b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65_535)


def _grown() -> tuple[bytes, ...]:
    """A dictionary of thousands of vectors that share one content of 100 kB, as arrays, as lists, and as encoded texts."""
    text = b"X" + struct.pack("<I", 100_000) + b"\1" * 100_000 + b"q\0"
    made = b"R(K\1J\xa0\x86\1\0\x85cnumpy\ndtype\nU\2u1K\0K\1\x87R\x89h\0tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87" + made
    keys = [b"J" + struct.pack("<i", key) for key in range(1, 3_000)]
    arrays = b"\x80\x02}(K\0" + text + b"".join(key + array for key in keys) + b"u."
    lists = b"\x80\x02}(K\0](" + b"K\1" * 50_000 + b"eq\0" + b"".join(key + b"h\0" for key in keys) + b"u."
    texts = b"\x80\x02}(K\0" + text + b"".join(key + b"c_codecs\nencode\nh\0U\6latin1\x86R" for key in keys) + b"u."
    return arrays, lists, texts


def params() -> tuple[bytes, ...]:
    """Arrays larger than the file, without elements, and of too many dimensions."""
    head = struct.pack("<QQQ", 0x112, 0, 1)
    name = struct.pack("<QQ", 1, 1) + b"w"

    def wide(*shape: int, kind: int = 0, data: bytes = b"") -> bytes:
        return head + struct.pack(f"<IiI{len(shape)}qiii", 0xF993FACA, 0, len(shape), *shape, 1, 0, kind) + data + name

    return (
        wide(1 << 40),
        wide(1 << 62, 1 << 62),
        wide(0, 1 << 62),
        wide(0, 1 << 62, 1 << 62),
        wide(*[1] * 32, data=bytes(4)),
        wide(*[0] * 32),
        struct.pack("<QQQ", 0x112, 0, 1 << 60),
    )


def json_texts() -> tuple[bytes, ...]:
    """JSON that is deep, long, or not what JSON should be."""
    return (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"NaN",
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"\0",
        b'[{"image": "a\\nb", "tags": 1}]',
        b'{"a\\nb": 1}',
        b'{"a\\ud800": ["cat"]}',
        b'[{"image": "a", "tags": "cat", "split": {}}]',
    )


def csv_texts() -> tuple[bytes, ...]:
    """Tables with cells that are long, empty, or hold line breaks."""
    return (
        b'image,tags\n"a\nb",cat\n',
        b"image,tags\n" + b"a" * 200_000 + b",cat\n",
        b"image," + b",".join(b"c%d" % k for k in range(20_000)) + b"\na" + b",1" * 20_000,
        b"\0",
        b"image,tags\na\0,cat\n",
        b'image,tags\n"a,cat\n',
        b"image,tags\n,,\n",
        b"\xef\xbb\xbfimage,tags\na,cat\n",
        b"image,tags,tags\na,b,c\n",
        b"\n" * 100_000,
    )


def parquet_files() -> tuple[bytes, ...]:
    """A column of a long text, many times over: dictionaries and runs fold it into a few kilobytes."""
    found = []
    for count, width in ((5_000_000, 1), (200_000, 50_000), (3_000, 1_000_000)):
        indices = pa.array(np.zeros(count, np.int32))
        column = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * width]))
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image": column, "tags": column}), buffer, compression="zstd", store_schema=False)
        found.append(buffer.getvalue())
    nested = pa.array([[[["a"]]]])
    odd = pa.table({"image": pa.array([b"\xff\xfe"]), "tags": pa.array([1])})
    binary = pa.table({"image": pa.array([b"\xff\xfe"]).view(pa.binary()), "tags": nested})
    dates = pa.table({"image": pa.array([2**62], pa.timestamp("ms")), "tags": pa.array([2**40], pa.date64())})
    for one in (odd, binary, dates):
        buffer = io.BytesIO()
        pq.write_table(one, buffer)
        found.append(buffer.getvalue())
    return tuple(found)


@cache
def mat_files() -> tuple[bytes, ...]:
    """MATLAB files that claim more than they hold, unpack to a lot, or nest deeply."""
    start = corpus.sbd_masks()[1][:128]

    def element(kind: int, data: bytes, claimed: int | None = None) -> bytes:
        return struct.pack("<II", kind, len(data) if claimed is None else claimed) + data + bytes(-len(data) % 8)

    def matrix(kind: int, sides: tuple[int, ...], body: bytes, name: bytes = b"GTcls") -> bytes:
        flags, dims = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(sides)}i", *sides))
        return element(14, flags + dims + element(1, name) + body)

    def packed(content: bytes) -> bytes:
        data = zlib.compress(content, 9)
        return start + struct.pack("<II", 15, len(data)) + data

    wide = matrix(9, (1 << 30, 1 << 30), element(2, b"abc"))
    nested = matrix(9, (1, 1), element(2, b"a"), b"")
    for _ in range(2000):
        nested = matrix(1, (1, 1), nested, b"")
    bomb = matrix(9, (1, 1 << 26), element(2, bytes(1 << 26)))
    return (
        b"",
        start,
        start[:100],
        start + wide,
        packed(wide),
        start + matrix(1, (1, 1 << 28), element(2, b"")),
        start + matrix(2, (1, 1), element(5, struct.pack("<i", 1 << 30)) + element(1, b"Segmentation", 1 << 30)),
        start + matrix(9, (-1, -1), element(2, b"abc")),
        start + matrix(9, tuple([2] * 30), element(2, b"abc")),
        start + element(14, b"", 0xFFFFFFF0),
        start + element(15, b"x\x9c", 0xFFFFFFF0),
        start + nested,
        packed(nested),
        packed(bomb),
        bytes(4) + struct.pack("<iiiii", 0, 1 << 30, 1 << 30, 0, 6) + b"GTcls\0",  # version 4
        start[:116] + bytes(8) + struct.pack("<HH", 0x0200, 0x4D49),  # version 7.3
    )


def xml_texts() -> tuple[bytes, ...]:
    """Annotations that are deep, wide, or in odd encodings."""
    return (
        b"<a>" * 200_000,
        b"<annotation>" + b"<object/>" * 50_000 + b"</annotation>",
        b"<annotation><object><name>" + b"x" * 200_000 + b"</name></object></annotation>",
        b"<annotation>" + b"<object><name>a</name>" * 20_000 + b"</object>" * 20_000 + b"</annotation>",
        b'<?xml version="1.0" encoding="utf-32"?><a/>',
        b'<?xml version="1.0" encoding="idna"?><a/>',
        b'<?xml version="1.0" encoding="hex"?><a/>',
        b'<?xml version="1.0" encoding="cp037"?><a/>',
        b"<a " + b" ".join(b'a%d="1"' % k for k in range(20_000)) + b"/>",
    )


def onnx_files() -> list[bytes]:
    """Tensors that claim more than the file holds, and text in their place."""
    made = []
    for dims, kind in (((1 << 40,), 1), ((-1,), 1), ((1 << 31, 1 << 31), 7), ((2,), 8), ((2,), 99)):
        model = onnx.load_model_from_string(corpus.onnx_files()[0])
        model.graph.initializer[0].dims[:] = dims
        model.graph.initializer[0].data_type = kind
        made.append(model.SerializeToString())
    return [*made, b"", b"\0" * 1000, b"\x08" * 100_000]
