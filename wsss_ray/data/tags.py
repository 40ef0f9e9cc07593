"""Lists of images and their tags as people write them: text lists, CSV, JSON, JSONL and Parquet. Errors name file and line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_SPLITS = {
    **dict.fromkeys(("", "train", "training", "weak"), "weak"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": "test",
}
_KNOWN = ("image", "tags", "split")
_BITS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class Row:
    """One image of a table of tags. `where` is the file and line for messages; `split` is "weak", "val" or "test" (left out)."""

    image: str
    tags: tuple[str, ...]
    split: str
    where: str


@dataclass(frozen=True)
class Table:
    """The rows of a table of tags, and all class names that it mentions, sorted."""

    rows: tuple[Row, ...]
    names: tuple[str, ...]


def read_text(path: Path, field: str) -> str:
    """Read a UTF-8 file. Raises ValueError that names the job's field and the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{field}: {path} is not UTF-8 text; save it as UTF-8") from err


def numbered_lines(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of the lines of a list that say something; `#` starts a comment."""
    for number, line in enumerate(read_text(path, field).splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Raise ValueError on no classes, an empty or repeated name, or background as a class; otherwise return them."""
    if not names:
        raise ValueError(f"{where}: no class is named")
    if len(names) > 254:
        raise ValueError(f"{where}: {len(names)} classes; at most 254, as label maps have 8 bits and 255 means undecided")
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{where}: class {place} has no name")
        if name in names[:place]:
            raise ValueError(f"{where}: class {name!r} is there twice")
        if name.strip("_").lower() == "background":
            raise ValueError(f"{where}: leave {name!r} out; background is label 0 by itself")
    return tuple(names)


def indices(tags: Sequence[str], classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Turn class names into sorted 0-based indices. Raises ValueError that lists the allowed names."""
    for tag in tags:
        if tag not in classes:
            raise ValueError(f"{where}: unknown class {tag!r}; allowed: {', '.join(classes)}")
    return tuple(sorted({classes.index(tag) for tag in tags}))


def read_table(path: Path, field: str) -> Table:
    """Read a .csv, .json, .jsonl or .parquet of images and their tags. Raises ValueError naming file and line."""
    try:
        state = path.stat()
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    return _read_table(path, field, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read_table(path: Path, field: str, mtime_ns: int, size: int) -> Table:
    """Read a table once for as long as it stays the same; listing asks several times."""
    readers = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data.{field}: {path} is none of {', '.join(readers)}")
    records = list(reader(path, field))
    columns = _class_columns(records)
    rows = tuple(_row(record, columns, where) for where, record in records)
    if not rows:
        raise ValueError(f"data.{field}: {path} holds no images")
    return Table(rows, tuple(sorted({tag for row in rows for tag in row.tags} | set(columns))))


def _class_columns(records: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    """Name the 0/1 columns of a table that has no column `tags`."""
    if not records or any("tags" in record for _, record in records):
        return ()
    return tuple(name for name in records[0][1] if name not in _KNOWN and not name.startswith("__index_level"))


def _row(record: dict[str, Any], columns: Sequence[str], where: str) -> Row:
    image = record.get("image")
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{where}: no image is named; the column must be called 'image' (found: {', '.join(map(str, record))})")
    if columns:
        tags = tuple(name for name in columns if _bit(record.get(name), name, where))
    elif "tags" in record:
        tags = _names(record["tags"], where)
    else:
        raise ValueError(f"{where}: no tags; give a column 'tags' (names with ; between), or one 0/1 column for every class")
    split = str(record.get("split") or "").strip().lower()
    if split not in _SPLITS:
        raise ValueError(f"{where}: split is {split!r}; allowed: train, val, or test (which is left out)")
    return Row(image.strip().replace("\\", "/").removeprefix("./"), tags, _SPLITS[split], where)


def _names(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = re.split(r"[;,|]", value) if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{where}: tags are {value!r}; expected names")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _bit(value: Any, column: str, where: str) -> bool:
    bit = _BITS.get("" if value is None else str(value).strip().lower())
    if bit is None:
        raise ValueError(f"{where}: column {column!r} holds {value!r}; expected 0 or 1")
    return bit


def _from_csv(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path, field)
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")  # spreadsheets write ; where the comma is decimal
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for record in reader:
            where = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise ValueError(f"{where}: {'more' if None in record else 'fewer'} cells than the header has")
            yield where, {_column(name): value for name, value in record.items()}
    except csv.Error as err:
        raise ValueError(f"{path}:{reader.line_num}: {err}") from err


def _column(name: str) -> str:
    """A column's name; the known ones in any case."""
    name = name.strip()
    return name.lower() if name.lower() in _KNOWN else name


def _from_jsonl(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path, field).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _record(_parse(line, f"{path}:{number}"), f"{path}:{number}")


def _from_json(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    value = _parse(read_text(path, field), str(path))
    if isinstance(value, dict):
        for image, tags in value.items():
            yield f"{path}: {image}", {"image": image, "tags": tags}
        return
    for place, record in enumerate(value if isinstance(value, list) else [value]):
        yield f"{path}[{place}]", _record(record, f"{path}[{place}]")


def _from_parquet(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsss_ray.artifacts import check_plain

    try:
        table = pq.read_table(path)
        check_plain(table.schema, f"data.{field}: {path}")
        records = table.to_pylist()
    except (pa.ArrowException, OSError) as err:
        raise ValueError(f"data.{field}: {path} is no readable Parquet file: {' '.join(str(err).split())[:200]}") from err
    for number, record in enumerate(records):
        yield f"{path} row {number}", record


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise ValueError(f"{where}: no JSON: {err}") from err


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'tags'")
    return value
