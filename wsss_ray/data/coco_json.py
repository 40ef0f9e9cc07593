"""Read the JSON in which MS COCO annotates objects (https://cocodataset.org/#format-data).

A file of COCO's size (330 MB, 600,000 objects) would take gigabytes as Python objects, in every worker. So one record is parsed
at a time, and only the place of an annotation in the file is kept. The shapes of an image are read again when its mask is drawn.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsss_ray.core.component import canonical
from wsss_ray.core.errors import shown
from wsss_ray.data.finder import clean, home
from wsss_ray.data.image_files import bare, nfc
from wsss_ray.data.json_records import records_of

_LISTS = ("images", "annotations", "categories")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may have half of a pair, which no text and no file's name can hold

Annotation = Mapping[str, Any]
_Sized = tuple[str, int | None, int | None]  # file name, height, width


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of a file.

    Attributes:
        image_id: Its number in the file.
        name: `file_name` without the extension of an image.
        file_name: The path of its image file below the folder of the images; see `finder`.
        height: Pixels; None if the file does not say.
        width: Pixels; None if the file does not say.
        categories: The ids of the categories of its objects without crowds, sorted.
        digest: Covers the size of the image, and the category, crowd flag and shape of its annotations in their order.
        spans: Where each annotation begins and ends in the file.
        shapeless: The categories of its objects without a shape that could be drawn, such as those with a box only, sorted.
    """

    image_id: int
    name: str
    file_name: str
    height: int | None
    width: int | None
    categories: tuple[int, ...]
    digest: str
    spans: array[int]
    shapeless: tuple[int, ...] = ()


@dataclass(frozen=True)
class Instances:
    """The content of a file.

    Attributes:
        path: The file.
        categories: Category id -> name, in the order of the ids.
        groups: The names of the categories that have no object and are the supercategory of others.
        used: The ids of the categories that have an object or a crowd.
        images: Image id -> image, in the order of the ids.
        ids: Name -> image id.
    """

    path: Path
    categories: dict[int, str]
    groups: tuple[str, ...]
    used: frozenset[int]
    images: dict[int, CocoImage]
    ids: dict[str, int]

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the categories without a background that has no object: it is label 0 by itself."""
        return tuple(
            name for number, name in self.categories.items() if number in self.used or name.strip("_ ").lower() != "background"
        )

    def find(self, word: str) -> CocoImage | None:
        """Look up an image by its name, or by its id in digits."""
        image_id = self.ids.get(nfc(word))
        if image_id is None and re.fullmatch("[0-9]{1,18}", word):
            image_id = int(word)
        return None if image_id is None else self.images.get(image_id)

    def annotations(self, picture: CocoImage) -> list[Annotation]:
        """Read the annotations of one image again, in the file's order. Raises OSError."""
        found = []
        with self.path.open("rb") as file:
            for start, end in zip(picture.spans[::2], picture.spans[1::2], strict=True):
                file.seek(start)
                found.append(json.loads(file.read(end - start).decode("latin-1")))  # as when it was read first
        return found


def read_instances(path: Path, name: str) -> Instances:
    """Read a file of annotations. The result is cached in the process until the file changes.

    Shapes are not checked here: an invalid shape is an error of its image (see `coco_masks`).

    Raises:
        ValueError: if something is missing, unknown or duplicate. The message names the job's field (`name`), the file and the
            record.
    """
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError as err:
        raise ValueError(f"data.{name}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{name}: {path} is not UTF-8 text; save it as UTF-8") from err
    except (json.JSONDecodeError, RecursionError) as err:
        raise ValueError(f"data.{name}: {path}: not JSON: {shown(str(err), 200)}") from err
    except ValueError as err:
        raise ValueError(f"data.{name}: {path}: {shown(str(err), 1000)}") from err


