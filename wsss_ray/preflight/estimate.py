"""Estimate time, memory and disk of a whole job from a few timed images and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wsss_ray.config.run import Execution
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.plan import Plan, Stage, one_pipeline
from wsss_ray.engine.workers import data_split, needs_model
from wsss_ray.preflight.dry_run import Measure

RAY_START = 12.0
"""Seconds to start and stop a private Ray, roughly, on a laptop."""

_STAGE_START = 6.0  # seconds to start training workers or actors, which are processes that import torch
_KEPT = 2  # checkpoints of a training that stay on disk


@dataclass(frozen=True)
class Places:
    """The resources of a job.

    Attributes:
        workers: Training workers.
        threads: CPUs of each training worker.
        cpus: CPUs for the stages that handle images one by one.
        gpus: GPUs for those stages.
    """

    workers: int
    threads: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Estimate:
    """The estimate of one stage.

    Attributes:
        name: The name of the stage.
        done: True if the stage is done already.
        work: The number of images or steps.
        unit: "images" or "steps".
        each: Seconds per image or step.
        seconds: Seconds of the whole stage.
        processes: The number of processes that share the stage.
        resident: Bytes of main memory per process.
        on_gpu: Bytes of GPU memory per process.
        num_bytes: Bytes on disk.
    """

    name: str
    done: bool
    work: int
    unit: str
    each: float
    seconds: float
    processes: int
    resident: int
    on_gpu: int
    num_bytes: float


def estimate(plan: Plan, measures: Sequence[Measure], run: Execution, places: Places, *, done: set[str]) -> list[Estimate]:
    """Estimate every stage of a plan.

    Args:
        plan: The whole plan of the job.
        measures: One measure for each of its stages, from `try_job`.
        run: The job's `run` block.
        places: The resources that the job gets.
        done: Names of stages that are done. The totals leave them out.

    Returns:
        One estimate per stage, in the order of the plan.
    """
    measured = {measure.stage.name: measure for measure in measures}
    found, before = [], None
    for stage in plan:
        of = _training if stage.kind == "train" else _images
        one = of(stage, measured[stage.name], run, places, done=stage.name in done)
        joined = before is not None and one_pipeline(before, stage)
        found.append(one if joined else replace(one, seconds=one.seconds + _STAGE_START))
        before = stage
    return found


def total_seconds(estimates: Sequence[Estimate]) -> float:
    """Sum the seconds of all stages that are not done, and the start of Ray."""
    left = [one.seconds for one in estimates if not one.done]
    return sum(left) + RAY_START if left else 0.0


def total_bytes(estimates: Sequence[Estimate]) -> float:
    """Sum the bytes on disk of all stages that are not done."""
    return sum(one.num_bytes for one in estimates if not one.done)


def _training(stage: Stage, measure: Measure, run: Execution, places: Places, *, done: bool) -> Estimate:
    learner = stage.component
    assert isinstance(learner, Learner)
    steps = learner.total_steps(data_split(stage).num_images)
    helpers = run.label_workers if isinstance(learner, OnlineSegmenter) else run.loader_workers
    busy = measure.seconds - measure.waiting
    each = max(busy, measure.waiting / helpers) if helpers else measure.seconds
    checkpoints = max(1, min(_KEPT, steps // run.checkpoint_every))
    return Estimate(
        name=stage.name,
        done=done,
        work=steps,
        unit="steps",
        each=each,
        seconds=steps * each + measure.start,
        processes=places.workers,
        resident=measure.resident,
        on_gpu=measure.on_gpu,
        num_bytes=checkpoints * measure.num_bytes + measure.kept,
    )


def _images(stage: Stage, measure: Measure, run: Execution, places: Places, *, done: bool) -> Estimate:
    split = data_split(stage)
    on_gpu = needs_model(stage) and places.gpus > 0
    fit = max(1, int(places.gpus / run.gpus_per_image_worker)) if on_gpu else places.cpus
    asked = run.image_workers
    most = asked[1] if isinstance(asked, tuple) else asked or fit
    actors = max(1, min(most, split.num_shards))
    rounds = math.ceil(split.num_shards / min(actors, fit))
    images = min(split.num_images, rounds * split.source.shard_size)  # those of the busiest actor
    return Estimate(
        name=stage.name,
        done=done,
        work=split.num_images,
        unit="images",
        each=measure.seconds,
        seconds=images * measure.seconds + measure.start,
        processes=actors,
        resident=measure.resident,
        on_gpu=measure.on_gpu,
        num_bytes=split.num_images * measure.num_bytes,
    )
