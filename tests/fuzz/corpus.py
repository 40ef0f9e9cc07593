"""Small valid files of every kind that is read, made here, from which mutations start."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from functools import cache
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat

from tests.coco_set import SHAPES, TRAIN, document
from tests.unit.test_mxnet_params import SMALL, params_bytes
from wsss_ray.core.values import Axis, Maps
from wsss_ray.data.codecs import encode_maps
from wsss_ray.data.palette import voc_palette

SIDE = 12  # of the pictures, in pixels
STAGE = "seed-0123456789abcdef"


def _picture(mode: str) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    if mode.startswith("I;16"):
        return Image.fromarray(noise.astype(np.uint16)[:, :, 0] * 200)
    return Image.fromarray(noise).convert(mode)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


@cache
def images() -> tuple[bytes, ...]:
    """Pictures in all formats, modes and compressions that are read."""
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb, palette = _picture("RGB"), _picture("P")
    return (
        *(_saved(_picture(mode), "PNG") for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "I;16")),
        _saved(palette, "PNG", transparency=3, bits=4),
        _saved(rgb, "PNG", transparency=(1, 2, 3), exif=turned, dpi=(72, 72)),
        *(_saved(_picture(mode), "JPEG") for mode in ("RGB", "L", "CMYK")),
        _saved(rgb, "JPEG", progressive=True, exif=turned, comment=b"x", optimize=True),
        _saved(rgb, "WEBP"),
        _saved(_picture("RGBA"), "WEBP", lossless=True, exif=turned),
        _saved(rgb, "WEBP", save_all=True, append_images=[_picture("RGB").rotate(90)]),
        _saved(palette, "GIF", transparency=1),
        _saved(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        *(_saved(rgb, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        *(_saved(_picture(mode), "TIFF") for mode in ("1", "L", "P", "RGBA", "I;16", "F")),
        *(_saved(_picture(mode), "BMP") for mode in ("RGB", "P", "1")),
    )


@cache
def masks() -> tuple[bytes, ...]:
    """Label maps of 3 labels and 255, as people save them."""
    label_HW = np.random.default_rng(2).choice([0, 1, 2, 255], (SIDE, SIDE)).astype(np.uint8)
    coloured = Image.fromarray(label_HW, mode="P")
    coloured.putpalette(voc_palette().ravel().tolist())
    return (
        _saved(Image.fromarray(label_HW), "PNG"),
        _saved(coloured, "PNG"),
        _saved(coloured.convert("RGB"), "PNG"),
        _saved(coloured.convert("RGB").convert("RGBA"), "PNG"),
        _saved(Image.fromarray(label_HW == 1), "PNG"),
        _saved(Image.fromarray(label_HW.astype(np.uint16)), "PNG"),
        *(_saved(Image.fromarray(label_HW), form) for form in ("TIFF", "BMP")),
        _saved(coloured, "TIFF", compression="tiff_lzw"),
    )


@cache
def extras() -> tuple[bytes, ...]:
    """Numbers of segments, as people save them: the first with 16 bits, as the store has it."""
    segment_HW = np.random.default_rng(3).integers(0, 200, (SIDE, SIDE)).astype(np.uint8)
    coloured = Image.fromarray(segment_HW, mode="P")
    coloured.putpalette(voc_palette().ravel().tolist())
    return (
        _saved(Image.fromarray(segment_HW.astype(np.uint16) * 300), "PNG"),
        _saved(Image.fromarray(segment_HW), "PNG"),
        _saved(coloured, "PNG"),
        _saved(Image.fromarray(segment_HW == 1), "PNG"),
        _saved(Image.fromarray(segment_HW.astype(np.uint16)), "TIFF"),
    )


@cache
def sbd_masks() -> tuple[bytes, ...]:
    """Masks of SBD: MATLAB files of version 5, compressed and not."""
    return tuple(_mat(compress) for compress in (True, False))


@cache
def sbd_contents() -> tuple[bytes, ...]:
    """The matrix in such a file, as it is before it is compressed."""
    return (_mat(False)[128:],)


def packed_mat(content: bytes) -> bytes:
    """A compressed MATLAB file with this content."""
    packed = zlib.compress(content)
    return _mat(True)[:128] + struct.pack("<II", 15, len(packed)) + packed


def _mat(compress: bool) -> bytes:
    label_HW = np.random.default_rng(2).integers(0, 21, (SIDE, SIDE)).astype(np.uint8)
    buffer = io.BytesIO()
    savemat(buffer, {"GTcls": {"Segmentation": label_HW, "CategoriesPresent": np.unique(label_HW)}}, do_compression=compress)
    return buffer.getvalue()


def maps_row() -> dict[str, Any]:
    """A row of localization maps of two classes."""
    map_CHW = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    return encode_maps(Maps((0, 2), peak_CHW=map_CHW, mean_CHW=map_CHW / 2, rows=Axis(0.1, 0.3), columns=Axis(0.1, 0.25)))


_ROWS = [{"image": f"{name}.png", "tags": tags} for name, tags in (("a", "cat"), ("b", "dog;cat"), ("sub/c", ""), ("ä", "dog"))]


def tables(kind: str) -> tuple[bytes, ...]:
    """Tables of tags in a format: with a column of names, with 0/1 columns, and with splits."""
    bits = [{"image": row["image"], "cat": int("cat" in row["tags"]), "dog": int("dog" in row["tags"])} for row in _ROWS]
    parts = [row | {"split": split} for row, split in zip(_ROWS, ("train", "val", "test", ""), strict=True)]
    several: tuple[list[dict[str, Any]], ...] = (_ROWS, bits, parts)
    if kind == "csv":
        return tuple(_csv(rows, mark) for rows, mark in zip((*several, _ROWS), ",;\t,", strict=True))
    if kind == "jsonl":
        return tuple("\n".join(map(json.dumps, rows)).encode() for rows in several)
    if kind == "json":
        by_image = {row["image"]: row["tags"].split(";") for row in _ROWS}
        return (*(json.dumps(rows).encode() for rows in several), json.dumps(by_image).encode())
    return tuple(as_parquet(pa.Table.from_pylist(rows), how) for rows in several for how in ("none", "snappy", "zstd"))


def _csv(rows: list[dict[str, Any]], mark: str) -> bytes:
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    quoted = [[f'"{cell}"' if mark in cell or ";" in cell else cell for cell in line] for line in lines]
    return "\n".join(mark.join(line) for line in quoted).encode()


def as_parquet(rows: pa.Table, compression: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression=compression, **options)
    return buffer.getvalue()


@cache
def coco() -> tuple[bytes, ...]:
    """A file of COCO's annotations: polygons, run lengths as lists and as text, crowds."""
    return json.dumps(document(SHAPES, TRAIN)).encode(), json.dumps(document(SHAPES, TRAIN), indent=1).encode()


