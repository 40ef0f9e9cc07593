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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from wsss_ray.core.component import canonical
from wsss_ray.core.errors import shown

_LISTS = ("images", "annotations", "categories")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may have half of a pair, which no text and no file's name can hold
_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = "\xef\xbb\xbf"  # the byte order mark of UTF-8, read as Latin-1

Annotation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of a file. `name` is the path of its image file without the extension.

    `tags` are the classes of its objects without crowds, as sorted indices into the file's categories. `digest` covers the size
    of the image, and the category, crowd flag and shape of its annotations in their order. `spans` holds where each annotation
    begins and ends in the file.
    """

    image_id: int
    name: str
    file_name: str
    height: int
    width: int
    tags: tuple[int, ...]
    digest: str
    spans: array[int]


@dataclass(frozen=True)
class Instances:
    """The content of a file: category id -> name and image id -> image, both in the order of the ids, and name -> image id."""

    path: Path
    categories: dict[int, str]
    images: dict[int, CocoImage]
    ids: dict[str, int]

    def find(self, word: str) -> CocoImage | None:
        """Look up an image by its name, or by its id in digits."""
        image_id = self.ids.get(word)
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

    def add(self, category: int, record: Mapping[str, Any], where: str) -> None:
        crowd = record.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"{where}.iscrowd is {_short(crowd)}; expected 0 or 1")
        if not crowd:
            self.categories.add(category)
        head = canonical([category, int(crowd)]).encode()
        self.digest = hashlib.sha256(self.digest + head + _packed(_of(record, "segmentation", where))).digest()


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Instances:
    names: dict[int, str] = {}
    sizes: dict[int, tuple[str, int, int]] = {}
    annotations: set[int] = set()
    found: dict[int, _Found] = {}
    first: dict[int, str] = {}  # where a category is first used
    known: dict[str, Any] = {"images": sizes, "annotations": annotations, "categories": names}
    text = path.read_bytes().decode("latin-1")  # one character per byte: offsets in the text are offsets in the file
    for kind, place, record, start, end in _records(text):
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
            names[number] = _text(record, "name", where)
        else:
            sides = (_whole(record, "height", where, least=1), _whole(record, "width", where, least=1))
            sizes[number] = (_text(record, "file_name", where), *sides)
    _check_known("category_id", first, names, "categories")
    _check_known("image_id", {image_id: image.where for image_id, image in found.items()}, sizes, "images")
    categories = dict(sorted(names.items()))
    pictures = _pictures(sizes, found, {category: tag for tag, category in enumerate(categories)})
    ids: dict[str, int] = {}
    for image_id, picture in pictures.items():
        if (other := ids.setdefault(picture.name, image_id)) != image_id:
            raise ValueError(f"images {other} and {image_id} are both called {picture.name!r}; rename one of the files")
    return Instances(path, categories, pictures, ids)


def _pictures(
    sizes: Mapping[int, tuple[str, int, int]], found: Mapping[int, _Found], tag_of: Mapping[int, int]
) -> dict[int, CocoImage]:
    """Build the images from their records and annotations."""
    pictures = {}
    for image_id in sorted(sizes):
        file_name, height, width = sizes[image_id]
        image = found.get(image_id) or _Found("")
        path = PurePosixPath(file_name)
        tags = tuple(sorted(tag_of[category] for category in image.categories))
        digest = hashlib.sha256(image.digest + canonical([height, width]).encode()).hexdigest()
        name = str(path.parent / path.stem)
        pictures[image_id] = CocoImage(image_id, name, file_name, height, width, tags, digest, image.spans)
    return pictures


class _Cursor:
    """A position in a JSON text. Its methods raise JSONDecodeError if the text is not what they expect."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = len(_BOM) if text.startswith(_BOM) else 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Skip white space; return the next character, or an empty string at the end."""
        space = _SPACE.match(self.text, self.at)
        assert space is not None
        self.at = space.end()
        return self.text[self.at : self.at + 1]

    def mark(self, allowed: str) -> str:
        """Read one character, which must be in `allowed`."""
        found = self.peek()
        if not found or found not in allowed:
            raise json.JSONDecodeError(f"Expecting {' or '.join(allowed)}", self.text, self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """Read a whole value."""
        self.peek()
        value, self.at = self._decode(self.text, self.at)
        return value

    def members(self, start: str, end: str) -> Iterator[None]:
        """Yield before every member of an object or list; the caller must read the member."""
        self.mark(start)
        if self.peek() == end:
            self.at += 1
            return
        while True:
            yield
            if self.mark("," + end) == end:
                return


def _records(text: str) -> Iterator[tuple[str, int, Any, int, int]]:
    """Yield every record of the three lists: name of the list, index in it, the record, its start and its end in the text."""
    cursor, missing = _Cursor(text), list(_LISTS)
    for _ in cursor.members("{", "}"):
        key = cursor.value()
        cursor.mark(":")
        if key not in missing:
            cursor.value()
            continue
        missing.remove(key)
        for place, _ in enumerate(cursor.members("[", "]")):
            cursor.peek()
            start = cursor.at
            yield key, place, cursor.value(), start, cursor.at
    if cursor.peek():
        raise json.JSONDecodeError("Extra data", text, cursor.at)
    if missing:
        raise ValueError(f"there is no {missing[0]!r}; expected {', '.join(_LISTS)}, as in COCO's instances_*.json")


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


def _whole(record: Any, name: str, where: str, *, least: int | None = None) -> int:
    value = _of(record, name, where)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise ValueError(f"{where}.{name} is {_short(value)}; expected a whole number{'' if least is None else f' from {least}'}")
    return value


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
