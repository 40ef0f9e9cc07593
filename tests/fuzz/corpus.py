"""Small valid files of every kind that is read, made here, from which mutations start."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save

from tests.coco_set import SHAPES, TRAIN, document
from tests.unit.test_mxnet_params import SMALL, params_bytes
from wsss_ray.core.values import Axis, Maps
from wsss_ray.data.codecs import encode_maps
from wsss_ray.data.images import voc_palette
from wsss_ray.storage.schemas import ARTIFACTS, table

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
        *(_saved(Image.fromarray(label_HW), form) for form in ("TIFF", "BMP", "GIF")),
        _saved(coloured, "TIFF", compression="tiff_lzw"),
    )


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
    return tuple(_parquet(pa.Table.from_pylist(rows), how) for rows in several for how in ("none", "snappy", "zstd"))


def _csv(rows: list[dict[str, Any]], mark: str) -> bytes:
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    quoted = [[f'"{cell}"' if mark in cell or ";" in cell else cell for cell in line] for line in lines]
    return "\n".join(mark.join(line) for line in quoted).encode()


def _parquet(rows: pa.Table, compression: str, **options: Any) -> bytes:
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
    boxes = "".join(f"<object><name>{name}</name><difficult>{k % 2}</difficult></object>" for k, name in enumerate(("cat", "dog")))
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


@cache
def checkpoints() -> tuple[bytes, ...]:
    """A checkpoint of a training, with labels made ahead."""
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"step": 4, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "labels": {5: torch.zeros(1, 2, 2).byte()}}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return (buffer.getvalue(),)


def rows_of(schema: str) -> list[dict[str, Any]]:
    """Two rows of an artifact of the store."""
    label = masks()[0]
    row: dict[str, dict[str, Any]] = {
        "images": {"tags": [0, 2], "height": SIDE, "width": SIDE, "image": images()[0], "sha256": "0" * 64, "mask": label},
        "saliency": {"saliency": label},
        "features": {"key": b"k", "mirrored_key": b"m", "shape": [1, 2, 2], "features": bytes(16), "mirrored": bytes(16)},
        "maps": maps_row(),
        "seeds": {"seed": label},
        "scores": {"prediction": label, "cells": [0, 5], "counts": [100, 44]},
        "errors": {"path": "a.png", "reason": "the file is empty"},
        "listing": {"tags": [1], "path": "a.png", "mask": None, "size": 3, "annotation": None},
        "predictions": {"path": "a.png", "height": SIDE, "width": SIDE, "prediction": label, "pixels": [1], "reason": None},
    }
    return [{"image_id": name} | row[schema] for name in ("a", "b/c")]


@cache
def shards(schema: str) -> tuple[bytes, ...]:
    """Shards of an artifact: as the store writes them, without compression, and without dictionaries."""
    rows, one = table(schema, rows_of(schema)), ARTIFACTS[schema]
    written = _parquet(rows, "zstd", row_group_size=1 if one.by_row else 2, write_statistics=list(one.statistics))
    return written, _parquet(rows, "none"), _parquet(rows, "none", use_dictionary=False), _parquet(table(schema, []), "zstd")


_RECORD = {
    "id": STAGE,
    "name": "seed",
    "kind": "seed",
    "identity": {"component": {"kind": "threshold_seeds", "revision": 1}},
    "inputs": [["maps", "localize-0123456789abcdef"]],
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:00+00:00",
    "seconds": 60.0,
    "counts": {"images": 2, "errors": 0, "shards": 1},
    "metrics": {"miou": 0.5, "iou": [0.5, None]},
    "versions": {"wsss-ray": "0"},
    "machine": {"cores": 2},
    "git": None,
}
_RUN = {
    "name": "pets",
    "stages": [{"id": STAGE, "name": "seed", "kind": "seed", "work": 3}, {"id": "train-0123456789abcdef", "name": "t", "kind": "train", "work": 9}],
    "submitted": 1.0,
    "attempt": "process 1 on here",
    "versions": {},
    "git": None,
}
_CLAIM = {"attempt": "process 1 on here", "machine": "here", "pid": 1, "started": "5", "since": 1.0, "beat": "000000001"}
_FAILURE = {"error": "stage seed: the disk is full", "logs": None, "attempt": "x", "time": "2026-01-01T00:00:00+00:00"}
_SWEEP = {"name": "pets", "submitted": 1.0, "attempt": "x", "total": 3}
_TRIAL = {
    "name": "one", "run": "pets.one.0", "seed": 0, "method": "ficklenet", "parameters": {"a.b": 1}, "state": "done",
    "metrics": {"miou": 0.5}, "stages": [STAGE], "seconds": 1.0,
}  # fmt: skip
_LINES = [{"step": step, "epoch": 0.5, "time": 1.0 + step, "loss": 0.5, "terms": {"seed": 0.5}, "lr": 0.1} for step in (1, 2)]

JSON = {"record": _RECORD, "run": _RUN, "claim": _CLAIM, "failure": _FAILURE, "sweep": _SWEEP, "trial": _TRIAL}


def jsons(name: str) -> tuple[bytes, ...]:
    """A JSON file of the store, with what is not in it at the top."""
    return json.dumps(JSON[name]).encode(), json.dumps(JSON[name], indent=2).encode(), b"[]", b"{}", b"null", b"1"


def logs() -> tuple[bytes, ...]:
    """The log of a training."""
    return ("".join(json.dumps(line) + "\n" for line in _LINES)).encode(), b""


JOB = """\
name: pets
method:
  name: ficklenet
  classifier: {trunk: {kind: small_net, widths: [8, 16], strides: [2, 1]}, kernel_size: 3, epochs: null, steps: 4, batch_size: 4}
  localizer: {size: null, selections: 2}
  seed_rule: &rule {background: {kind: cam_background, threshold: 0.3}, crf: {iterations: 1}}
  segmenter:
    head: {kind: large_fov, dilation: 2, hidden: 8}
    optimizer: {kind: adam, lr: 1.0e-3}
    schedule: {kind: poly, power: 0.9}
  relabel: {sizes: [24], crf: {iterations: 1}}
