"""Find the local paths of a job. They may not exist in another working folder or on another machine.

The marks `LocalPath` on the fields of data sources, networks and other parts tell which fields hold paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss_ray.config.job import JobConfig
from wsss_ray.core.component import Component, LocalPath


def local_paths(job: JobConfig) -> Iterator[tuple[str, str]]:
    """Yield field and path of the store (if a folder), and of every path of the data and the method.

    A relative path that starts in the folder of another field stays with that folder, and is left out.
    """
    if "://" not in job.run.store:
        yield "run.store", job.run.store
    yield from _paths("data", job.data)
    yield from _paths("method", job.method)


def located(job: JobConfig) -> JobConfig:
    """Return the job with absolute data paths, for workers with another working directory."""
    return job.model_copy(update={"data": _located(job.data)})


def _paths(field: str, value: Any, mark: LocalPath | None = None, folder: str = "") -> Iterator[tuple[str, str]]:
    """Yield field and path below a field. A path with the mark that is relative starts in `folder`."""
    if isinstance(value, Component):
        for name, part in value:
            inner = _mark(value, name)
            below = getattr(value, inner.below) if inner is not None and inner.below else None
            yield from _paths(f"{field}.{name}", part, inner, below or "")
    elif isinstance(value, tuple | list):
        for place, part in enumerate(value):
            yield from _paths(f"{field}.{place}", part, mark, folder)
    elif mark is not None and _is_path(value, mark):
        path = Path(value).expanduser()
        if mark.below is None or path.is_absolute():
            yield field, value
        elif ".." in path.parts:  # it may lead out of the folder
            yield field, os.path.normpath(Path(folder, value))


def _located(value: Any, mark: LocalPath | None = None) -> Any:
    """Make the paths in a value absolute, except those that start in the folder of another field."""
    if isinstance(value, Component):
        return value.model_copy(update={name: _located(part, _mark(value, name)) for name, part in value})
    if isinstance(value, tuple):
        return tuple(_located(part, mark) for part in value)
    if mark is None or not _is_path(value, mark):
        return value
    path = Path(value).expanduser()
    return str(path.absolute()) if mark.below is None or path.is_absolute() else value


def _mark(owner: Component, name: str) -> LocalPath | None:
    return next((mark for mark in type(owner).model_fields[name].metadata if isinstance(mark, LocalPath)), None)


def _is_path(value: Any, mark: LocalPath) -> bool:
    return isinstance(value, str) and value not in mark.unless
