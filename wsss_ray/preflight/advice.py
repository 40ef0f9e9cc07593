"""Say what would make a job shorter: the stages that take most of the time, and the fields that decide it."""

from __future__ import annotations

from collections.abc import Sequence

from wsss_ray.config.job import JobConfig
from wsss_ray.core.contracts import Learner, Trunk
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.engine.shard_worker import needs_model
from wsss_ray.preflight.estimate import Estimate
from wsss_ray.preflight.lower import field_path
from wsss_ray.reporting.words import percent

_MOST = 3  # stages that are named
_LEAST = 0.1  # share of the time from which a stage is worth a line


def advice(job: JobConfig, plan: Plan, estimates: Sequence[Estimate], *, gpu: bool) -> list[str]:
    """Return a line for each of the stages that take the most time and that a field can make shorter.

    Args:
        job: The job.
        plan: The whole plan of the job.
        estimates: One estimate per stage of the plan.
        gpu: True if networks run on a GPU.

    Example:
        >>> advice(job, plan, estimates, gpu=False)
        ['classifier takes 61 % of the time. Shorter with method.classifier.trunk.frozen: true (the trunk is not trained then).']
    """
    stages = {stage.name: stage for stage in plan}
    total = sum(one.seconds for one in estimates if not one.done) or 1.0
    lines = []
    for one in sorted(estimates, key=lambda one: one.seconds, reverse=True):
        hint = _hint(job, stages[one.name], gpu=gpu)
        if not one.done and one.seconds >= _LEAST * total and hint is not None:
            lines.append(f"{one.name} takes {percent(one.seconds / total)} of the time. Shorter with {hint}.")
    return lines[:_MOST]


def _hint(job: JobConfig, stage: Stage, *, gpu: bool) -> str | None:
    """Return the first field that would make a stage shorter, and what else it changes; None if no field is known."""
    part = stage.component
    path = field_path(job, part)
    if path is None:
        return None
    if not isinstance(part, Learner):
        fields = type(part).model_fields
        if not needs_model(stage):
            return None
        if getattr(part, "flip", False):
            return f"{path}.flip: false (one pass through the network in the place of two; slightly worse)"
        if len(getattr(part, "scales", ())) > 1:
            return f"fewer {path}.scales (slightly worse)"
        return f"a smaller {path}.size (coarser maps)" if "size" in fields and getattr(part, "size", None) else None
    trunk = getattr(part, "trunk", None)
    if trunk is not None and trunk.is_frozen and part.augment.outcomes == "many":
        field = f"{path}.augment: {{kind: warp, size: {getattr(part.augment, 'size', 256)}}}"
        field += " and run.inference: fused" if part.inference == "plain" else ""
        return f"{field} (it reads features that are computed once; less varied samples)"
    if trunk is not None and trunk.is_frozen and part.inference == "plain":
        return "run.inference: fused (the features of a frozen trunk are computed once; the last digits change)"
    if not gpu and trunk is not None and (frozen := _frozen(trunk)) is not None:
        return f"{path}.trunk.frozen: {frozen} and run.inference: fused (only the head is trained then)"
    return f"fewer {path}.{'epochs' if part.steps is None else 'steps'} (now {part.epochs or part.steps:g}; worse)"


def _frozen(trunk: Trunk) -> str | None:
    """Return the value of the field `frozen` that freezes a trunk, or None if it is frozen already or cannot be."""
    for value, text in ((True, "true"), (5, "5")):  # of EfficientNet-Lite0, and of ResNet, which counts parts
        kind = type(trunk).model_fields.get("frozen")
        if kind is not None and kind.annotation is type(value) and not trunk.is_frozen:
            return text if trunk.model_copy(update={"frozen": value}).is_frozen else None
    return None
