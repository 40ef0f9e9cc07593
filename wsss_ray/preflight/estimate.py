"""From a few timed images and steps to the time, memory and disk of a whole job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wsss_ray.config.job import Execution
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.plan import Plan, Stage, one_pipeline
from wsss_ray.engine.workers import data_split, needs_model
from wsss_ray.preflight.dry_run import Measure

RAY_START = 12.0
"""Seconds until a private Ray is up and its end; roughly, on a laptop."""

_STAGE_START = 6.0  # a training's workers, or the actors of a per-image stage: processes that import torch
_KEPT = 2  # checkpoints


@dataclass(frozen=True)
class Places:
    """What a job gets: training workers with so many CPUs each, and CPUs and GPUs for what is done to each image."""

    workers: int
    threads: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Estimate:
    """What one stage takes: `each` seconds of an image or step, seconds in all, bytes of memory a process, bytes of disk."""

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
    """An estimate of every stage of the whole plan; those in `done` (names) take nothing more."""
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
    """Of all that is to be made, with the start of Ray."""
    left = [one.seconds for one in estimates if not one.done]
    return sum(left) + RAY_START if left else 0.0


def total_bytes(estimates: Sequence[Estimate]) -> float:
    """Disk that is still to be taken."""
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
    images = min(split.num_images, rounds * split.source.shard_size)  # of the busiest actor
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
