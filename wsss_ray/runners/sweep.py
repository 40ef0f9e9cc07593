"""Run the trials of a sweep on Ray Tune. Each trial runs the missing stages of its plan; a shared stage runs in the first.

The result of each trial is in the store, as `runs/SWEEP/trials/<run>.json`. Tune's own experiment state is deleted. A sweep that
is submitted again finds its finished trials in the store and runs the others, whose stages resume where they were.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from wsss_ray.config.document import parse_document, to_yaml
from wsss_ray.config.job import TrialJob
from wsss_ray.config.population import first_generation, next_generation, trial_of_member
from wsss_ray.config.resources import Resources
from wsss_ray.config.sweep import Asha, Pbt
from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.graph import Plan
from wsss_ray.engine.records import StageError
from wsss_ray.reporting.loggers import Logger
from wsss_ray.reporting.progress import Display
from wsss_ray.reporting.report.sweep_page import build_sweep
from wsss_ray.runners.cluster import keep_logs, ray_session
from wsss_ray.runners.execute import begin_run, pending, write_report
from wsss_ray.runners.follow import logged
from wsss_ray.runners.trial import SweepRun, row_path, trial_row
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.documents import TRIAL
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.trials import TrialRow, ranking, to_table


def run_sweep(work: SweepRun, display: Display) -> list[TrialRow]:
    """Run every trial that has not ended. A trial that fails does not stop the others.

    Write `trials.parquet`, `report.html` and `best.yaml` (the best trial's job, ready to submit) to the sweep's folder.

    Args:
        work: Sweep with its trials.
        display: Shows progress.

    Returns:
        The rows of all trials.

    Raises:
        ValueError: if the search is not installed, or the GPUs do not suffice for `sweep.max_concurrent`.
        StageError: if the sweep itself fails.

    Example:
        >>> rows = run_sweep(work, Display())
        >>> rows[0].name, rows[0].state
        ('theta 0.1', 'done')
    """
    store, name = work.store, work.sweep_job.job.name
    job_yaml = to_yaml(work.sweep_job.document.values)
    sweep = work.sweep_job.sweep
    generations = sweep.scheduler.generations if isinstance(sweep.scheduler, Pbt) else 1
    with ExitStack() as stack:
        _claim(stack.enter_context(Claims(store, work.attempt)), work, display)
        store.write(store.run_path(name, "job.yaml"), job_yaml.encode())
        about = {"name": name, "submitted": time.time(), "attempt": work.attempt, "total": generations * _size(work)}
        about |= {"until": work.cut}
        store.write_json(store.run_path(name, "sweep.json"), about)
        session = _Session(work, display, stack)
        if isinstance(sweep.scheduler, Pbt):
            rows = _run_generations(session, sweep.scheduler)
        elif work.searches:
            session.run(work, [], max(0, sweep.samples - len(_known(work))))
            rows = _known(work)
        else:
            rows = session.run_open(work)
        _write_results(work, rows, job_yaml)
    return rows


def _claim(claims: Claims, work: SweepRun, display: Display) -> None:
    """Wait until no other submit runs this sweep, and delete the state of Ray Tune that a killed one has left."""
    store, name = work.store, work.sweep_job.job.name
    holder = claims.take(f"sweep-{name}")
    if holder is not None:
        display.say(f"{name}: waiting: {holder['attempt']} is running this sweep")
        claims.wait(f"sweep-{name}", lambda: False)
    store.delete_folder(store.path("ray-tune", name))


def _size(work: SweepRun) -> int:
    return work.sweep_job.sweep.samples if work.sweep_job.sweep.learns else len(work.trials)


class _Session:
    """A connection to Ray that begins with the first open trial, because a sweep that is done needs no Ray."""

    def __init__(self, work: SweepRun, display: Display, stack: ExitStack) -> None:
        self.work, self.display, self.stack = work, display, stack
        self.have: Resources | None = None

    def run(self, work: SweepRun, open_ones: Sequence[int], samples: int) -> None:
        """Run the trials with the indices `open_ones`, or `samples` trials that the search chooses."""
        if not open_ones and not samples:
            return
        if self.have is None:
            at_once = work.sweep_job.sweep.max_concurrent
            jobs = [one.job for one, _ in work.trials] or [work.sweep_job.job]
            each = max(job.run.worker_range[1] * (job.run.cpus_per_worker or 1) for job in jobs)
            with self.display.doing("starting Ray"):
                there = self.stack.enter_context(ray_session(needs_cpus=each * at_once))
            if any(job.run.gpu is not False for job in jobs) and 0 < there.gpus < at_once:
                raise ValueError(f"sweep.max_concurrent is {at_once} and there are {there.gpus} GPUs; lower it")
            if work.store.is_local:
                self.stack.callback(keep_logs, Path(work.store.guarded(work.logs)))
            self.stack.enter_context(self.display.meters())
            self.have = replace(there, at_once=at_once)
        from wsss_ray.runners.tuning import tune_trials  # imports Ray, which must be started first

        tune_trials(replace(work, have=self.have), open_ones, samples, self.display, known=_known(work))

    def run_open(self, work: SweepRun) -> list[TrialRow]:
        """Run the trials that have not ended, and return the rows of all."""
        self.run(work, [place for place, (one, plan) in enumerate(work.trials) if _found(work, one, plan) is None], 0)
        away: list[Logger] = []
        for one, plan in work.trials:
            if pending(plan, work.store):
                continue
            is_new = not work.store.exists(work.store.run_path(one.job.name, "report.html"))  # others have run all its stages
            if is_new:
                begin_run(one.job, plan, work.store)
            with logged(one.job, plan, work.store, self.display, away=away):
                if is_new:
                    write_report(one.job, plan, work.store)
        return [_found(work, one, plan) or _missing(work, one, plan) for one, plan in work.trials]


def _run_generations(session: _Session, rule: Pbt) -> list[TrialRow]:
    """Run population based training, and return the rows of every member in every generation."""
    work, rows = session.work, list[TrialRow]()
    assert work.data is not None
    metric, seed = work.sweep_job.sweep.metrics[0], work.sweep_job.job.run.seed
    members = first_generation(work.sweep_job)
    for generation in range(rule.generations):
        trials = [trial_of_member(work.sweep_job, member, place, work.data) for place, member in enumerate(members)]
        found = session.run_open(replace(work, trials=tuple(trials)))
        rows += found
        if all(metric not in row.metrics for row in found):
            raise StageError(f"sweep: no member has a {metric} in generation {generation + 1}: {found[0].error}")
        members = next_generation(members, [row.metrics.get(metric, -math.inf) for row in found], rule, seed)
    return rows


def _found(work: SweepRun, one: TrialJob, plan: Plan) -> TrialRow | None:
    """Return the row of a trial that is done, with all stages in the store, or that the scheduler has stopped; else None."""
    row = _read(work.store, row_path(work, one), plan)
    if pending(plan, work.store):
        return row if row is not None and row.state == "stopped" and isinstance(work.sweep_job.sweep.scheduler, Asha) else None
    return row if row is not None and row.state == "done" else trial_row(work, one, plan, state="done")


def _missing(work: SweepRun, one: TrialJob, plan: Plan) -> TrialRow:
    """Return the row of a trial that failed or did not finish."""
    row = _read(work.store, row_path(work, one), plan)
    return row if row is not None and row.state == "failed" else trial_row(work, one, plan, state="missing")


def _known(work: SweepRun) -> list[TrialRow]:
    """Return the finished trials from which a search can learn, in the order in which they ended."""
    if not work.searches:
        return []
    folder = work.store.run_path(work.sweep_job.job.name, "trials")
    rows = []
    for name in work.store.names(folder):
        found = _read(work.store, f"{folder}/{name}")
        if found is None or found.state != "done" or not work.is_in_space(found.parameters):
            continue
        _, plan = work.planned(work.tune_config(found.parameters))
        if found.stages == [stage.id for stage in plan]:
            rows.append(found)
    return sorted(rows, key=lambda row: (row.finished or "", row.run))


def _read(store: RunStore, path: str, plan: Plan | None = None) -> TrialRow | None:
    """Read a trial's row. Return None if it is missing, damaged, or of another version or plan, as after an edit of the job."""
    if not store.exists(path):
        return None
    try:
        row = TrialRow(**store.read_json(path, TRIAL))
    except (TypeError, DamagedFile):
        return None
    return row if plan is None or row.stages == [stage.id for stage in plan] else None


def _write_results(work: SweepRun, rows: Sequence[TrialRow], job_yaml: str) -> None:
    name, metric = work.sweep_job.job.name, work.sweep_job.sweep.metrics[0]
    buffer = io.BytesIO()
    pq.write_table(to_table(rows), buffer)
    work.store.write(work.store.run_path(name, "trials.parquet"), buffer.getvalue())
    distinct = len({stage for row in rows for stage in row.stages}), sum(len(row.stages) for row in rows)
    work.store.write(work.store.run_path(name, "report.html"), build_sweep(name, rows, metric, job_yaml, distinct))
    best = next(iter(ranking([row for row in rows if row.state == "done"], metric)), None)
    if best is None or metric not in best.metrics:
        return
    path = work.store.run_path(best.run, "job.yaml")
    job = parse_document(work.store.read(path), path).values
    share = 100 * best.metrics[metric]
    head = f"# The best of {len(rows)} trials of {name} by {metric}: {best.name}, seed {best.seed}, {share:.2f}\n"
    changed = {"name": f"{name[:90]}-best", "run": job["run"] | {"store": work.store.uri}}
    text = head + to_yaml(job | changed)
    work.store.write(work.store.run_path(name, "best.yaml"), text.encode())
