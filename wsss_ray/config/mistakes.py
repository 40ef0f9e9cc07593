"""Describe mistakes in a job file: where it is, which field, what is wrong, and what is allowed. One line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from wsss_ray.config.document import Document
from wsss_ray.config.plain_yaml import Place
from wsss_ray.core.component import Component
from wsss_ray.core.environment import as_written, hidden
from wsss_ray.core.errors import shown

LONGEST = 2000
"""Most characters of a message."""


def explain(error: ValidationError, document: Document, root: type[BaseModel]) -> list[str]:
    """Return one line for each mistake that pydantic found, without what the environment has for `${NAME}`.

    Args:
        error: The error of pydantic.
        document: The job file, which knows the line of each field.
        root: The model of the whole file.

    Example:
        >>> explain(error, document, JobConfig)
        ["job.yaml:7: run.seed: input should be greater than or equal to 0, got -1"]
    """
    found = error.errors(include_url=False)
    inner = {problem["loc"][:end] for problem in found for end in range(len(problem["loc"]))}
    kept = [problem for problem in found if not (problem["type"] == "too_short" and problem["loc"] in inner)]
    return list(dict.fromkeys(_line(problem, document, root) for problem in kept))


def _line(problem: Any, document: Document, root: type[BaseModel]) -> str:
    """Describe one mistake as `file:line: dotted.path: what is wrong and what is allowed`."""
    path, sources, values = tuple(str(part) for part in problem["loc"]), document.sources, document.values
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in sources), None)
    where = sources[known] if known else f"{document.path}:1"
    message = problem["msg"].removeprefix("Value error, ")
    for tag in ("kind", "name"):
        if message.startswith(f"{tag} is "):
            where = sources.get((*path, tag), where)
    if problem["type"] == "extra_forbidden":
        message = f"there is no such field; allowed: {', '.join(_allowed(path[:-1], values, root))}"
    elif problem["type"] == "missing":
        message = "is missing"
    elif problem["type"] == "model_type":
        fields = ", ".join(_allowed(path, values, root))
        message = f"must be a block of fields{f' ({fields})' if fields else ''}"
    elif problem["type"] == "string_pattern_mismatch" and path == ("name",):
        rule = "at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        message = f"{shown(as_written(problem['input']))!r} cannot name a run. Use {rule}."
    elif problem["type"] == "union_tag_invalid":
        allowed = problem["ctx"]["expected_tags"].replace("'", "")
        message = f"kind is {problem['ctx']['tag']!r}, allowed: {allowed}"
    elif problem["type"] == "union_tag_not_found":
        message = "kind is missing"
    elif problem["type"] == "tuple_type":
        message = f"write a list, such as [{_listed(problem['input'])}]"
    else:
        message = hidden(message[0].lower() + message[1:], problem["input"])
        given = as_written(problem["input"])
        if isinstance(given, str | int | float | bool) and repr(given) not in message and "credentials" not in message:
            wrong, stop, mend = message.partition(". ")
            message = f"{wrong}, got {shown(repr(given))}{stop}{mend}"
    return shown(f"{where}: {'.'.join(path)}: {message}", LONGEST)


def _listed(given: Any) -> str:
    """Return what was given in the place of a list, as the items of one: nothing for null, the values of numbered keys."""
    if given is None:
        return ""
    if isinstance(given, dict) and given and all(str(key).isdecimal() for key in given):
        return ", ".join(shown(str(as_written(value)), 40) for value in given.values())
    return shown(str(as_written(given)), 40)


def _allowed(path: Place, document: Any, root: type[BaseModel]) -> list[str]:
    """Return the fields of the block at `path`: those of the kind that the document names, or of the default."""
    model = role = root
    roles: list[type[BaseModel]] = []
    for part in path:
        default = None
        if part in model.model_fields:
            field = model.model_fields[part]
            roles = list(_blocks_of(field.annotation))
            if not roles:  # a field of values: what was given in their place has no fields that could be named
                return []
            role = roles[0]
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            document = document.get(part, {}) if isinstance(document, dict) else {}
        elif isinstance(document, list):  # a block of a list
            document = document[int(part)]
        elif isinstance(document, dict):  # a block of a mapping, or the kind of the block, which pydantic puts into its path
            role = next((one for one in roles if part == document.get("kind") in _kinds_of(one)), role)
            document = document.get(part, document)
        given = document if isinstance(document, dict) else {}
        named = role.kinds().get(str(given.get(role.tag))) if issubclass(role, Component) else None
        model = named or (type(default) if isinstance(default, BaseModel) else role)
    return list(model.model_fields)


def _kinds_of(block: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values of a block's `kind` field, if it has one: those of a Literal."""
    return get_args(block.model_fields["kind"].annotation) if "kind" in block.model_fields else ()


def _blocks_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the block types in a field's annotation: the type itself, the types of a union, or of a list's items."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks_of(part)
