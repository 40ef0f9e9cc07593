"""Running stages in this process, without Ray: the same workers and the same training function."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from wsss_ray.config.job import JobConfig, register
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import Item, ListingDigest
from wsss_ray.engine.records import commit_shards, make_record, missing_shards
from wsss_ray.engine.training import run_training
from wsss_ray.engine.workers import worker_class
from wsss_ray.storage.finished import FileDigest
from wsss_ray.storage.shards import present_shards
from wsss_ray.storage.store import RunStore


def listing_digest(items: Iterable[Item]) -> str:
    """The digest of a listing, as a plan's data has it."""
    listing = ListingDigest()
    for item in items:
        listing.add(item)
    return listing.hexdigest()


def job_of(spec: dict) -> JobConfig:
    register()
    return JobConfig.model_validate(spec)


def run_stage(store: RunStore, stage: Stage, *, micro_batch: int = 64, checkpoint_every: int = 4) -> None:
    began = time.time()
    if stage.kind != "train":
        worker = worker_class(stage)(store, stage)
        for shard in missing_shards(store, stage):
            worker(shard)
        commit_shards(store, stage, started=began, finished=time.time(), max_bad_fraction=0.5)
        return
    found = train_stage(store, stage, micro_batch=micro_batch, checkpoint_every=checkpoint_every)
    counts = {"images": found["images"], "steps": found["steps"], "errors": 0}
    store.commit(stage, make_record(stage, started=began, finished=time.time(), counts=counts, metrics={}))


def train_stage(
    store: RunStore, stage: Stage, *, micro_batch: int = 64, checkpoint_every: int = 4, log_every: int = 1, label_workers: int = 0
) -> dict:
    torch.set_num_threads(1)  # sums over several threads round otherwise; a test compares with workers of one CPU
    return run_training(
        store,
        stage,
        device=torch.device("cpu"),
        rank=0,
        world=1,
        micro_batch=micro_batch,
        loader_workers=0,
        label_workers=label_workers,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
    )


def commit(store: RunStore, stage: Stage, *, known: Mapping[str, FileDigest] | None = None, **changes: object) -> None:
    """Write the record of a stage whose files a test has written."""
    shards = len(present_shards(store, stage))
    counts = {"images": 0, "errors": 0} | ({"steps": 0} if stage.kind == "train" else {"shards": shards})
    store.commit(stage, make_record(stage, started=0.0, finished=1.0, counts=counts, metrics={}) | changes, known)


def recommit(store: RunStore, stage: Stage, **changes: object) -> None:
    """Write the record of a finished stage anew, after a test has changed its files."""
    record = store.record(stage)
    assert record is not None
    store.commit(stage, record | changes)


def run_plan(store: RunStore, plan: Plan, *, last: str | None = None) -> None:
    """Make every missing stage, up to the one named `last`."""
    for stage in plan:
        if store.record(stage) is None:
            run_stage(store, stage)
        if stage.name == last:
            return


def whole_run(folder: Path, spec: dict) -> tuple[RunStore, Plan]:
    """Every stage of a job, made in a store of its own, with its `run.json`."""
    from wsss_ray.runners.execute import begin_run  # here, because the rest needs no Ray

    store, job = RunStore(str(folder)), job_of(spec)
    plan = job.plan()
    begin_run(job, plan, store)
    run_plan(store, plan)
    return store, plan


def stage_named(plan: Plan, name: str) -> Stage:
    return next(stage for stage in plan if stage.name == name)


def execute_here(job: JobConfig, plan: Plan, store: RunStore, display: Any) -> str:
    """What `runners.execute.execute` does, in this process and without Ray."""
    from wsss_ray.runners.execute import begin_run, write_report

    begin_run(job, plan, store)
    with display.meters():
        run_plan(store, plan)
    write_report(job, plan, store)
    return store.run_path(job.name, "report.html")
