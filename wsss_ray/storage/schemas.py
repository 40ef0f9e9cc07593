"""Define the Arrow schemas of the store.

Every per-image artifact is a set of Parquet shards `part-00000.parquet` with one row per image. Shard k of an artifact holds the
images of shard k of its data, in the same order, so readers zip shards and never join. Columns have plain Arrow types only. The
metadata of a file holds the name and version of its schema. Training reads images and seeds at random, so each of their rows is a
row group of its own, and one image costs one range read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from wsss_ray.core.errors import REPAIR, DamagedFile, shown

VERSION = 1

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
        # The image file: its path in the data with its ending, null if the source makes the image; and its size, upright, before
        # it was shrunk. Shards of earlier versions lack these three.
        pa.field("file", pa.string()),
        pa.field("file_height", pa.int32()),
        pa.field("file_width", pa.int32()),
    ]
)
SALIENCY = pa.schema([_ID, pa.field("saliency", pa.binary())])  # 8-bit PNG; null where the image could not be read
EXTRA = pa.schema([_ID, pa.field("extra", pa.binary())])  # 16-bit PNG; null where the file could not be read
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
FEATURES = pa.schema(  # of the sample that a training cuts from the image, and of its mirror image
    [
        _ID,
        pa.field("key", pa.binary()),  # of sample, trunk and form; see nets/frozen.py. Null on error
        pa.field("mirrored_key", pa.binary()),
        pa.field("shape", pa.list_(pa.int32(), 3)),  # channels, height, width
        pa.field("features", pa.binary()),  # float32, row-major, little-endian
        pa.field("mirrored", pa.binary()),
    ]
)
SEEDS = pa.schema([_ID, pa.field("seed", pa.binary())])  # PNG, labels and 255; null on error
SCORES = pa.schema(
    [
        _ID,
        pa.field("prediction", pa.binary()),  # PNG; null on error and where seeds are scored (they have their own shards)
        pa.field("cells", pa.list_(pa.uint32()), nullable=False),  # true * (L + 1) + predicted, column L is "undecided"
        pa.field("counts", pa.list_(pa.int64()), nullable=False),  # pixels in each of these cells of the confusion matrix
    ]
)
TAG_SCORES = pa.schema(
    [
        _ID,
        pa.field("scores", pa.list_(pa.float32())),  # probability of each class; null on error
        pa.field("tags", _CLASSES, nullable=False),  # of the data; of the mask if the data has none for the image
    ]
)
ERRORS = pa.schema([_ID, pa.field("path", pa.string()), pa.field("reason", pa.string(), nullable=False)])
LISTING = pa.schema(  # of a split, while it is ingested; see engine/listing.py
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
        _ID,  # path below the folder of the images, without extension
        pa.field("path", pa.string(), nullable=False),
        pa.field("height", pa.int32()),  # of the upright image and its label map; null on error
        pa.field("width", pa.int32()),
        pa.field("prediction", pa.binary()),  # PNG of labels
        pa.field("pixels", pa.list_(pa.int64())),  # number of pixels with label 0, 1, ...
        pa.field("reason", pa.string()),  # why there is no prediction
    ]
)


@dataclass(frozen=True)
class Artifact:
    """A kind of file of the store.

    Attributes:
        schema: Its columns.
        by_row: Readers take single rows, so each row is a row group of its own.
        statistics: Columns with statistics. Other columns get none: Parquet would copy small PNGs into them, several times each.
    """

    schema: pa.Schema
    by_row: bool = False
    statistics: tuple[str, ...] = ("image_id",)


ARTIFACTS = {
    "images": Artifact(IMAGES, by_row=True, statistics=("image_id", "mask")),  # those of masks tell which images have one
    "saliency": Artifact(SALIENCY),
    "extra": Artifact(EXTRA),
    "features": Artifact(FEATURES, by_row=True),
    "maps": Artifact(MAPS),
    "seeds": Artifact(SEEDS, by_row=True),
    "scores": Artifact(SCORES),
    "tag_scores": Artifact(TAG_SCORES),
    "errors": Artifact(ERRORS),
    "listing": Artifact(LISTING, statistics=("image_id", "mask")),
    "predictions": Artifact(PREDICTIONS),
}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make an Arrow table with the schema called `name`. Its metadata holds the schema's name and version."""
    schema = ARTIFACTS[name].schema.with_metadata({"wsss_ray.schema": name, "wsss_ray.version": str(VERSION)})
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def check_schema(schema: pa.Schema, name: str, path: str) -> None:
    """Raise ValueError unless `schema` is the schema called `name`, in the version of this package.

    Raises:
        DamagedFile: if a name in the schema is no text.
    """
    try:
        found = {key.decode(): shown(value.decode()) for key, value in (schema.metadata or {}).items()}
        _ = schema.names
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{path}: is damaged (a name that is no UTF-8). {REPAIR}") from error
    kind, version = found.get("wsss_ray.schema"), found.get("wsss_ray.version")
    if kind != name:
        raise ValueError(f"{path}: holds {kind or 'no artifact of wsss-ray'}, expected {name}; was the store edited by hand?")
    if version != str(VERSION):
        raise ValueError(
            f"{path}: has schema version {version}, but this wsss-ray reads version {VERSION}; "
            "use the version that wrote the store, or delete the stage's folder to make it again"
        )
    check_plain(schema, path)


def check_plain(schema: pa.Schema, path: str) -> None:
    """Raise ValueError if a column has an extension type. Ray registers such types and unpickles their values."""
    odd = [schema.field(place).name for place in range(len(schema)) if not _is_plain(schema.field(place))]
    if odd:
        raise ValueError(f"{path}: column {odd[0]!r} is of an extension type, which may hold code; only plain types are read")


def _is_plain(field: pa.Field) -> bool:
    if isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {}):
        return False
    return all(_is_plain(field.type.field(place)) for place in range(field.type.num_fields))
