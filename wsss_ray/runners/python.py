"""Submit jobs from Python: `wsss_ray.submit`, `submit_sweep` and `resume`. The command line runs the same functions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wsss_ray.config.document import JobError
from wsss_ray.config.job import parse_job
from wsss_ray.config.planning import Job, Overrides, PlannedJob, open_store, plan_job, plan_loaded
from wsss_ray.core.graph import Until
from wsss_ray.deploy.address import join, parse_address
from wsss_ray.inference.attempts import known_attempts
from wsss_ray.inference.run import Run
from wsss_ray.inference.sweep import Sweep
from wsss_ray.reporting.notebook import display_here
from wsss_ray.runners.submit import run_planned, run_planned_sweep
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.trials import ranking


def submit(
    job: Job, overrides: Overrides | None, *, until: Until | None, store: str | os.PathLike[str] | None, address: str | None
) -> Run:
    """Run every missing stage of a job. See `wsss_ray.submit`."""
    planned = plan_job(job, overrides, store=store, until=until)
    if planned.job.sweep is not None:
        path = planned.loaded.document.path
        raise JobError(f"{path}: sweep: is no single run. Call wsss_ray.submit_sweep, or set sweep to None.")
    return _run(planned, address)


def submit_sweep(
    job: Job, overrides: Overrides | None, *, until: Until | None, store: str | os.PathLike[str] | None, address: str | None
) -> Sweep:
    """Run the open trials of a job's sweep. See `wsss_ray.submit_sweep`."""
    planned = plan_job(job, overrides, store=store, until=until)
    if planned.job.sweep is None:
        raise JobError(f"{planned.loaded.document.path}: sweep: is missing. Call wsss_ray.submit for a single run.")
    with _joined(address):
        swept = run_planned_sweep(planned, planned.trials(), display_here())
    return Sweep(planned.name, planned.store, tuple(ranking(swept.rows, planned.loaded.sweep.metrics[0])))


def resume(run: str, store: str | os.PathLike[str], *, until: Until | None, whole: bool, address: str | None) -> Run:
    """Submit the job again that the store keeps with a run. See `wsss_ray.resume`."""
    return _run(plan_again(open_store(os.fspath(store), must_exist=True), run, until=until, whole=whole), address)


def plan_again(store: RunStore, run: str, *, until: Until | None = None, whole: bool = False) -> PlannedJob:
    """Plan the job that the store keeps with a run or a sweep, to resume it.

    Args:
        store: The store.
        run: The name of the run or sweep.
        until: Kind of stage after which to stop. Default: as it was submitted last.
        whole: True runs the whole plan, also if it was submitted with `until`.

    Raises:
        JobError: if the job is no longer valid, or its data cannot be used.
        ValueError: if there is no such run. The message is one line.

    Example:
        >>> plan_again(RunStore("runs"), "pets").plan.until
        'seed'
    """
    sweep = store.run_path(run, "sweep.json")
    if run in store.names(store.path("runs")) and store.exists(sweep):
        before = store.read_json(sweep).get("until")
    else:
        before = known_attempts(store, run)[0].until
    path = store.run_path(run, "job.yaml")
    if not store.exists(path):
        raise JobError(f"{path}: is missing. Submit the job file again.")
    return plan_loaded(parse_job(store.read(path), path), store.uri, None if whole else until or before)


def _run(planned: PlannedJob, address: str | None) -> Run:
    with _joined(address):
        run_planned(planned, display_here())
    return Run(planned.name, planned.store.uri)


@contextmanager
def _joined(address: str | None) -> Iterator[None]:
    """Set RAY_ADDRESS to a running cluster in this block."""
    if address is None:
        yield
        return
    cluster = parse_address(address)
    if cluster.kind == "jobs":
        raise JobError(f"address {address}: Python drives a cluster itself. Give auto or HOST:PORT, or call wsss-ray submit.")
    before = os.environ.get("RAY_ADDRESS")
    join(cluster)
    try:
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before
