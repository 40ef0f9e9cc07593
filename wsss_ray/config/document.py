"""Read job files: YAML, the file that `base` names, overrides and environment variables. Keep the line of each field."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wsss_ray.config.plain_yaml import MOST_BYTES, MOST_LEVELS, Place, YamlError, apart, parse_yaml
from wsss_ray.core.environment import Filled, fill
from wsss_ray.core.errors import shown

_MOST_BASES = 20


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
        where = f"--set {shown(text)}"
        if not equals:
            raise JobError(f"{where}: write it as field.field=value")
        try:
            parsed = parse_yaml(value).values
        except YamlError as error:
            raise JobError(f"{where}: the value is not YAML of a job file: {error}") from error
        return self.with_value(name, parsed, where=where)

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
        if not all(path) or not name.isprintable() or len(path) > MOST_LEVELS:
            raise JobError(f"{where}: write the field as field.field")
        values = apart(self.values)
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
                found = f"{'.'.join(path[:depth])} is {shown(repr(block))}"
                raise JobError(f"{where}: {found}, which has no fields. Set it to a block first.")
        if isinstance(block, list):
            block[_index(block, path[-1], where)] = apart(value)
        else:
            block[path[-1]] = apart(value)
        kept = {place: source for place, source in self.sources.items() if place[: len(path)] != path}
        return Document(self.path, values, kept | dict.fromkeys(made, where))

    def expanded(self) -> dict[str, Any]:
        """Return the values with each ${NAME} replaced by the environment variable. Raises JobError if one is not set."""
        found: dict[str, Any] = self._filled(self.values, (), _is_of_variant)
        return found

    def filled_in(self, keep: Collection[Place]) -> dict[str, Any]:
        """Return the values for a machine with another environment: variables are replaced, except at the places of `keep`.

        Variants of a sweep that set a logger keep them too. Raises JobError if a variable is not set.
        """
        found = self._filled(self.values, (), lambda place: place in keep or _is_of_logger(place))
        filled: dict[str, Any] = _as_text(found)
        return filled

    def _filled(self, value: Any, place: Place, keeps: Callable[[Place], bool]) -> Any:
        """Fill in the variables of all texts but those at places that keep them."""
        if isinstance(value, dict):
            return {key: self._filled(part, (*place, key), keeps) for key, part in value.items()}
        if isinstance(value, list):
            return [self._filled(part, (*place, str(index)), keeps) for index, part in enumerate(value)]
        if not isinstance(value, str) or keeps(place):
            return value
        try:
            return fill(value)
        except ValueError as error:
            above = (place[:end] for end in range(len(place), 0, -1))
            where = next((self.sources[one] for one in above if one in self.sources), self.path)
            raise JobError(f"{where}: {'.'.join(place)}: {error}") from error

    def written(self) -> dict[Place, str]:
        """Return the texts that name environment variables, by their place. The name of the run is not among them."""
        return {place: text for place, text in _written(self.values) if place != ("name",)}


def read_document(path: str | Path, overrides: Sequence[str] = (), *, _above: tuple[Path, ...] = ()) -> Document:
    """Read a job file. If it names a `base`, lay it over that file.

    Args:
        path: Job file.
        overrides: Texts `a.b=value`, as `--set` takes them.

    Raises:
        JobError: if the file cannot be read or is no YAML mapping. The message names file and line.
    """
    file, name = Path(path), shown(str(path), 1000)
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise JobError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    values, sources = _parse(data, name)
    document = Document(name, values, sources)
    if (base := document.values.pop("base", None)) is not None:
        document = _over_base(document, base, file, (*_above, _real(file)))
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
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return text


class _Dumper(yaml.SafeDumper):
    """Write texts with `${NAME}`, never with what the environment has for it."""


_Dumper.add_representer(Filled, lambda dumper, text: dumper.represent_str(text.written))


def _parse(data: bytes, name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """Return the values of a YAML mapping, and the line that sets each field."""
    if len(data) > MOST_BYTES:
        raise JobError(f"{name}: has more than {MOST_BYTES} bytes. A job file is a short text.")
    try:
        parsed = parse_yaml(data.decode())
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: is not UTF-8 text. Give a job file (YAML).") from error
    except YamlError as error:
        raise JobError(f"{name}{f':{error.line}' if error.line else ''}: {error}") from error
    if not isinstance(parsed.values, dict):
        raise JobError(f"{name}:1: is no mapping. A job file has the fields name, method, data and, if needed, run and sweep.")
    return parsed.values, {where: f"{name}:{line}" for where, line in parsed.lines.items()}


def _over_base(document: Document, base: Any, file: Path, above: tuple[Path, ...]) -> Document:
    where = document.sources.get(("base",), str(file))
    if not isinstance(base, str) or not base or "\0" in base:
        raise JobError(f"{where}: base: must be the path of another job file, relative to this one")
    under = file.parent / base
    if _real(under) in above:
        raise JobError(f"{where}: base: {shown(base)} leads back to this file. A file cannot be its own base.")
    if len(above) > _MOST_BASES:
        raise JobError(f"{where}: base: more than {_MOST_BASES} files lie under this job. Use fewer.")
    below = read_document(under, _above=above)
    return Document(document.path, _merge(below.values, document.values), below.sources | document.sources)


def _real(path: Path) -> Path:
    """Return a path without links. Links in a circle stay: they cannot be read."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


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
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(block):
        raise JobError(f"{where}: {shown(key)} is no position in a list of {len(block)}. Positions count from 0.")
    return int(key)


def _is_of_variant(place: Place) -> bool:
    """Return True for the values that a sweep sets: they keep ${NAME} until they are fields of a trial's own job."""
    set_by_trial = place[:2] == ("sweep", "trials") and place[3:4] == ("set",)
    return set_by_trial or (place[:2] == ("sweep", "space") and place[3:4] in (("grid",), ("choice",)))


def _is_of_logger(place: Place) -> bool:
    """Return True for the values of a sweep that set a field of a logger, such as the address of its server."""
    return _is_of_variant(place) and any(name.startswith("run.loggers") for name in place)


def _as_text(value: Any) -> Any:
    """Return a value whose texts no longer tell how they were written."""
    if isinstance(value, dict):
        return {key: _as_text(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_as_text(part) for part in value]
    return str(value) if isinstance(value, str) else value


def _written(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield the place of each text that names a variable, and the text."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _written(part, (*place, str(key)))
    elif isinstance(value, str) and "${" in value:
        yield place, value
