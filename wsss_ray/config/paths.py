"""Find the local paths of a job. They may not exist in another working folder or on another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss_ray.config.job import JobConfig
from wsss_ray.core.component import Component
from wsss_ray.nets.weights import Weights

_FROM_HERE = {"folder": ("root", "tags", "val", "masks", "saliency")}  # in other sources, all paths lie below `root`


def local_paths(job: JobConfig) -> Iterator[tuple[str, str]]:
    """Yield field and path of the store (if a folder), the data and files of weights. Skip paths below another of these."""
    if "://" not in job.run.store:
        yield "run.store", job.run.store
    for name in _data_fields(job):
        yield f"data.{name}", getattr(job.data, name)
    yield from _weights("method", job.method)


def located(job: JobConfig) -> JobConfig:
    """Return the job with absolute data paths, for workers with another working directory."""
    absolute = {name: str(Path(getattr(job.data, name)).expanduser().absolute()) for name in _data_fields(job)}
    return job.model_copy(update={"data": job.data.model_copy(update=absolute)}) if absolute else job


def _data_fields(job: JobConfig) -> list[str]:
    names = _FROM_HERE.get(job.data.kind(), ("root",))
    return [name for name in names if isinstance(getattr(job.data, name, None), str)]


def _weights(field: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Weights):
        if value.is_file:
            yield f"{field}.source", value.source
    elif isinstance(value, Component):
        for name, part in value:
            yield from _weights(f"{field}.{name}", part)
    elif isinstance(value, tuple | list):
        for place, part in enumerate(value):
            yield from _weights(f"{field}.{place}", part)
