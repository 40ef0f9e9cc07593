"""Name the fields of a job that lower the memory of a stage, as `--set` takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wsss_ray.config.job import JobConfig
from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner
from wsss_ray.core.plan import Stage
from wsss_ray.engine.shard_worker import needs_model

_SIZES = ("size", "sizes", "scales")  # fields of a component that set how large an image the network sees


def what_to_lower(job: JobConfig, stage: Stage, *, at_a_time: int = 1) -> str:
    """Say which fields lower the memory of a stage.

    Args:
        job: The job.
        stage: The stage in the plan of the job.
        at_a_time: Images of a training that are in memory at a time.
    """
    part = stage.component
    path = field_path(job, part)
    if isinstance(part, Learner):
        fields = ["run.micro_batch"] if at_a_time > 1 else []
        if path is not None and "size" in type(part.augment).model_fields:
            fields.append(f"{path}.augment.size (now {getattr(part.augment, 'size')})")  # noqa: B009  of the kinds that have one
        return _listed(fields or [_max_side(job)])
    sizes = [name for name in _SIZES if path is not None and needs_model(stage) and name in type(part).model_fields]
    return _listed([_max_side(job), *(f"{path}.{name}" for name in sizes)])


def field_path(job: JobConfig, component: Component) -> str | None:
    """Return the dotted path of a component of the job's method, or None if the method makes the component itself.

    Example:
        >>> field_path(job, job.method.localizers[1])
        'method.localizers.1'
    """
    known = list(_components(job.method_as_run, "method"))
    same = [path for path, other in known if other is component] or [path for path, other in known if other == component]
    return same[0] if same else None


def _components(value: Any, path: str) -> Iterator[tuple[str, Component]]:
    if isinstance(value, Component):
        yield path, value
        for name, part in value:
            yield from _components(part, f"{path}.{name}")
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from _components(part, f"{path}.{index}")


def _max_side(job: JobConfig) -> str:
    return f"data.max_side ({'not set' if job.data.max_side is None else f'now {job.data.max_side}'})"


def _listed(fields: list[str]) -> str:
    return f"{', '.join(fields[:-1])}, or {fields[-1]}" if len(fields) > 1 else fields[0]
