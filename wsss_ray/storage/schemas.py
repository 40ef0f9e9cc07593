"""What lies in the store: Arrow schemas, and the codecs of images, label maps, localization maps and models.

Every per-image artifact is a set of Parquet shards `part-00000.parquet`, one row per image. Shard k of any artifact holds the
images of shard k of the data it was made from, in the same order, so that readers zip shards and never join. Plain Arrow types
only; the schema's name and version stand in the file metadata. Rows are their own row groups where training reads images at
random, so that one image costs one range read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from wsss_ray.core.contracts import Axis, Maps

VERSION = 1
MOST_PIXELS = 1 << 30
"""An image or label map in the store that says it is larger is not decoded."""

_ID = pa.field("image_id", pa.string(), nullable=False)
_CLASSES = pa.list_(pa.uint16())

IMAGES = pa.schema(
    [
        _ID,
        pa.field("tags", _CLASSES, nullable=False),  # 0-based class indices
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # JPEG or PNG that decodes to 8-bit RGB, upright
        pa.field("sha256", pa.string(), nullable=False),  # of the source file
        pa.field("mask", pa.binary()),  # PNG, labels and 255; null where there is none
    ]
)
SALIENCY = pa.schema([_ID, pa.field("saliency", pa.binary())])  # 8-bit PNG; null where the image could not be read
MAPS = pa.schema(
    [
        _ID,
        pa.field("classes", _CLASSES, nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("peak", pa.binary()),  # float16, (classes, height, width), row-major, little-endian; null on error
        pa.field("mean", pa.binary()),
        # feature (i, j) has its centre at (grid[0] + i * grid[1], grid[2] + j * grid[3]), as fractions of the sides
        pa.field("grid", pa.list_(pa.float64(), 4)),
    ]
)
SEEDS = pa.schema([_ID, pa.field("seed", pa.binary())])  # PNG, labels and 255; null on error
SCORES = pa.schema(
    [
        _ID,
        pa.field("prediction", pa.binary()),  # PNG; null on error and where seeds are scored (they have their own shards)
        pa.field("cells", pa.list_(pa.uint32()), nullable=False),  # true * (L + 1) + predicted, column L is "undecided"
        pa.field("counts", pa.list_(pa.int64()), nullable=False),  # pixels in each of those cells of the confusion matrix
    ]
)
ERRORS = pa.schema([_ID, pa.field("path", pa.string()), pa.field("reason", pa.string(), nullable=False)])
LISTING = pa.schema(  # of a split, while it is ingested: see `listings`
    [
        _ID,
        pa.field("tags", _CLASSES, nullable=False),
        pa.field("path", pa.string()),
        pa.field("mask", pa.string()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("annotation", pa.string()),
    ]
)
PREDICTIONS = pa.schema(
    [
        _ID,  # the path below the folder that the images were found in, without its ending
        pa.field("path", pa.string(), nullable=False),
        pa.field("height", pa.int32()),  # of the upright image and its label map; null on error
        pa.field("width", pa.int32()),
        pa.field("prediction", pa.binary()),  # PNG of labels
        pa.field("pixels", pa.list_(pa.int64())),  # with label 0, 1, ...
        pa.field("reason", pa.string()),  # why there is no prediction
    ]
)

_NAMES = {
    "images": IMAGES,
    "saliency": SALIENCY,
    "maps": MAPS,
    "seeds": SEEDS,
    "scores": SCORES,
    "errors": ERRORS,
    "listing": LISTING,
    "predictions": PREDICTIONS,
}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """An Arrow table of one of the schemas of this file, its name and version in the metadata."""
    schema = _NAMES[name].with_metadata({"wsss_ray.schema": name, "wsss_ray.version": str(VERSION)})
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def check_schema(schema: pa.Schema, name: str, path: str) -> None:
    """Raise ValueError unless `schema` is this version's `name`."""
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    kind, version = found.get("wsss_ray.schema"), found.get("wsss_ray.version")
    if kind != name:
        raise ValueError(f"{path}: holds {kind or 'no artifact of wsss-ray'}, expected {name}; was the store edited by hand?")
    if version != str(VERSION):
        raise ValueError(
            f"{path}: schema version {version}, this wsss-ray reads version {VERSION}; "
            "use the version that wrote the store, or delete the stage's folder to make it again"
        )
    check_plain(schema, path)


def check_plain(schema: pa.Schema, path: str) -> None:
    """Raise ValueError unless all columns are of plain types: Ray registers extension types whose values are unpickled."""
    odd = [schema.field(place).name for place in range(len(schema)) if not _is_plain(schema.field(place))]
    if odd:
        raise ValueError(f"{path}: column {odd[0]!r} is of an extension type, which may hold code; only plain types are read")


def _is_plain(field: pa.Field) -> bool:
    if isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {}):
        return False
    return all(_is_plain(field.type.field(place)) for place in range(field.type.num_fields))


def encode_labels(label_HW: NDArray[np.uint8]) -> bytes:
    """An 8-bit grayscale PNG whose pixel values are the labels."""
    return encode_gray(label_HW)


def encode_gray(gray_HW: NDArray[np.uint8]) -> bytes:
    """A lossless 8-bit PNG; the same array always gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(gray_HW, dtype=np.uint8)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def decode_gray(data: bytes, *, max_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """The array of an 8-bit PNG (H, W); palette images give their indices. Writable. Raises ValueError on a larger one."""
    return np.array(_sized(PngImageFile(io.BytesIO(data)), max_pixels), dtype=np.uint8)


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """The pixels of an ingested image, (H, W, 3) RGB. Writable, as pydensecrf wants it.

    Not by Image.open, whose limit on pixels would refuse what ingest took.
    """
    reader = PngImageFile if data.startswith(b"\x89PNG") else JpegImageFile
    return np.array(_sized(reader(io.BytesIO(data)), MOST_PIXELS).convert("RGB"), dtype=np.uint8)


def _sized(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image, its header read and its pixels not yet, if it is not too large."""
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels; was the store edited by hand?")
    return image


def encode_maps(maps: Maps) -> dict[str, Any]:
    """The columns of a `maps` row but for the id."""
    height, width = maps.peak_CHW.shape[1:]
    return {
        "classes": list(maps.classes),
        "height": height,
        "width": width,
        "peak": maps.peak_CHW.astype("<f2").tobytes(),
        "mean": maps.mean_CHW.astype("<f2").tobytes(),
        "grid": [maps.rows.first, maps.rows.step, maps.columns.first, maps.columns.step],
    }


def decode_maps(row: Mapping[str, Any]) -> Maps:
    """The maps of a `maps` row, as float32."""
    shape = (len(row["classes"]), row["height"], row["width"])
    peak, mean = (np.frombuffer(row[key], "<f2").reshape(shape).astype(np.float32) for key in ("peak", "mean"))
    grid = row["grid"]
    return Maps(tuple(row["classes"]), peak_CHW=peak, mean_CHW=mean, rows=Axis(*grid[:2]), columns=Axis(*grid[2:]))
