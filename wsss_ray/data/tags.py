"""Read lists of images and their tags as people write them: text, CSV, JSON, JSONL and Parquet. Errors name file and line."""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload

from wsss_ray.core.errors import shown
from wsss_ray.data.flat import Texts
from wsss_ray.data.list_lines import of_line

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPLITS = {
    **dict.fromkeys(("", "train", "training", "weak"), "weak"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": "test",
}
_SPLIT_NAMES = ("weak", "val", "test")
_KNOWN = ("image", "tags", "split")
_BITS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


Records = Iterator[tuple[int, dict[str, Any]]]
"""The rows of a file as (line, row), which a reader yields after the words for such a place."""


class TagRow(NamedTuple):
    """One image of a table of tags. `split` is "weak", "val" or "test" (left out).

    `place` says in words where in `file` the row is, such as ":{line}" or ": {image}".
    """

    image: str
    tags: tuple[str, ...]
    split: str
    file: str = ""
    place: str = "{image}"
    line: int = 0

    @property
    def where(self) -> str:
        """Return file and line, for messages."""
        return self.file + self.place.format(line=self.line, image=shown(self.image))


class TagRows(Sequence[TagRow]):
    """The rows of a table, each made when it is asked for: a row takes the name of its image and 17 bytes."""

    def __init__(self, file: str, place: str) -> None:
        self._file, self._place = file, place
        self._images, self._lines, self._splits = Texts(), array("I"), bytearray()
        self._tags, self._known = array("I"), list[tuple[str, ...]]()  # a million rows have few different tags
        self._numbers = dict[tuple[str, ...], int]()

    def append(self, image: str, tags: tuple[str, ...], split: str, line: int) -> None:
        """Append a row."""
        number = self._numbers.setdefault(tags, len(self._known))
        if number == len(self._known):
            self._known.append(tags)
        self._images.append(image)
        self._tags.append(number)
        self._splits.append(_SPLIT_NAMES.index(split))
        self._lines.append(line)

    def of_split(self, split: str) -> Iterator[TagRow]:
        """Yield the rows of one split."""
        number = _SPLIT_NAMES.index(split)
        if number not in self._splits:
            return
        for image, tags, one, line in zip(self._images, self._tags, self._splits, self._lines, strict=True):
            if one == number:
                yield TagRow(image, self._known[tags], split, self._file, self._place, line)

    @property
    def names(self) -> set[str]:
        """Return all names that the tags mention."""
        return {name for tags in self._known for name in tags}

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> TagRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[TagRow]: ...
    def __getitem__(self, place: int | slice) -> TagRow | list[TagRow]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        tags, split = self._known[self._tags[place]], _SPLIT_NAMES[self._splits[place]]
        return TagRow(self._images[place], tags, split, self._file, self._place, self._lines[place])


@dataclass(frozen=True)
class Table:
    """The rows of a table of tags, and all class names that it mentions, sorted."""

    rows: TagRows
    names: tuple[str, ...]


def read_text(path: Path, field: str) -> str:
    """Read a UTF-8 file. Raises ValueError that names the job's field and the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{field}: {path} is not UTF-8 text; save it as UTF-8") from err


def lines_of(path: Path, field: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends, without holding the file. Raises ValueError like `read_text`."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{field}: {path} is not UTF-8 text; save it as UTF-8") from err


def numbered_lines(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each line of a list that is not empty, without its comment (see `list_lines`)."""
    lines = (line for some in lines_of(path, field) for line in some.splitlines())  # which knows more ends of lines
    for number, line in enumerate(lines, start=1):
        text = of_line(line)
        if text:
            yield number, text


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check class names and return them. Raises ValueError on no or too many classes, empty or repeated names, and background."""
    if not names:
        raise ValueError(f"{where}: no class is named; name at least one")
    if len(names) > 254:
        raise ValueError(f"{where}: {len(names)} classes; at most 254, as label maps have 8 bits and 255 means undecided")
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{where}: class {place} has no name; give it one")
        if name in names[:place]:
            raise ValueError(f"{where}: class {shown(repr(name))} is listed twice; remove one")
        if _SURROGATE.search(name):
            raise ValueError(f"{where}: class {shown(repr(name))} is no text in UTF-8; correct its name")
        if name.strip("_").lower() == "background":
            raise ValueError(f"{where}: leave {name!r} out; background is label 0 by itself")
    return tuple(names)


def indices(tags: Sequence[str], classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Convert class names to sorted 0-based indices. Raises ValueError that lists the allowed names."""
    for tag in tags:
        if tag not in classes:
            raise ValueError(f"{where}: unknown class {shown(repr(tag))}; allowed: {shown(', '.join(classes), 1000)}")
    return tuple(sorted({classes.index(tag) for tag in tags}))


def read_tag_table(path: Path, field: str) -> Table:
    """Read a .csv, .json, .jsonl or .parquet table of images and their tags. Raises ValueError that names file and line."""
    readers: dict[str, Callable[[Path, str], tuple[str, Records]]]
    readers = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data.{field}: {path} has an unknown format; save it as one of {', '.join(readers)}")
    place, records = reader(path, field)
    rows, columns = TagRows(str(path), place), None
    for line, record in records:
        if columns is None:
            columns = _class_columns(record)
        try:
            _append(rows, record, columns, line)
        except ValueError as err:
            raise ValueError(f"{path}{place.format(line=line, image=shown(str(record.get('image'))))}: {err}") from err
    if not rows:
        raise ValueError(f"data.{field}: {path} holds no images; list at least one")
    return Table(rows, tuple(sorted(rows.names | set(columns or ()))))


def _class_columns(first: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the 0/1 columns of a table without a column `tags`."""
    if "tags" in first:
        return ()
    return tuple(name for name in first if name not in _KNOWN and not name.startswith("__index_level"))


def _append(rows: TagRows, record: dict[str, Any], columns: Sequence[str], line: int) -> None:
    """Append a record of a file. Raises ValueError that does not say where it is."""
    image = record.get("image")
    if not isinstance(image, str) or not image.strip():
        found = shown(", ".join(map(str, record)), 300)
        raise ValueError(f"no image is named; the column must be called 'image' (found: {found})")
    if columns and "tags" not in record:
        tags = tuple(name for name in columns if _bit(record.get(name), name))
    elif not columns and "tags" in record:
        tags = _names(record["tags"])
    else:
        raise ValueError("no tags; give a column 'tags' (names with ; between), or one 0/1 column for every class")
    split = str(record.get("split") or "").strip().lower()
    if split not in _SPLITS:
        raise ValueError(f"split is {shown(repr(split))}; allowed: train, val, or test (which is left out)")
    rows.append(image.strip().replace("\\", "/").removeprefix("./"), tags, _SPLITS[split], line)


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return _split(value)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError(f"tags are {shown(repr(value))}; expected names")
    return _different(value)


@lru_cache(maxsize=1 << 14)
def _split(text: str) -> tuple[str, ...]:
    return _different(re.split(r"[;,|]", text))


def _different(parts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _bit(value: Any, column: str) -> bool:
    bit = _BITS.get("" if value is None else str(value).strip().lower())
    if bit is None:
        raise ValueError(f"column {shown(repr(column))} holds {shown(repr(value))}; expected 0 or 1")
    return bit


def _from_csv(path: Path, field: str) -> tuple[str, Records]:
    return ":{line}", _csv_records(path, field)


def _csv_records(path: Path, field: str) -> Records:
    lines = lines_of(path, field)
    header = next(lines, "")
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")  # spreadsheets write ; in languages with a decimal comma
    reader = csv.DictReader(chain([header], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
        for record in reader:
            if None in record or None in record.values():
                count = "more" if None in record else "fewer"
                mend = f"give one per column, and quote any {delimiter!r}"
                raise ValueError(f"{path}:{reader.line_num}: {count} cells than the header has; {mend}")
            yield reader.line_num, record
    except csv.Error as err:
        raise ValueError(f"{path}:{reader.line_num}: {shown(str(err), 200)}") from err


def _column(name: str) -> str:
    """Strip the name of a column, and put it in lower case if it is a known one."""
    name = name.strip()
    return name.lower() if name.lower() in _KNOWN else name


def _from_jsonl(path: Path, field: str) -> tuple[str, Records]:
    lines = ((number, line.rstrip("\n")) for number, line in enumerate(lines_of(path, field), start=1) if line.strip())
    return ":{line}", ((number, _record(_parse(line, f"{path}:{number}"), f"{path}:{number}")) for number, line in lines)


def _from_json(path: Path, field: str) -> tuple[str, Records]:
    value = _parse(read_text(path, field), str(path))
    if isinstance(value, dict):
        return ": {image}", ((0, {"image": image, "tags": tags}) for image, tags in value.items())
    records = enumerate(value if isinstance(value, list) else [value])
    return "[{line}]", ((place, _record(record, f"{path}[{place}]")) for place, record in records)


def _from_parquet(path: Path, field: str) -> tuple[str, Records]:
    from wsss_ray.data.parquet_rows import parquet_rows

    return " row {line}", enumerate(parquet_rows(path, f"data.{field}: {path}"))


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:  # also for numbers of thousands of digits
        raise ValueError(f"{where}: not JSON: {shown(str(err), 200)}") from err


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'tags'")
    return value