def voc_lists() -> tuple[bytes, ...]:
    """Lists in the three forms that are known."""
    return (
        b"a\nb\n# c\n",
        b"/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/b.jpg /SegmentationClassAug/b.png\n",
        b"a 0 14\nb 3\n",
        "a\r\nb\x0b\u2028a".encode(),
    )


def annotations() -> tuple[bytes, ...]:
    """VOC's XML."""
    boxes = "".join(
        f"<object><name>{name}</name><difficult>{k % 2}</difficult></object>" for k, name in enumerate(("cat", "dog"))
    )
    return (
        f"<annotation>{boxes}<size><width>3</width></size></annotation>".encode(),
        f'<?xml version="1.0" encoding="utf-16"?><annotation>{boxes}</annotation>'.encode("utf-16"),
        f'<?xml version="1.0" encoding="iso-8859-1"?><!-- x --><annotation>{boxes}<![CDATA[x]]>&amp;</annotation>'.encode(),
    )


def cls_labels() -> tuple[bytes, ...]:
    """Tag vectors, as numpy saves them, in several protocols of pickle."""
    found = []
    for protocol in (2, 3, 4):
        for kind in ("float32", "uint8", "bool"):
            vectors = {f"2007_{k:06d}": np.eye(4, dtype=kind)[k] for k in range(3)}
            data = io.BytesIO()
            np.save(data, vectors, allow_pickle=True)
            head = data.getvalue()[: 10 + int.from_bytes(data.getvalue()[8:10], "little")]
            found.append(head + pickle.dumps(np.array(vectors), protocol=protocol))
    return tuple(found)


def _state() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(12.0).reshape(2, 3, 2), "bn.num": torch.tensor(3), "bn.half": torch.ones(4).half()}


@cache
def torch_files() -> tuple[bytes, ...]:
    """State dicts in torch's two formats, plain and inside a checkpoint."""
    found = []
    for value in (_state(), {"state_dict": _state(), "epoch": 1}):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
            found.append(buffer.getvalue())
    return tuple(found)


@cache
def torch_pickles() -> tuple[bytes, ...]:
    """The pickle inside torch's zip files, without the zip around it."""
    pickles = []
    for data in torch_files()[::2]:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickles.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    return tuple(pickles)


def zipped_pickle(pickled: bytes) -> bytes:
    """Pack another pickle into torch's zip file, with checksums that fit."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_files()[0])) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return changed.getvalue()


@cache
def safetensors() -> tuple[bytes, ...]:
    """Tensors of several types, with and without metadata."""
    return save(_state()), save(_state(), {"format": "pt"}), save({})


def safetensors_headers() -> tuple[bytes, ...]:
    """The headers of such files, alone."""
    return tuple(data[8 : 8 + struct.unpack_from("<Q", data)[0]] for data in safetensors())


def with_header(header: bytes) -> bytes:
    """Put a header before tensors, with its length."""
    return struct.pack("<Q", len(header)) + header + bytes(64)


def params() -> tuple[bytes, ...]:
    """Parameters in mxnet's four formats."""
    return tuple(params_bytes(SMALL, version) for version in ("legacy", "v1", "v2", "v3"))


def onnx_files() -> tuple[bytes, ...]:
    """Exported convolutions: tensors as raw bytes, as numbers, and in a file beside (which is not read)."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(2, 3, 1, 1)), "b": rng.normal(size=2)}
    raw = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    plain = [helper.make_tensor(name, onnx.TensorProto.FLOAT, array.shape, array.ravel()) for name, array in arrays.items()]
    apart = helper.make_tensor("w", onnx.TensorProto.FLOAT, (2, 3, 1, 1), arrays["w"].ravel())
    apart.ClearField("float_data")
    apart.data_location = onnx.TensorProto.EXTERNAL
    apart.external_data.add(key="location", value="/etc/hostname")
    made = []
    for tensors in (raw, plain, [apart, plain[1]]):
        given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 4, 4))]
        out = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
        graph = helper.make_graph([helper.make_node("Conv", ["x", "w", "b"], ["y"])], "net", given, out, tensors)
        made.append(helper.make_model(graph).SerializeToString())
    return tuple(made)
