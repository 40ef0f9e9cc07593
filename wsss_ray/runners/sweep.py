"""The trials of a sweep on Ray Tune: each runs its plan's missing stages; what trials share, the first of them makes.

What came of a trial lies in the store, as `runs/SWEEP/trials/<run>.json`. Tune's own experiment state is thrown away: a sweep
that is submitted again finds its finished trials there and runs the others, whose stages resume where they were.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from ray import tune

from wsss_ray.job import TrialJob
from wsss_ray.plan import Plan
from wsss_ray.progress import Display, Meter
from wsss_ray.records import StageError
from wsss_ray.report.sweep_page import build_sweep
from wsss_ray.runners.cluster import in_a_thread, keep_logs, ray_session
from wsss_ray.runners.execute import last_line, pending
from wsss_ray.runners.train import free_place, owner_name
from wsss_ray.runners.trial import Work, row_path, run_trial, trial_row, write_row
from wsss_ray.store import RunStore
from wsss_ray.trials import State, TrialRow, ranking, to_table


def run_sweep(work: Work, display: Display) -> list[TrialRow]:
    """Run every trial that has not ended. A trial that fails does not stop the others.

    Returns the rows of all, and writes `trials.parquet`, `report.html` and `best.yaml` (the best trial's job, ready to submit) to
    the sweep's folder. Raises ValueError if the search is not installed, StageError if the sweep itself fails.
    """
    store, name = work.store, work.sweep_job.job.name
    job_yaml = yaml.safe_dump(work.sweep_job.document.expanded(), sort_keys=False, allow_unicode=True)
    store.write(store.run_path(name, "job.yaml"), job_yaml.encode())
    total = work.sweep_job.sweep.samples if work.learns else len(work.trials)
    about = {"name": name, "submitted": time.time(), "attempt": work.attempt, "total": total}
    store.write_json(store.run_path(name, "sweep.json"), about)
    open_ones = [place for place, (one, plan) in enumerate(work.trials) if _found(work, one, plan) is None]
    samples = max(0, work.sweep_job.sweep.samples - len(_known(work))) if work.learns else 0
    if open_ones or samples:
        at_once = work.sweep_job.sweep.max_concurrent
        jobs = [one.job for one, _ in work.trials] or [work.sweep_job.job]
        each = max(job.run.worker_range[1] * (job.run.cpus_per_worker or 1) for job in jobs)
        with ray_session(needs_cpus=each * at_once) as have, display.meters():
            try:
                _tune(replace(work, have=replace(have, at_once=at_once)), open_ones, samples, display)
            finally:
                if store.is_local:
                    keep_logs(Path(work.logs))
    rows = _known(work) if work.learns else [_found(work, one, plan) or _missing(work, one, plan) for one, plan in work.trials]
    _write_results(work, rows, job_yaml)
    return rows


def _tune(work: Work, open_ones: Sequence[int], samples: int, display: Display) -> None:
    """Run trials on Ray Tune, and write the rows of those that could not write their own."""
    os.environ |= dict.fromkeys(("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_STRICT_METRIC_CHECKING"), "1")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old one can be silenced
    sweep, total = work.sweep_job.sweep, samples if work.learns else len(open_ones)
    watch = _Watch(display, display.meter("trials", total, "trials"))
    scratch, experiment = work.store.path("ray-tune"), f"{work.sweep_job.job.name}-{time.time_ns()}"
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, work=work), {"cpu": 0.01}),
        param_space={} if work.learns else {"place": tune.grid_search(list(open_ones))},
        tune_config=tune.TuneConfig(
            num_samples=samples if work.learns else 1,
            max_concurrent_trials=sweep.max_concurrent,
            scheduler=_scheduler(work),
            search_alg=_search(work) if work.learns else None,
            reuse_actors=sweep.scheduler is None,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=experiment,
            storage_path=scratch,
            storage_filesystem=work.store.fs,
            failure_config=tune.FailureConfig(max_failures=work.sweep_job.job.run.max_failures),
            callbacks=[watch],
            verbose=0,
        ),
    )
    try:
        results = in_a_thread(tuner.fit)
    except RuntimeError as error:
        raise StageError(f"sweep: {last_line(error)}\nlogs: {work.logs}; what was done is kept") from error
    finally:
        work.store.delete_folder(f"{scratch}/{experiment}")
    for result in results:
        last, config = result.metrics or {}, result.config or {}
        if last.get("ended"):
            continue  # it has written its row
        one, plan = work.planned(config)
        seconds, share = last.get("time_total_s", 0.0), last.get("share")
        what = last_line(result.error) if result.error else None
        state: State = "failed" if what else "stopped"
        row = trial_row(work, one, plan, state=state, error=what, seconds=seconds, finished=time.time(), progress=share)
        write_row(work, one, row)


class _Watch(tune.Callback):  # type: ignore[misc]
    """What trials report, for the display. Tune keeps a copy of its callbacks, which then has no display."""

    def __init__(self, display: Display | None, meter: Meter | None) -> None:
        self.display, self.meter = display, meter

    def __reduce__(self) -> tuple[type[_Watch], tuple[None, None]]:
        return (_Watch, (None, None))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Say what the trial says."""
        if self.display is not None and result.get("said"):
            self.display.say(f"{result['trial']}: {result['said']}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """One more has ended."""
        self.on_trial_recover(iteration, trials, trial)
        if self.meter is not None:
            self.meter.add(1)

    on_trial_error = on_trial_complete

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial's process is no more: what its training held is free."""
        last = trial.last_result or {}
        if not last.get("ended") and "pid" in last:
            free_place(owner_name(last["node_ip"], last["pid"]))


def _scheduler(work: Work) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    asha = work.sweep_job.sweep.scheduler
    if asha is None:
        return None
    first = max(1, round(100 * asha.grace))
    rule = {"max_t": 100, "grace_period": first, "reduction_factor": asha.reduction, "stop_last_trials": False}
    return ASHAScheduler(time_attr="percent", metric="loss", mode="min", **rule)


def _search(work: Work) -> Any:
    """Optuna, told of the trials that are known. Raises ValueError if it is not installed."""
    try:
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise ValueError("sweep.search: optuna is not installed; pip install 'wsss-ray[tune]'") from error
    space: dict[str, Any] = {}
    for name, domain in work.sweep_job.sweep.space.items():
        if domain.choice is not None:
            space[name] = CategoricalDistribution(list(range(len(domain.choice))))
        else:
            low, high = domain.uniform or domain.loguniform or (0.0, 0.0)
            space[name] = FloatDistribution(low, high, log=domain.loguniform is not None)
    known = _known(work)
    points = [work.place(row.parameters) for row in known]
    told = {"points_to_evaluate": points, "evaluated_rewards": [work.reward(row) for row in known]} if known else {}
    return OptunaSearch(space, metric="reward", mode="max", seed=work.sweep_job.job.run.seed + len(known), **told)


def _found(work: Work, one: TrialJob, plan: Plan) -> TrialRow | None:
    """The row of a trial that has ended: done, with all its stages there, or stopped by the scheduler."""
    row = _read(work.store, row_path(work, one))
    if pending(plan, work.store):
        return row if row is not None and row.state == "stopped" and work.sweep_job.sweep.scheduler is not None else None
    return row if row is not None and row.state == "done" else trial_row(work, one, plan, state="done")


def _missing(work: Work, one: TrialJob, plan: Plan) -> TrialRow:
    """The row of a trial that failed, or that has not come to its end."""
    row = _read(work.store, row_path(work, one))
    return row if row is not None and row.state == "failed" else trial_row(work, one, plan, state="missing")


def _known(work: Work) -> list[TrialRow]:
    """The trials of a search that learns, as far as they are done, in the order in which they ended."""
    folder = work.store.run_path(work.sweep_job.job.name, "trials")
    rows = [_read(work.store, f"{folder}/{name}") for name in work.store.names(folder)]
    fields = set(work.sweep_job.sweep.space)
    return sorted((row for row in rows if row and set(row.parameters) == fields), key=lambda row: (row.finished or "", row.run))


def _read(store: RunStore, path: str) -> TrialRow | None:
    if not store.exists(path):
        return None
    found = store.read_json(path)
    return TrialRow(**{name: value for name, value in found.items() if name not in ("attempt", "broken")})


def _write_results(work: Work, rows: Sequence[TrialRow], job_yaml: str) -> None:
    name, metric = work.sweep_job.job.name, work.sweep_job.sweep.metrics[0]
    buffer = io.BytesIO()
    pq.write_table(to_table(rows), buffer)
    work.store.write(work.store.run_path(name, "trials.parquet"), buffer.getvalue())
    distinct = len({stage for row in rows for stage in row.stages}), sum(len(row.stages) for row in rows)
    work.store.write(work.store.run_path(name, "report.html"), build_sweep(name, rows, metric, job_yaml, distinct))
    best = next(iter(ranking([row for row in rows if row.state == "done"], metric)), None)
    if best is None or metric not in best.metrics:
        return
    job = yaml.safe_load(work.store.read(work.store.run_path(best.run, "job.yaml")))
    share = 100 * best.metrics[metric]
    head = f"# The best of {len(rows)} trials of {name} by {metric}: {best.name}, seed {best.seed}, {share:.2f}\n"
    text = head + yaml.safe_dump(job | {"name": f"{name[:90]}-best"}, sort_keys=False, allow_unicode=True)
    work.store.write(work.store.run_path(name, "best.yaml"), text.encode())
