"""Read lists of images and their tags as people write them: text, CSV, JSON, JSONL and Parquet. Errors name file and line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SPLITS = {
    **dict.fromkeys(("", "train", "training", "weak"), "weak"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": "test",
}
_KNOWN = ("image", "tags", "split")
_BITS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True, slots=True)
class TagRow:
    """One image of a table of tags. `split` is "weak", "val" or "test" (left out); `at` is its place in `file`, such as ":3"."""

    image: str
    tags: tuple[str, ...]
    split: str
    file: str = ""
    at: str = ""

    @property
    def where(self) -> str:
        """Return file and line, for messages."""
        return self.file + (self.at or self.image)


@dataclass(frozen=True)
class Table:
    """The rows of a table of tags, and all class names that it mentions, sorted."""

    rows: tuple[TagRow, ...]
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
    """Yield (line number from 1, text) of each line of a list that is not empty. `#` starts a comment."""
    for number, line in enumerate(read_text(path, field).splitlines(), start=1):
        text = line.partition("#")[0].strip()
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
            raise ValueError(f"{where}: class {name!r} is listed twice; remove one")
        if name.strip("_").lower() == "background":
            raise ValueError(f"{where}: leave {name!r} out; background is label 0 by itself")
    return tuple(names)


def indices(tags: Sequence[str], classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Convert class names to sorted 0-based indices. Raises ValueError that lists the allowed names."""
    for tag in tags:
        if tag not in classes:
            raise ValueError(f"{where}: unknown class {tag!r}; allowed: {', '.join(classes)}")
    return tuple(sorted({classes.index(tag) for tag in tags}))


def read_tag_table(path: Path, field: str) -> Table:
    """Read a .csv, .json, .jsonl or .parquet table of images and their tags. Raises ValueError that names file and line."""
    readers = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data.{field}: {path} has an unknown format; save it as one of {', '.join(readers)}")
    rows, columns = list[TagRow](), None
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows share tuples: a million rows have few different ones
    for at, record in reader(path, field):
        if columns is None:
            columns = _class_columns(record)
        rows.append(_row(record, columns, str(path), at, same))
    if not rows:
        raise ValueError(f"data.{field}: {path} holds no images; list at least one")
    return Table(tuple(rows), tuple(sorted({tag for tags in same for tag in tags} | set(columns or ()))))


def _class_columns(first: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the 0/1 columns of a table without a column `tags`."""
    if "tags" in first:
        return ()
    return tuple(name for name in first if name not in _KNOWN and not name.startswith("__index_level"))


def _row(
    record: dict[str, Any], columns: Sequence[str], file: str, at: str, same: dict[tuple[str, ...], tuple[str, ...]]
) -> TagRow:
    image, where = record.get("image"), file + at
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{where}: no image is named; the column must be called 'image' (found: {', '.join(map(str, record))})")
    if columns and "tags" not in record:
        tags = tuple(name for name in columns if _bit(record.get(name), name, where))
    elif not columns and "tags" in record:
        tags = _names(record["tags"], where)
    else:
        raise ValueError(f"{where}: no tags; give a column 'tags' (names with ; between), or one 0/1 column for every class")
    split = str(record.get("split") or "").strip().lower()
    if split not in _SPLITS:
        raise ValueError(f"{where}: split is {split!r}; allowed: train, val, or test (which is left out)")
    image = image.strip().replace("\\", "/").removeprefix("./")
    return TagRow(image, same.setdefault(tags, tags), _SPLITS[split], file, at)


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
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")  # spreadsheets write ; in languages with a decimal comma
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
        for record in reader:
            at = f":{reader.line_num}"
            if None in record or None in record.values():
                count = "more" if None in record else "fewer"
                mend = f"give one per column, and quote any {delimiter!r}"
                raise ValueError(f"{path}{at}: {count} cells than the header has; {mend}")
            yield at, record
    except csv.Error as err:
        raise ValueError(f"{path}:{reader.line_num}: {err}") from err


def _column(name: str) -> str:
    """Strip the name of a column, and put it in lower case if it is a known one."""
    name = name.strip()
    return name.lower() if name.lower() in _KNOWN else name


def _from_jsonl(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path, field).split("\n"), start=1):
        if line.strip():
            yield f":{number}", _record(_parse(line, f"{path}:{number}"), f"{path}:{number}")


def _from_json(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    value = _parse(read_text(path, field), str(path))
    if isinstance(value, dict):
        for image, tags in value.items():
            yield f": {image}", {"image": image, "tags": tags}
        return
    for place, record in enumerate(value if isinstance(value, list) else [value]):
        yield f"[{place}]", _record(record, f"{path}[{place}]")


def _from_parquet(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsss_ray.storage.schemas import check_plain

    try:
        table = pq.read_table(path)
        check_plain(table.schema, f"data.{field}: {path}")
        records = (record for batch in table.to_batches(max_chunksize=1024) for record in batch.to_pylist())
        for number, record in enumerate(records):
            yield f" row {number}", record
    except (pa.ArrowException, OSError) as err:
        raise ValueError(f"data.{field}: {path} is not a readable Parquet file: {' '.join(str(err).split())[:200]}") from err


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise ValueError(f"{where}: not JSON: {err}") from err


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'tags'")
    return value
