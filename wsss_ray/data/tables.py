"""Read tables of images and their tags: CSV, JSON, JSONL and Parquet. A table is read as meant, or refused with the mend.

No tag is invented and none is lost: what could mean two things is an error that names the file, the line and what to write
instead.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from wsss_ray.core.errors import shown
from wsss_ray.data.finder import clean, home
from wsss_ray.data.tags import Table, TagRows, lines_of, read_text

_SPLITS = {
    **dict.fromkeys(("", "train", "training", "weak"), "weak"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": "test",
}
_KNOWN = ("image", "tags", "split")
_BITS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_UNNAMED = re.compile(r"(Unnamed: \d+)?")
_NULLS = ("nan", "NaN", "None", "null", "NULL", "<NA>", "NaT")
_QUOTED = r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\""""
_LIST = re.compile(rf"[\[({{]\s*(?:(?:{_QUOTED})\s*(?:,\s*(?:{_QUOTED})\s*)*,?\s*)?[\])}}]")

Records = Iterator[tuple[int, dict[str, Any]]]
"""The rows of a file as (line, row)."""


def read_tag_table(path: Path, field: str) -> Table:
    """Read a .csv, .json, .jsonl or .parquet table of images and their tags.

    Args:
        path: The file.
        field: The field of the job's `data:` block, for messages.

    Raises:
        ValueError: that names file and line, and says what to write instead.

    Example:
        >>> read_tag_table(Path("tags.csv"), "tags").rows[0].tags
        ('dog', 'person')
    """
    readers: dict[str, Callable[[Path, str], tuple[str, Records]]]
    readers = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data.{field}: {path} has an unknown format; save it as one of {', '.join(readers)}")
    place, records = reader(path, field)
    rows, columns, unnamed = TagRows(str(path), place), None, list[str]()
    for line, record in records:
        if columns is None:
            columns, unnamed = _class_columns(record), [name for name in record if _UNNAMED.fullmatch(name)]
        try:
            _append(rows, record, columns, unnamed, line)
        except ValueError as err:
            raise ValueError(f"{path}{place.format(line=line, image=shown(str(record.get('image'))))}: {err}") from err
    if not rows:
        raise ValueError(f"data.{field}: {path} holds no images; list at least one")
    return Table(rows, tuple(sorted(rows.names | set(columns or ()))), home(row.image for row in rows))


