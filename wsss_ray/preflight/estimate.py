"""Estimate time, memory and disk of a whole job from a few timed images and steps, and compare them with this machine."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsss_ray.config.resources import Resources, training_share
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.graph import Plan, one_pipeline
from wsss_ray.core.plan import Stage
from wsss_ray.engine.checkpoints import KEPT
from wsss_ray.engine.shard_worker import data_split, needs_model
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.config.run import Execution
    from wsss_ray.preflight.dry_run import Measure
    from wsss_ray.preflight.survey.sizes import Machine

RAY_START = 12.0
"""Seconds to start and stop a private Ray, roughly, on a laptop."""

_STAGE_START = 6.0  # seconds to start training workers or actors, which are processes that import torch


@dataclass(frozen=True)
class JobResources:
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

    @classmethod
    def on(cls, machine: Machine, run: Execution) -> tuple[JobResources, str | None]:
        """Choose the resources that a job gets on a machine.

        Returns:
            The resources, and the reason why the job does not fit the machine, or None. If it does not fit, the resources are
            those of enough machines of this size.
        """
        workers, problem = run.worker_range[1], None
        gpus = len(machine.gpus) if run.gpu is not False else 0
        cpus = int(max(machine.cpus, 2, workers * (run.cpus_per_worker or 1)))
        try:
            share = training_share(run.model_copy(update={"gpu": gpus > 0}), Resources.of_one_machine(cpus=cpus, gpus=gpus))
            threads = max(1, int(share.cpus))
        except ValueError as error:
            threads, problem = max(1, int(run.cpus_per_worker or machine.cpus)), str(error)
        return cls(workers=workers, threads=threads, cpus=cpus, gpus=gpus), problem


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


def estimate(
    plan: Plan, measures: Sequence[Measure], run: Execution, resources: JobResources, *, done: set[str]
) -> list[Estimate]:
    """Estimate every stage of a plan.

    Args:
        plan: The whole plan of the job.
        measures: One measure for each of its stages, from `try_job`.
        run: The job's `run` block.
        resources: The resources that the job gets.
        done: Names of stages that are done. The totals leave them out.

    Returns:
        One estimate per stage, in the order of the plan.
    """
    measured = {measure.stage.name: measure for measure in measures}
    found, before = [], None
    for stage in plan:
        of = _training if stage.kind == "train" else _images
        one = of(stage, measured[stage.name], run, resources, done=stage.name in done)
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


def memory_shortage(estimates: Sequence[Estimate], free: float) -> Estimate | None:
    """Return the stage whose processes take the most memory together if they take more than `free` bytes, or else None."""
    largest = max(estimates, key=lambda one: one.processes * one.resident)
    return largest if largest.processes * largest.resident > free else None


def free_disk(store: RunStore) -> int | None:
    """Return the free bytes of the disk of a local store, which need not exist yet, or None if the store is not local."""
    if not store.is_local:
        return None
    folder = Path(store.path())
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _training(stage: Stage, measure: Measure, run: Execution, resources: JobResources, *, done: bool) -> Estimate:
    learner = stage.component
    assert isinstance(learner, Learner)
    steps = learner.total_steps(data_split(stage).num_images)
    helpers = run.label_workers if isinstance(learner, OnlineSegmenter) else run.loader_workers
    busy = measure.seconds - measure.waiting
    if helpers:
        each = max(busy, measure.waiting / helpers)
    else:  # two batches are made ahead, so the timed step rarely waits; later ones share the cores with the loader
        online = measure.waiting if isinstance(learner, OnlineSegmenter) else 0.0
        each = busy + online + measure.loading / resources.threads
    checkpoints = max(1, min(KEPT, steps // run.checkpoint_every))
    return Estimate(
        name=stage.name,
        done=done,
        work=steps,
        unit="steps",
        each=each,
        seconds=steps * each + measure.start,
        processes=resources.workers,
        resident=measure.resident,
        on_gpu=measure.on_gpu,
        num_bytes=checkpoints * measure.num_bytes + measure.kept,
    )


def _images(stage: Stage, measure: Measure, run: Execution, resources: JobResources, *, done: bool) -> Estimate:
    split = data_split(stage)
    on_gpu = needs_model(stage) and resources.gpus > 0
    fit = max(1, int(resources.gpus / run.gpus_per_image_worker)) if on_gpu else resources.cpus
    _, most = run.image_worker_range or (1, fit)
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
