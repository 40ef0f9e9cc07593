"""Run planned jobs and sweeps: what the command `submit` and `wsss_ray.submit` have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from wsss_ray.config.document import JobError
from wsss_ray.config.job import TrialJob
from wsss_ray.config.planning import PlannedJob, check_loggers
from wsss_ray.core.counted import counted
from wsss_ray.core.graph import Plan
from wsss_ray.reporting.doubts import Named
from wsss_ray.reporting.progress import Display
from wsss_ray.storage.claims import attempt
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.trials import TrialRow


def run_planned(planned: PlannedJob, display: Display) -> str:
    """Run every missing stage of a job without a sweep.

    Args:
        planned: The job.
        display: Shows progress.

    Returns:
        Path of the report.

    Raises:
        JobError: if a logger of the job cannot be used here.
        StageError: if a stage failed, or cannot run here. What was done stays in the store.

    Example:
        >>> run_planned(plan("jobs/demo.yaml", until="seed"), Display())
        '/home/me/runs/runs/demo/report.html'
    """
    from wsss_ray.runners.execute import execute

    check_loggers(planned.job)
    stages = f"{counted(len(planned.plan.stages), 'stage')}, {planned.done} done"
    for line in (f"{planned.name}: {stages}, store {planned.store.uri}", *planned.data):
        display.say(line)
    return execute(planned.job, planned.plan, planned.store, display)


def finished_stages(planned: PlannedJob) -> list[Named]:
    """Return the names and records of the stages of a job that are done, in the order of its plan.

    Example:
        >>> [name for name, _ in finished_stages(plan("jobs/demo.yaml"))]
        ['images-weak', 'classifier']
    """
    finished = Finished(planned.store)
    finished.look_at(planned.plan)
    return [(stage.name, record) for stage in planned.plan if (record := finished.record(stage)) is not None]


@dataclass(frozen=True)
class Swept:
    """The result of a sweep: the rows of its trials, and where the workers' output is."""

    rows: Sequence[TrialRow]
    logs: str


def run_planned_sweep(planned: PlannedJob, trials: Sequence[tuple[TrialJob, Plan]], display: Display) -> Swept:
    """Run the trials of a job's sweep that have not ended.

    Args:
        planned: The job with the sweep.
        trials: Its trials, as `PlannedJob.trials` returns them.
        display: Shows progress.

    Raises:
        JobError: if the search is not installed, or the GPUs do not suffice.
        StageError: if the sweep itself fails. A trial that fails is a row.

    Example:
        >>> planned = plan("jobs/sweeps/demo_theta.yaml", until="seed")
        >>> run_planned_sweep(planned, planned.trials(), Display()).rows[0].state
        'done'
    """
    from wsss_ray.runners.sweep import run_sweep
    from wsss_ray.runners.trial import SweepRun

    check_loggers(planned.job)
    for line in planned.unread:
        display.say(line)
    work = SweepRun(
        sweep_job=planned.loaded,
        trials=tuple(trials),
        store=planned.store,
        data=planned.listed[planned.job.data] if planned.loaded.sweep.learns else None,
        attempt=f"{attempt()} {time.time_ns()}",  # a restarted container may have the same process id
        cut=planned.plan.until,
    )
    try:
        return Swept(run_sweep(work, display), work.logs)
    except JobError:
        raise
    except ValueError as error:
        raise JobError(f"{planned.loaded.document.path}: {error}") from error
