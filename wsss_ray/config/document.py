"""Read job files: YAML, the file that `base` names, overrides and environment variables. Keep the line of each field."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str, ...]
_MOST_NODES = 100_000


class JobError(ValueError):
    """A job file cannot run. The message has one line per mistake, ready to print."""


@dataclass(frozen=True)
class Document:
    """A job file before validation. `sources` maps each field to the line or the override that sets it."""

    path: str
    values: dict[str, Any]
    sources: dict[Place, str]

    def with_override(self, text: str) -> Document:
        """Return a copy with one override `a.b=value`, as `--set` takes it. The value is YAML. Raises JobError."""
        name, equals, value = text.partition("=")
        if not equals:
            raise JobError(f"--set {text}: write it as field.field=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise JobError(f"--set {text}: the value is not YAML") from error
        return self.with_value(name, parsed, where=f"--set {text}")

    def with_value(self, name: str, value: Any, *, where: str) -> Document:
        """Return a copy in which the field `name` has another value.

        Args:
            name: Dotted path of the field. Missing blocks are created; a number is a position in a list.
            value: Parsed YAML.
            where: Source of the value, such as an option, for error messages.

        Raises:
            JobError: if the path leads through a value that is no block, or to no position of a list.
        """
        path = tuple(name.strip().split("."))
        if not all(path):
            raise JobError(f"{where}: write the field as field.field")
        values = copy.deepcopy(self.values)
        made = [path]
        block: Any = values
        for depth, key in enumerate(path[:-1], start=1):
            if isinstance(block, list):
                block = block[_index(block, key, where)]
            elif block.get(key) is None:
                block[key] = {}
                made.append(path[:depth])
                block = block[key]
            else:
                block = block[key]
            if not isinstance(block, dict | list):
                raise JobError(f"{where}: {'.'.join(path[:depth])} is {block!r}, which has no fields. Set it to a block first.")
        if isinstance(block, list):
            block[_index(block, path[-1], where)] = _apart(value)
        else:
            block[path[-1]] = _apart(value)
        kept = {place: source for place, source in self.sources.items() if place[: len(path)] != path}
        return Document(self.path, values, kept | dict.fromkeys(made, where))

    def expanded(self) -> dict[str, Any]:
        """Return the values with each ${NAME} replaced by the environment variable. Raises JobError if one is not set."""
        try:
            found: dict[str, Any] = _expand_environment(self.values)
        except ValueError as error:
            raise JobError(f"{self.path}: {error}") from error
        return found


def read_document(path: str | Path, overrides: Sequence[str] = (), *, _above: tuple[Path, ...] = ()) -> Document:
    """Read a job file. If it names a `base`, lay it over that file.

    Args:
        path: Job file.
        overrides: Texts `a.b=value`, as `--set` takes them.

    Raises:
        JobError: if the file cannot be read or is no YAML mapping. The message names file and line.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    values, sources = _parse(data, str(path))
    document = Document(str(path), values, sources)
    if (base := document.values.pop("base", None)) is not None:
        document = _over_base(document, base, file, (*_above, file.resolve()))
    for override in overrides:
        document = document.with_override(override)
    return document


def parse_document(data: bytes, name: str) -> Document:
    """Parse a job without `base`, such as the one in a run's folder. Error messages call it `name`. Raises JobError."""
    values, sources = _parse(data, name)
    if "base" in values:
        raise JobError(f"{sources['base',]}: base: is not allowed in this job. Write the fields of the base into it.")
    return Document(name, values, sources)


def to_yaml(values: Mapping[str, Any], *, width: int = 80) -> str:
    """Compose a job file: the fields in their order, folded at `width` columns. `parse_document` reads it.

    Example:
        >>> print(to_yaml({"name": "pets", "run": {"seed": 1}}), end="")
        name: pets
        run:
          seed: 1
    """
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=width)
    return text


def _parse(data: bytes, name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """Return the values of a YAML mapping, and the line that sets each field."""
    try:
        text = data.decode()
        tree = yaml.compose(text)
        if _size(tree, {}) > _MOST_NODES:
            raise JobError(f"{name}: its aliases (*name) multiply to more than {_MOST_NODES} values. Use fewer aliases.")
        values = _apart(yaml.safe_load(text))
        sources = {where: f"{name}:{line}" for where, line in _lines(tree, ())}
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: is not UTF-8 text. Give a job file (YAML).") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        tab = ". Indent with spaces, not tabs." if "\\t" in problem else ""
        raise JobError(f"{name}:{mark.line + 1 if mark else 1}: invalid YAML: {problem}{tab}") from error
    except RecursionError as error:
        raise JobError(f"{name}: an alias (*name) refers to itself. Write a value in its place.") from error
    if not isinstance(values, dict):
        raise JobError(f"{name}:1: is no mapping. A job file has the fields name, method, data and, if needed, run and sweep.")
    duplicate = next(_duplicates(tree, ()), None)
    if duplicate is not None:
        raise JobError(f"{name}:{duplicate[1]}: {duplicate[0]}: is set twice. Remove one.")
    return values, sources


def _over_base(document: Document, base: Any, file: Path, above: tuple[Path, ...]) -> Document:
    where = document.sources.get(("base",), str(file))
    if not isinstance(base, str):
        raise JobError(f"{where}: base: must be the path of another job file, relative to this one")
    under = file.parent / base
    if under.resolve() in above:
        raise JobError(f"{where}: base: {base} leads back to this file. A file cannot be its own base.")
    below = read_document(under, _above=above)
    return Document(document.path, _merge(below.values, document.values), below.sources | document.sources)


def _apart(value: Any) -> Any:
    """Copy a value so that blocks behind a YAML alias are separate. Then an override changes only one of them."""
    if isinstance(value, dict):
        return {key: _apart(part) for key, part in value.items()}
    return [_apart(part) for part in value] if isinstance(value, list) else value


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay a block over another, field by field. An inner block of another kind replaces the one below it."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and _same_kind(below, value):
            value = _merge(below, value)
        merged[key] = value
    return merged


def _same_kind(under: dict[str, Any], over: dict[str, Any]) -> bool:
    return not any(tag in over and tag in under and over[tag] != under[tag] for tag in ("kind", "name"))


def _index(block: list[Any], key: str, where: str) -> int:
    if not key.isdigit() or int(key) >= len(block):
        raise JobError(f"{where}: {key} is no position in a list of {len(block)}. Positions count from 0.")
    return int(key)


def _expand_environment(value: Any) -> Any:
    """Replace ${NAME} in strings. Raises ValueError if a variable is not set."""
    if isinstance(value, dict):
        return {key: _expand_environment(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_expand_environment(part) for part in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"environment variable {match[1]} is not set (used as {match[0]})")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", replace, value)


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Count the values of a document, and those behind an alias once per use. `known` caches counts by node id."""
    if id(node) not in known:
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in below for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _lines(node: yaml.Node | None, path: Place) -> Iterator[tuple[Place, int]]:
    """Yield the path and the line of every key and list item."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*path, str(key.value))
            yield where, key.start_mark.line + 1
            yield from _lines(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            where = (*path, str(index))
            yield where, value.start_mark.line + 1
            yield from _lines(value, where)


def _duplicates(node: yaml.Node | None, path: Place) -> Iterator[tuple[str, int]]:
    """Yield keys that one mapping sets twice, with their lines. YAML readers accept them silently."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = (*path, str(key.value))
            if str(key.value) in seen:
                yield ".".join(where), key.start_mark.line + 1
            seen.add(str(key.value))
            yield from _duplicates(value, where)
