"""Read the JSON files of the store. One reader parses and checks them all, and says in one line what is wrong and what to do.

A shape says what a value must be. A type stands for its values (`float` takes integers too), a tuple for one of several shapes, a
list of one shape for a list of such values, a pattern for text that fits it as a whole, and a dictionary for an object: its keys
are required unless they end in `?`, other keys are allowed, and the key `*` stands for all other values.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wsss_ray.core.errors import DamagedFile, shown

_OF_DIGESTS = {"files", "made_from", "digest"}  # fields that records of older versions lack
_FILE = ("name", "size", "sha256")
_DEEPEST = 64  # levels of lists and objects: ours have a dozen, and more would end Python's recursion elsewhere
_OPTIONAL_TEXT = (str, None)
_NAME = re.compile(r"[\w.-]{1,200}")  # of a stage or run: it becomes the name of a file
_NUMBER = (int, float)


@dataclass(frozen=True)
class Document:
    """A kind of JSON file of the store.

    Attributes:
        shape: What its value must be; see this module.
        mend: What a user does about a damaged one.
    """

    shape: Any
    mend: str


_COUNTS = {"errors?": int, "images?": int, "steps?": int, "shards?": int, "*": int}
RECORD = Document(
    {
        "id?": str,
        "kind": str,
        "name?": str,
        "identity": {"component": {"kind": str}},
        "inputs": [[str]],
        "started": str,
        "finished": str,
        "seconds": float,
        "counts": _COUNTS,
        "metrics": {},
        "versions?": {"*": str},
        "files?": list,
        "made_from?": {"*": str},
        "digest?": str,
    },
    "Submit the job again, which makes the stage again.",
)
_SCORES = {"miou": (float, None), "precision": (float, None), "recall": (float, None), "coverage": (float, None), "scored": int}
_STAGE = {"id": _NAME, "name": str, "kind": str, "work?": (int, None)}
_RUN = {
    "name": str,
    "stages": [_STAGE],
    "submitted?": float,
    "attempt?": _OPTIONAL_TEXT,
    "until?": _OPTIONAL_TEXT,
    "job?": str,
}
RUN = Document(_RUN, "Submit the job again.")
ATTEMPT = Document(_RUN | {"first": float, "text": _OPTIONAL_TEXT}, "Submit its job again, or delete it.")
PROBE = Document({"submitted": float}, "Submit the job again.")  # of a run.json, as other machines see it
SWEEP = Document({"total": int, "attempt?": _OPTIONAL_TEXT, "until?": _OPTIONAL_TEXT}, "Submit the sweep again.")
TRIAL = Document(
    {
        "name": str,
        "run": str,
        "seed": int,
        "method": str,
        "parameters": {},
        "state": str,
        "error?": _OPTIONAL_TEXT,
        "metrics": {"*": float},
        "stages": [_NAME],
        "seconds": float,
        "started?": _OPTIONAL_TEXT,
        "finished?": _OPTIONAL_TEXT,
        "progress?": (float, None),
        "published?": (float, None),
    },
    "Delete it and submit the sweep again.",
)
FAILURE = Document(
    {"error": str, "logs?": _OPTIONAL_TEXT, "attempt?": _OPTIONAL_TEXT, "time?": str}, "Submit the job again, which replaces it."
)
CLAIM = Document(
    {
        "attempt": str,
        "machine?": str,
        "pid?": int,
        "started?": _OPTIONAL_TEXT,
        "since?": float,
        "beat?": (str, int),
    },
    "Delete it if no submit is running.",
)
BEGUN = Document({"made_from": {"*": str}, "files": [{"name": str, "size": int, "sha256": str}]}, "Submit the job again.")
CHECK = Document({"stages": {"*": float}, "made": float}, "Check the job again, which replaces it.")
UNCHANGED = Document({"newest": float}, "Delete it.")
LOGGER = Document(
    {"id": _OPTIONAL_TEXT, "job": str, "state": str, "steps": {"*": int}, "done": [str]},
    "Submit the job again, which replaces it.",
)


def parse(data: bytes, path: str, document: Document) -> Any:
    """Parse and check the content of a JSON file.

    Args:
        data: The content.
        path: The path of the file, for messages.
        document: The kind of file.

    Raises:
        DamagedFile: if it is not JSON, or has another shape.

    Example:
        >>> parse(b'{"total": 3}', "runs/many/sweep.json", SWEEP)
        {'total': 3}
    """
    try:
        value = json.loads(data)
        wrong = "" if value is not None else "not JSON"
        if rb"\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text, and could not be written again
    except (ValueError, RecursionError):
        wrong = "not JSON"
    wrong = wrong or ("nested too deep" if _is_deep(value) else _mismatch(value, document.shape, ""))
    if not wrong and document is RECORD:
        wrong = _mismatch_of_record(value)
    if not wrong and document in (RUN, ATTEMPT):
        wrong = next(filter(None, map(_mismatch_of_stage, range(len(value["stages"])), value["stages"])), "")
    if wrong:
        raise DamagedFile(f"{path}: is damaged ({shown(wrong)}). {document.mend}")
    return value


def serialised(value: Any) -> bytes:
    """Return a value as JSON, indented so that people can read it too. What JSON does not know is written as its `str`."""
    return (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def digested(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the digest of all its other fields."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=str))
    plain.pop("digest", None)
    return plain | {"digest": _digest(plain)}


def _digest(record: dict[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_deep(value: Any) -> bool:
    """Return True if lists and objects are nested deeper than any of ours."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        inside = (one for parent in level for one in (parent.values() if isinstance(parent, dict) else parent))
        level = [one for one in inside if isinstance(one, dict | list)]
    return bool(level)


