"""Job files: YAML to a validated value, with errors that name the line, the field, and what is allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsss_ray.component import Component
from wsss_ray.contracts import Method
from wsss_ray.data import load_sources
from wsss_ray.data.source import Source, stages_of
from wsss_ray.methods import methods
from wsss_ray.nets import load_trunks
from wsss_ray.plan import Plan, reseed


class JobError(ValueError):
    """A job file that cannot run: one line per mistake, ready to print."""


class Execution(BaseModel):
    """The `run` block: where and how wide. Nothing but `seed` changes a number or is part of stage ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="The job's random seed; part of the identity of train and localize stages.")
    store: str = Field(default="runs", min_length=1, description="Folder or URI (s3://, gs://) of the run store.")
    workers: int = Field(default=1, ge=1, description="Training workers (processes, one GPU each where there are GPUs).")
    cpus_per_worker: float | None = Field(default=None, gt=0, description="CPUs of a training worker; null: an even share.")
    gpu: bool | None = Field(default=None, description="Use GPUs; null: if the cluster has any.")
    micro_batch: int = Field(default=64, ge=1, description="Images that a worker holds at a time; changes memory, not results.")
    loader_workers: int = Field(default=0, ge=0, description="Processes that decode images ahead of each training worker.")
    label_workers: int = Field(default=0, ge=0, description="Processes that make online labels (RRM) beside each training worker.")
    image_workers: int | None = Field(default=None, ge=1, description="Actors of a per-image stage; null: by the cluster's size.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between training checkpoints.")
    log_every: int = Field(default=20, ge=1, description="Steps between lines of metrics.jsonl.")
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1, description="Share of images that may fail in a stage.")
    max_failures: int = Field(default=3, ge=0, description="Worker failures that a training survives.")


class JobConfig(BaseModel):
    """A job: what to compute (`method`, `data`, `run.seed`) and how to run it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the run: its folder in the store.")
    method: Method
    data: Source
    run: Execution = Execution()

    @field_validator("method", "data", mode="before")
    @classmethod
    def _named(cls, value: Any, info: Any) -> Any:
        role: type[Method] | type[Source] = Method if info.field_name == "method" else Source
        if isinstance(value, str):
            raise ValueError(f"is a block; write {{{role.tag}: {value}}}, with its fields behind that")
        if isinstance(value, dict) and role.tag not in value:
            raise ValueError(f"{role.tag} is missing, allowed: {', '.join(role.kinds())}")
        return value

    @field_validator("run", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    def plan(self) -> Plan:
        """List the data and lay out the stages. Reads directories and lists, no image. Raises ValueError."""
        return Plan.of(reseed(self.method.plan(stages_of(self.data)), self.run.seed))

    def spec(self) -> dict[str, Any]:
        """The whole job with every default spelt out."""
        return {
            "name": self.name,
            "method": self.method.spec(),
            "data": self.data.spec(),
            "run": self.run.model_dump(),
        }


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read and validate a job file. Raises JobError with a line per mistake."""
    register()
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        lines = dict(_lines(yaml.compose(text), ()))
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "is not YAML"
        tab = " (YAML wants spaces, not tabs)" if "\\t" in problem else ""
        raise JobError(f"{path}:{mark.line + 1 if mark else 1}: {problem}{tab}") from error
    except RecursionError as error:
        raise JobError(f"{path}: an alias (*name) refers to itself") from error
    if not isinstance(document, dict):
        raise JobError(f"{path}:1: a job file is a mapping with the blocks name, method, data and run")
    duplicate = next((key for key in _duplicates(yaml.compose(text), ())), None)
    if duplicate is not None:
        raise JobError(f"{path}:{duplicate[1]}: {duplicate[0]}: is there twice")
    sources = {where: f"{path}:{line}" for where, line in lines.items()}
    for override in overrides:
        sources |= dict.fromkeys(_override(document, override), f"--set {override}")
    try:
        return JobConfig.model_validate(_expand_environment(document))
    except ValidationError as error:
        problems = [_explain(problem, sources, str(path), document) for problem in error.errors(include_url=False)]
        raise JobError("\n".join(dict.fromkeys(problems))) from error
    except ValueError as error:
        raise JobError(f"{path}: {error}") from error


def register() -> None:
    """Import every method, network and data source, so that job files can name them."""
    methods()
    load_trunks()
    load_sources()


def _override(document: dict[str, Any], text: str) -> list[tuple[str, ...]]:
    """Apply one `a.b=value`, the value being YAML. Returns the path, and those of the blocks it made on the way."""
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise JobError(f"--set {text}: write it as field.field=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise JobError(f"--set {text}: the value is not YAML") from error
    block: Any = document
    made = [path]
    for depth, key in enumerate(path[:-1], start=1):
        inner = block.get(key)
        if not isinstance(inner, dict):
            inner = block[key] = {}
            made.append(path[:depth])
        block = inner
    block[path[-1]] = parsed
    return made


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


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The line of every key, by path."""
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


def _duplicates(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Keys given twice in one mapping, which YAML readers let pass."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = (*path, str(key.value))
            if str(key.value) in seen:
                yield ".".join(where), key.start_mark.line + 1
            seen.add(str(key.value))
            yield from _duplicates(value, where)


def _explain(problem: Any, sources: dict[tuple[str, ...], str], file: str, document: Any) -> str:
    """One mistake as `file:line: dotted.path: what is wrong and what is allowed`."""
    path = tuple(str(part) for part in problem["loc"])
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in sources), None)
    where = sources[known] if known else f"{file}:1"
    message = problem["msg"].removeprefix("Value error, ")
    for tag in ("kind", "name"):
        if message.startswith(f"{tag} is "):
            where = sources.get((*path, tag), where)
    if problem["type"] == "extra_forbidden":
        message = f"there is no such field; allowed: {', '.join(_allowed(path[:-1], document))}"
    elif problem["type"] == "missing":
        message = "is missing"
    elif problem["type"] == "tuple_type":
        message = f"write a list, such as [{problem['input']}]"
    else:
        message = message[0].lower() + message[1:]
        given = problem.get("input")
        if isinstance(given, str | int | float | bool) and repr(given) not in message:
            message += f", got {given!r}"
    return f"{where}: {'.'.join(path)}: {message}"


def _allowed(path: tuple[str, ...], document: Any) -> list[str]:
    """The fields of the block at `path`: of the kind that the document names, or of the default that stands there."""
    model: type[BaseModel] = JobConfig
    for part in path:
        field = model.model_fields[part]
        document = document.get(part, {}) if isinstance(document, dict) else {}
        role = next((t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)), None)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        assert role is not None
        named = role.kinds().get(document.get(role.tag)) if issubclass(role, Component) else None
        model = named or (type(default) if isinstance(default, BaseModel) else role)
    return list(model.model_fields)