def _class_columns(first: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the 0/1 columns of a table without a column `tags`."""
    if "tags" in first:
        return ()
    return tuple(
        name for name in first if name not in _KNOWN and not name.startswith("__index_level") and not _UNNAMED.fullmatch(name)
    )


def _append(rows: TagRows, record: dict[str, Any], columns: Sequence[str], unnamed: Sequence[str], line: int) -> None:
    """Append a record of a file, given its 0/1 columns and those without a name. Raises ValueError that does not say where."""
    image = record.get("image")
    named = isinstance(image, str) and image.strip()
    if not named and record and all(_is_blank(value) for value in record.values()):
        return  # spreadsheets write empty rows
    for name in unnamed:
        if not (_is_blank(value := record.get(name)) or re.fullmatch(r"\d+(\.0)?", str(value).strip())):
            raise ValueError(f"a column without a name holds {_short(value)}; name the column, or remove it")
    image = clean(named) if named else _image(record)
    if columns and "tags" not in record:
        tags = tuple(name for name in columns if _bit(record.get(name), name))
    elif not columns and "tags" in record:
        tags = _names(record["tags"])
    else:
        raise ValueError("no tags; give a column 'tags' (names with ; between), or one 0/1 column for every class")
    split = "" if _is_blank(record.get("split")) else str(record["split"]).strip().lower()
    if split not in _SPLITS:
        raise ValueError(f"split is {_short(split)}; allowed: train, val, or test (which is left out)")
    rows.append(image, tags, _SPLITS[split], line)


def _image(record: dict[str, Any]) -> str:
    """Return the name of an image that is a number. Raises ValueError if there is no name."""
    if "image" not in record:
        names = shown(", ".join(name or "(no name)" for name in record), 300)
        cut = "; columns are separated by a comma, a semicolon or a tab" if len(record) == 1 else ""
        raise ValueError(f"no image is named; the column must be called 'image' (found: {names}){cut}")
    image = record["image"]
    if _is_blank(image):
        raise ValueError("the cell of 'image' is empty; name the file, or remove the row")
    if not isinstance(image, int) or isinstance(image, bool):
        raise ValueError(f"image is {_short(image)}; write the name of the file as text")
    return str(image)


def _names(value: Any) -> tuple[str, ...]:
    if _is_blank(value):
        return ()
    if isinstance(value, str):
        return _split(value.strip())
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError(f"tags are {_short(value)}; expected names")
    return _different(value)


@lru_cache(maxsize=1 << 14)
def _split(text: str) -> tuple[str, ...]:
    """Split a cell at ; , and |. A list as Python and pandas write it gives its texts."""
    if text[0] in "[({":
        if _LIST.fullmatch(text) is None:
            raise ValueError(f"tags are {_short(text)}, which is no list of quoted names; write the names with ; between")
        return _different([re.sub(r"\\(.)", r"\1", one or two) for one, two in re.findall(_QUOTED, text)])
    return _different(re.split(r"[;,|]", text))


def _different(parts: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    for name in names:
        if name in _NULLS:
            raise ValueError(f"a tag is {_short(name)}, which programs write for an empty cell; leave the cell empty")
        if name[0] in "'\"[](){}" or name[-1] in "'\"[]":
            raise ValueError(f"a tag is {_short(name)}, with a quote or bracket that does not belong to it; write the plain name")
    return names


def _bit(value: Any, column: str) -> bool:
    bit = False if _is_blank(value) else _BITS.get(str(value).strip().lower())
    if bit is None:
        raise ValueError(f"column {_short(column)} holds {_short(value)}; expected 0 or 1. Remove the column if it is no class")
    return bit


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and math.isnan(value))


def _short(value: Any) -> str:
    return shown(repr(value), 60)


def _from_csv(path: Path, field: str) -> tuple[str, Records]:
    return ":{line}", _csv_records(path, field)


def _csv_records(path: Path, field: str) -> Records:
    lines, before = lines_of(path, field), 0
    header, delimiter = next(lines, ""), ""
    if (told := re.fullmatch(r"sep=(.)\s*", header, re.IGNORECASE)) is not None:  # Excel's first line
        header, delimiter, before = next(lines, ""), told[1], 1
    # spreadsheets write ; in languages with a decimal comma
    delimiter = delimiter or max(",;\t", key=lambda mark: (header.count(mark), -",;\t".index(mark)))
    reader = csv.reader(chain([header], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        names = [name or f"Unnamed: {place}" for place, name in enumerate(_columns(next(reader, ()), str(path)))]
        for cells in reader:
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                count = "more" if len(cells) > len(names) else "fewer"
                mend = f"give one per column, and quote any {delimiter!r}"
                raise ValueError(f"{path}:{before + reader.line_num}: {count} cells than the header has; {mend}")
            yield before + reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as err:
        raise ValueError(f"{path}:{before + reader.line_num}: {shown(str(err), 200)}") from err


def _column(name: str) -> str:
    """Strip the name of a column, and put it in lower case if it is a known one."""
    name = name.strip()
    return name.lower() if name.lower() in _KNOWN else name


def _columns(names: Sequence[str], where: str) -> list[str]:
    """Return the names of columns as `_column` does. Raises ValueError if one is there twice."""
    found, seen = [_column(name) for name in names], set[str]()
    for name in found:
        if name and name in seen:
            raise ValueError(f"{where}: column {_short(name)} is there twice; join the two, or rename one")
        seen.add(name)
    return found


def _from_jsonl(path: Path, field: str) -> tuple[str, Records]:
    lines = ((number, line.rstrip("\n")) for number, line in enumerate(lines_of(path, field), start=1) if line.strip())
    return ":{line}", ((number, _record(_parse(line, f"{path}:{number}"), f"{path}:{number}")) for number, line in lines)


def _from_json(path: Path, field: str) -> tuple[str, Records]:
    value = _parse(read_text(path, field), str(path))
    if isinstance(value, dict) and not ({"image", "tags"} <= set(value) and isinstance(value["image"], str)):
        if "images" in value and ("annotations" in value or "categories" in value):
            raise ValueError(f"{path}: is COCO's JSON and no table of tags; use kind: coco, or give its folder to init")
        if isinstance(value.get("image"), dict) or {"columns", "data"} <= set(value):
            raise ValueError(f"{path}: has one entry for each column; write one for each image (orient='records')")
        return ": {image}", ((0, {"image": image, "tags": tags}) for image, tags in value.items())
    records = enumerate(value if isinstance(value, list) else [value])
    return "[{line}]", ((place, _record(record, f"{path}[{place}]")) for place, record in records)


def _from_parquet(path: Path, field: str) -> tuple[str, Records]:
    from wsss_ray.data.parquet_rows import parquet_rows

    return " row {line}", enumerate(parquet_rows(path, f"data.{field}: {path}", lambda names: _columns(names, str(path))))


def _parse(text: str, where: str) -> Any:
    """Parse JSON. Raises ValueError if it is none, or if an object has a key twice."""
    repeated = list[str]()

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return found

    try:
        value = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as err:
        more = "; if every line is an object, name the file .jsonl" if err.msg == "Extra data" else ""
        raise ValueError(f"{where}: not JSON: {shown(str(err), 200)}{more}") from err
    except RecursionError as err:
        raise ValueError(f"{where}: not JSON: it is nested too deeply") from err
    except ValueError as err:  # a number of thousands of digits
        raise ValueError(f"{where}: not JSON: {shown(str(err), 200)}") from err
    if repeated:
        raise ValueError(f"{where}: {_short(repeated[0])} is there twice in one object; join the two, or remove one")
    return value


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'tags'")
    return dict(zip(_columns(list(value), where), value.values(), strict=True))