@dataclass
class _Found:
    """The annotations of one image so far: the place of the first one, the categories, a chained digest, and the spans."""

    where: str
    categories: set[int] = field(default_factory=set)
    digest: bytes = b""
    spans: array[int] = field(default_factory=lambda: array("q"))
    shapeless: set[int] = field(default_factory=set)

    def add(self, category: int, record: Mapping[str, Any], where: str) -> None:
        crowd, shape = record.get("iscrowd") or 0, record.get("segmentation")
        if crowd not in (0, 1):
            raise ValueError(f"{where}.iscrowd is {_short(crowd)}; expected 0 or 1")
        if not crowd:
            self.categories.add(category)
            if not is_shape(shape):
                self.shapeless.add(category)
        head = canonical([category, int(crowd)]).encode()
        self.digest = hashlib.sha256(self.digest + head + _packed(shape)).digest()


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Instances:
    names: dict[int, str] = {}
    above: dict[int, Any] = {}  # supercategories
    sizes: dict[int, _Sized] = {}
    annotations: set[int] = set()
    found: dict[int, _Found] = {}
    first: dict[int, str] = {}  # where a category is first used
    known: dict[str, Any] = {"images": sizes, "annotations": annotations, "categories": names}
    text = path.read_bytes().decode("latin-1")  # one character per byte: offsets in the text are offsets in the file
    for kind, place, record, start, end in records_of(text, _LISTS):
        where = f"{kind}[{place}]"
        number = _whole(record, "id", where)
        if number in known[kind]:
            raise ValueError(f"{where}: the id {number} is used twice; give each its own")
        if kind == "annotations":
            annotations.add(number)
            category = _whole(record, "category_id", where)
            first.setdefault(category, where)
            image = found.setdefault(_whole(record, "image_id", where), _Found(where))
            image.add(category, record, where)
            image.spans.extend((start, end))
            continue
        record = json.loads(text[start:end].encode("latin-1"))  # now as UTF-8, for the names
        if kind == "categories":
            names[number], above[number] = _text(record, "name", where), record.get("supercategory")
        else:
            file_name = clean(_text(record, "file_name", where))
            sizes[number] = file_name, _side(record, "height", where), _side(record, "width", where)
    _check_known("category_id", first, names, "categories")
    _check_known("image_id", {image_id: image.where for image_id, image in found.items()}, sizes, "images")
    pictures = _pictures(sizes, found)
    ids: dict[str, int] = {}
    for image_id, picture in pictures.items():
        if (other := ids.setdefault(nfc(picture.name), image_id)) != image_id:
            raise ValueError(f"images {other} and {image_id} are both called {picture.name!r}; rename one of the files")
    members: dict[str, set[int]] = defaultdict(set)
    for number, group in above.items():
        if isinstance(group, str):
            members[group].add(number)
    groups = [name for number, name in names.items() if number not in first and members.get(name, set()) - {number}]
    return Instances(path, dict(sorted(names.items())), tuple(groups), frozenset(first), pictures, ids)


def _pictures(sizes: Mapping[int, _Sized], found: Mapping[int, _Found]) -> dict[int, CocoImage]:
    """Build the images from their records and annotations."""
    pictures, other = {}, home(file_name for file_name, _, _ in sizes.values())
    for image_id in sorted(sizes):
        file_name, height, width = sizes[image_id]
        file_name = file_name.removeprefix(other)
        image = found.get(image_id) or _Found("")
        digest = hashlib.sha256(image.digest + canonical([height, width]).encode()).hexdigest()
        categories, shapeless = tuple(sorted(image.categories)), tuple(sorted(image.shapeless))
        pictures[image_id] = CocoImage(
            image_id, bare(file_name), file_name, height, width, categories, digest, image.spans, shapeless
        )
    return pictures


def is_shape(shape: Any) -> bool:
    """Return True if a value looks like polygons or run lengths. Whether they fit the image is checked when they are drawn."""
    if isinstance(shape, dict):
        return "counts" in shape and "size" in shape
    if not isinstance(shape, list) or not shape:
        return False
    polygons = shape if isinstance(shape[0], list) else [shape]
    return all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


def _packed(shape: Any) -> bytes:
    """Encode a shape independently of how its numbers are written. Polygons, which are most of the data, take a fast path."""
    try:
        return b"".join(struct.pack(f"<q{len(polygon)}d", len(polygon), *polygon) for polygon in shape)
    except (TypeError, struct.error, OverflowError):  # run lengths, or not a shape
        return canonical(shape).encode("utf-8", "surrogatepass")


def _of(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{where} is {_short(record)}; expected an object")
    if name not in record:
        raise ValueError(f"{where} has no {name!r}; add it")
    return record[name]


def _whole(record: Any, name: str, where: str) -> int:
    value = _of(record, name, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{where}.{name} is {_short(value)}; expected a whole number")
    return value


def _side(record: Any, name: str, where: str) -> int | None:
    """Return the height or width of an image in whole pixels; None if the file does not say."""
    value = record.get(name)
    if value is None:
        return None
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(whole, int) or isinstance(whole, bool) or whole < 1:
        raise ValueError(f"{where}.{name} is {_short(value)}; expected a whole number from 1")
    return whole


def _text(record: Any, name: str, where: str) -> str:
    value = _of(record, name, where)
    if not isinstance(value, str) or not value.strip() or (not value.isascii() and _SURROGATE.search(value)):
        raise ValueError(f"{where}.{name} is {_short(value)}; expected a name")
    return value


def _check_known(name: str, used: Mapping[int, str], known: Mapping[int, Any], kind: str) -> None:
    for number, where in used.items():
        if number not in known:
            raise ValueError(f"{where}.{name} is {number}, which is not one of the {len(known)} {kind}; correct it")


def _short(value: Any) -> str:
    return shown(repr(value), 60)