data: {kind: folder, root: images, tags: tags.csv, masks: "${HOME}/masks", classes: [cat, dog]}
run: {store: runs, max_failures: 0, workers: [1, 2], loggers: [tensorboard, {kind: mlflow, tracking_uri: "http://h:1"}]}
"""
_SWEEPS = (
    """
sweep:
  paper: Table 1
  metrics: [miou]
  seeds: [1, 2]
  trials:
    - {name: one, set: {method.seed_rule.background.threshold: 0.2}, published: 50.1}
    - {name: two, set: {method.localizer.selections: 3}}
""",
    """
sweep:
  space:
    method.seed_rule.background.threshold: {grid: [0.1, 0.2]}
    method.classifier.optimizer.lr: {loguniform: [1.0e-4, 1.0e-2]}
    method.relabel: {choice: [null, {sizes: [12]}]}
  samples: 3
  scheduler: {kind: asha, grace: 0.2}
""",
    "\nsweep: {space: {method.classifier.optimizer.lr: {uniform: [0.1, 0.2]}}, samples: 4, scheduler: {kind: pbt}}\n",
)


def jobs() -> tuple[bytes, ...]:
    """Job files: with and without sweeps, on other data, and over a base."""
    voc = JOB.replace(JOB[JOB.index("data:") : JOB.index("run:")], "data: {kind: voc, root: voc, strong: x.txt}\n")
    return tuple(text.encode() for text in (JOB, *(JOB + sweep for sweep in _SWEEPS), voc, "base: base.yaml\nrun: {seed: 3}\n"))


def overrides() -> tuple[bytes, ...]:
    """Options `--set`."""
    return tuple(_overrides())


def _overrides() -> Iterator[bytes]:
    yield from (b"run.seed=1", b"method.classifier.trunk={kind: vgg16, weights: none}", b"data.classes.1=horse", b"sweep.seeds=[1, 2]")
    yield from (b"run.loggers=[tensorboard, wandb]", b"run.workers=[1, 4]", b"method.relabel=null", b"data={kind: coco, root: x}")