def _mismatch_of_stage(place: int, stage: dict[str, Any]) -> str:
    """Return what is wrong with the parts of a run's stage that depend on each other."""
    if stage["id"].rpartition("-")[0] != stage["kind"]:
        return f"stages[{place}].kind: is not that of {stage['id']}"
    return f"stages[{place}].work: is negative" if (stage.get("work") or 0) < 0 else ""


def _mismatch_of_record(record: dict[str, Any]) -> str:
    """Return what is wrong with the parts of a record that depend on each other."""
    if not _OF_DIGESTS.isdisjoint(record):  # a changed bit may hide one of them
        files = record.get("files", [])
        if not all(isinstance(one, dict) and tuple(map(type, map(one.get, _FILE))) == (str, int, str) for one in files):
            return "files: is not a list of names, sizes and digests"  # checked here, because there may be many
        if record.get("digest") != _digest(record):
            return "its digest differs"
    if any(len(pair) != 2 or not _NAME.fullmatch(pair[1]) for pair in record["inputs"]):
        return "inputs: is not a list of pairs of a role and a stage"
    counts = ("steps", "errors") if record["kind"] == "train" else ("images", "errors", "shards")
    for field in ("started", "finished"):
        try:
            datetime.fromisoformat(record[field])
        except ValueError:
            return f"{field}: is not a time"
    missing = next((name for name in counts if name not in record["counts"]), None)
    if missing is not None:
        return f"counts.{missing}: is missing"
    try:
        json.dumps(record["metrics"], allow_nan=False)
    except ValueError:
        return "metrics: has a number that is not finite"
    return _mismatch(record["metrics"], _SCORES, "metrics") if record["kind"] == "evaluate" else ""


def _mismatch(value: Any, shape: Any, where: str) -> str:
    """Return where a value differs from a shape, and how; "" if it does not."""
    if isinstance(shape, tuple):
        found = [_mismatch(value, one, where) for one in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, re.Pattern):
        return "" if isinstance(value, str) and shape.fullmatch(value) else f"{where or 'the file'}: is not a name"
    if shape is None or isinstance(shape, type):
        fits = value is None if shape is None else isinstance(value, _NUMBER if shape is float else shape)
        fits = fits and not (shape in _NUMBER and isinstance(value, bool))
        return "" if fits else f"{where or 'the file'}: is not {'null' if shape is None else _NAMES[shape]}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where or 'the file'}: is not a list"
        return next((wrong for k, one in enumerate(value) if (wrong := _mismatch(one, shape[0], f"{where}[{k}]"))), "")
    if not isinstance(value, dict):
        return f"{where or 'the file'}: is not an object"
    named = {key.rstrip("?"): key for key in shape}
    for name, key in named.items():
        if name in value:
            wrong = _mismatch(value[name], shape[key], f"{where}.{name}".lstrip("."))
        else:
            wrong = "" if key.endswith("?") or key == "*" else f"{where}.{name}: is missing".lstrip(".")
        if wrong:
            return wrong
    others = (name for name in value if "*" in shape and name not in named)
    return next((wrong for name in others if (wrong := _mismatch(value[name], shape["*"], f"{where}.{name}".lstrip(".")))), "")


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
