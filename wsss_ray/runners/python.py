"""Submit jobs from Python: `wsss_ray.submit`, `submit_sweep` and `resume`. The command line runs the same functions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from wsss_ray.config.document import JobError
from wsss_ray.config.job import parse_job
from wsss_ray.config.planning import Job, Overrides, PlannedJob, open_store, plan, plan_loaded
from wsss_ray.core.graph import Until
from wsss_ray.deploy.address import join, parse_address
from wsss_ray.inference.attempts import known_attempts
from wsss_ray.inference.run import Run
from wsss_ray.inference.sweep import Sweep
from wsss_ray.reporting.doubts import doubts
from wsss_ray.reporting.notebook import display_here
from wsss_ray.runners.submit import finished_stages, run_planned, run_planned_sweep
from wsss_ray.storage.documents import RUN, SWEEP
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.trials import ranking


def submit(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> Run:
    """Run every stage of a job that is not done yet, and wait for the end. Submit again to resume.

    A notebook shows a bar for each stage, a terminal too, and a log a few lines.

    Args:
        job: The path of a job file, or its content as a dictionary.
        set: Fields to set, by dotted path, such as {"run.seed": 1}; or texts as `--set` takes them.
        until: Stop after the last stage of this kind: "localize", "seed" or "train".
        store: Folder or URI of the run store. Default: the job's `run.store`.
        address: A running Ray cluster that this process drives: "auto" or "HOST:PORT". Default: Ray starts on this machine.

    Returns:
        The run.

    Raises:
        JobError: if the job, its data or the store is not valid. The message has one line per mistake.
        StageError: if a stage fails. What was done is kept.

    Example:
        >>> run = wsss_ray.submit("job.yaml", set={"run.seed": 1})
        >>> run.scores["miou"].miou
        0.62
    """
    planned = plan(job, set=set, store=store, until=until)
    if planned.job.sweep is not None:
        path = planned.loaded.document.path
        raise JobError(f"{path}: sweep: is no single run. Call wsss_ray.submit_sweep, or set sweep to None.")
    return _run(planned, address)


def submit_sweep(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> Sweep:
    """Run the trials of a job's sweep that have not ended, and wait for the end. The arguments are those of `submit`.

    Returns:
        The sweep, with a row for each trial. A trial that failed is a row too.

    Raises:
        JobError: if the job, a trial or the store is not valid. The message has one line per mistake.
        StageError: if the sweep itself fails.

    Example:
        >>> sweep = wsss_ray.submit_sweep("jobs/sweeps/demo_theta.yaml", until="seed")
        >>> sweep.rows[0].name, sweep.best.scores["seed_quality"].miou
        ('theta 0.3', 0.55)
    """
    planned = plan(job, set=set, store=store, until=until)
    if planned.job.sweep is None:
        raise JobError(f"{planned.loaded.document.path}: sweep: is missing. Call wsss_ray.submit for a single run.")
    with _joined(address):
        swept = run_planned_sweep(planned, planned.trials(), display_here())
    return Sweep(planned.name, planned.store, tuple(ranking(swept.rows, planned.loaded.sweep.metrics[0])))


def resume(
    run: str,
    store: str | os.PathLike[str] = "runs",
    *,
    until: Until | None = None,
    whole: bool = False,
    address: str | None = None,
) -> Run:
    """Continue a run with the job that its store keeps, and wait for the end.

    Args:
        run: The name of the run.
        store: Folder or URI of the run store.
        until: Stop after the last stage of this kind. Default: as the run was submitted last.
        whole: True runs the whole plan, also if the run was submitted with `until`.
        address: A running Ray cluster that this process drives. See `submit`.

    Raises:
        JobError: if the job is no longer valid, or its data is gone.
        StageError: if a stage fails. What was done is kept.
        ValueError: if the store has no such run.

    Example:
        >>> wsss_ray.submit("job.yaml", until="seed")
        >>> wsss_ray.resume("photos", whole=True).status().state
        'done'
    """
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
        about = store.read_json(sweep, SWEEP)
    else:
        known_attempts(store, run)  # says if there is no such run
        about = store.read_json(store.run_path(run, "run.json"), RUN)
    path, before = store.run_path(run, "job.yaml"), about.get("until")
    if not store.exists(path):
        raise JobError(f"{path}: is missing. Submit the job file again.")
    text = store.read(path)
    if about.get("job") not in (None, sha256(text).hexdigest()):
        raise JobError(f"{path}: is not the job that was submitted. Submit the job's own file.")
    return plan_loaded(parse_job(text, path), store.uri, None if whole else until or before)


def _run(planned: PlannedJob, address: str | None) -> Run:
    display = display_here()
    with _joined(address):
        run_planned(planned, display)
    for line in doubts(finished_stages(planned)):
        display.say(f"warning: {line}")
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
