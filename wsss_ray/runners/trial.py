"""Run one trial of a sweep in its own process: the missing stages of its plan, with reports to the driver."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from rich.console import Console

from wsss_ray.config.job import LoadedJob, TrialJob
from wsss_ray.config.resources import Resources
from wsss_ray.config.sweep import Asha, trial_of
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Data
from wsss_ray.engine.failures import Failures
from wsss_ray.engine.records import StageError
from wsss_ray.reporting.progress import Display, Meter
from wsss_ray.runners.cluster import logs_of, prepare
from wsss_ray.runners.execute import execute
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.trials import TrialRow, TrialState


@dataclass(frozen=True)
class SweepRun:
    """A sweep with everything that its trials need.

    Attributes:
        sweep_job: The job with the sweep.
        trials: The trials with their plans; empty if a search chooses them as it learns (see `searches`).
        store: Run store of the sweep and its trials.
        data: Data of the job itself, if trials are planned during the sweep; else None.
        attempt: The name of this attempt. Stages that failed in it are not tried again by other trials.
        cut: Kind of stage after which to stop, as `--until` gives it; None for whole plans.
        have: Resources of the Ray that runs the trials; None before it has started.

    Example:
        >>> loaded = read_job("jobs/sweeps/demo_theta.yaml")
        >>> trials = tuple((one, one.job.plan()) for one in loaded.trials())
        >>> work = SweepRun(sweep_job=loaded, trials=trials, store=RunStore("runs"), data=None, attempt="demo-theta 1")
    """

    sweep_job: LoadedJob
    trials: tuple[tuple[TrialJob, Plan], ...]
    store: RunStore
    data: Data | None
    attempt: str
    cut: Any = None
    have: Resources | None = None

    @property
    def searches(self) -> bool:
        """Return True if Ray Tune asks a search for each next point."""
        return self.sweep_job.sweep.search == "optuna"

    @property
    def logs(self) -> str:
        """Return where the workers' output is."""
        return logs_of(self.store, self.sweep_job.job.name)

    def planned(self, config: dict[str, Any]) -> tuple[TrialJob, Plan]:
        """Return the trial of a Tune configuration, with its plan.

        Args:
            config: The `index` of a known trial; with a search, the point that it chose, as `tune_config` makes it.

        Raises:
            JobError: if a point of the space is no valid job.
            ValueError: if its plan is not valid.

        Example:
            >>> work.planned({"index": 1})[0].trial.name
            'theta 0.15'
        """
        if not self.searches:
            return self.trials[config["index"]]
        point = {}
        for name, domain in self.sweep_job.sweep.space.items():
            value = config[name]
            point[name] = domain.choice[int(value)] if domain.choice is not None else float(f"{value:.6g}")
        one = self.sweep_job.variant(trial_of(point), self.sweep_job.job.run.seed)
        plan = one.job.plan(self.data if one.job.data == self.sweep_job.job.data else None)
        return one, plan.cut(self.cut)

    def is_in_space(self, point: dict[str, Any]) -> bool:
        """Return True if a known trial is still a point of the space, which may have been edited since.

        Args:
            point: Values by field, as the trial set them.
        """
        space = self.sweep_job.sweep.space
        return set(point) == set(space) and all(space[name].holds(value) for name, value in point.items())

    def tune_config(self, point: dict[str, Any]) -> dict[str, Any]:
        """Return the Tune configuration of a known trial: its values, or their places in the list if the space lists them.

        Args:
            point: Values by field, as the trial set them. It is in the space (see `is_in_space`).
        """
        space = self.sweep_job.sweep.space
        return {name: value if (choice := space[name].choice) is None else choice.index(value) for name, value in point.items()}

    def reward(self, row: TrialRow) -> float:
        """Return the value that a search maximizes: the first metric, or 0 for a trial that failed."""
        return row.metrics.get(self.sweep_job.sweep.metrics[0], 0.0)


def run_trial(config: dict[str, Any], *, work: SweepRun) -> None:
    """Run a trial as a Tune function: run its missing stages, write its row, and report its end.

    Args:
        config: Tune configuration of the trial (see `SweepRun.planned`).
        work: Sweep with its trials.

    Example:
        >>> tuner = tune.Tuner(tune.with_parameters(run_trial, work=work), param_space={"index": tune.grid_search([0, 1])})
    """
    prepare()
    from ray import tune

    one, plan = work.planned(config)
    began = time.time()
    asha = work.sweep_job.sweep.scheduler
    trains = [stage.name for stage in plan if stage.kind == "train"]
    display = TrialDisplay(one, watched=(asha.stage or trains[-1]) if isinstance(asha, Asha) and trains else None)
    display.report({})  # tells the driver that this process has started
    error = None
    try:
        failures = Failures(work.store, work.attempt)
        execute(one.job, plan, work.store, display, have=work.have, logs=work.logs, failures=failures)
    except StageError as failure:
        error = failure.what.splitlines()[0]
    if display.stopped:
        return  # the driver writes the row
    state: TrialState = "done" if error is None else "failed"
    row = trial_row(work, one, plan, state=state, error=error, seconds=time.time() - began, finished=time.time())
    write_row(work, one, row)
    tune.report({"ended": True, "reward": work.reward(row), "trial": display.label, "said": error and f"failed: {error}"})


def trial_row(
    work: SweepRun,
    one: TrialJob,
    plan: Plan,
    *,
    state: TrialState,
    error: str | None = None,
    seconds: float = 0.0,
    finished: float | None = None,
    progress: float | None = None,
) -> TrialRow:
    """Make a trial's row, with its scores so far from the store.

    Args:
        work: Sweep of the trial.
        one: The trial.
        plan: Its plan.
        state: Its state.
        error: Why it failed, in one line.
        seconds: Duration of its attempt.
        finished: Its end in seconds since the epoch; None if it has not ended.
        progress: Share of its training that it last reported, in [0, 1].

    Example:
        >>> one, plan = work.trials[0]
        >>> trial_row(work, one, plan, state="missing").metrics
        {}
    """
    return TrialRow(
        name=one.trial.name,
        run=one.job.name,
        seed=one.seed,
        method=one.job.method.kind(),
        parameters=one.trial.set,
        state=state,
        error=error,
        metrics=scores(plan, work.store),
        stages=[stage.id for stage in plan],
        seconds=round(seconds, 3),
        started=_iso(finished - seconds) if finished is not None else None,
        finished=_iso(finished) if finished is not None else None,
        progress=progress,
        published=one.trial.published,
    )


def scores(plan: Plan, store: RunStore) -> dict[str, float]:
    """Read the scores of a plan.

    Args:
        plan: The plan.
        store: Run store of its stages.

    Returns:
        By stage name, the mIoU of each finished evaluate stage and the mAP of each classify stage, in [0, 1].

    Example:
        >>> scores(plan, store)
        {'miou': 0.62}
    """
    keys, finished = {"evaluate": "miou", "classify": "map"}, Finished(store)
    records = [(stage, finished.record(stage)) for stage in plan if stage.kind in keys]
    found = {stage.name: record["metrics"][keys[stage.kind]] for stage, record in records if record}
    return {name: value for name, value in found.items() if value is not None}


def write_row(work: SweepRun, one: TrialJob, row: TrialRow) -> None:
    """Write a trial's row to the store, where it replaces an older one.

    Args:
        work: Sweep of the trial.
        one: The trial.
        row: Its row.

    Example:
        >>> write_row(work, one, trial_row(work, one, plan, state="failed", error="stage seed: the disk is full"))
    """
    work.store.write_json(row_path(work, one), asdict(row))


def row_path(work: SweepRun, one: TrialJob) -> str:
    """Return the path of a trial's row, which may not exist yet.

    Args:
        work: Sweep of the trial.
        one: The trial.

    Example:
        >>> row_path(work, work.trials[0][0])
        '/nfs/runs/runs/demo-theta/trials/demo-theta.theta-0.1.0.json'
    """
    return work.store.run_path(work.sweep_job.job.name, "trials", f"{one.job.name}.json")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


class TrialDisplay(Display):
    """A display that reports to Tune, and so to the driver. It also reports the loss of the stage `watched`, for a scheduler."""

    is_live = True

    def __init__(self, one: TrialJob, *, watched: str | None) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.label, self.watched = f"{one.trial.name}, seed {one.seed}", watched
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Report one line to the driver."""
        self.report({"said": text})

    def meter(self, label: str, total: int, unit: str, already: int = 0) -> Meter:
        """Return the meter of a new stage. See `Display.meter`."""
        return TrialMeter(self, label, total, unit, already)

    def report(self, found: dict[str, Any]) -> None:
        """Report to Tune.

        Args:
            found: Values by name, beside the trial's label.

        Raises:
            SystemExit: if Tune ends the trial here.
        """
        from ray import tune

        with self._lock:
            try:
                tune.report({"trial": self.label, "reward": 0.0} | found)  # a search wants a reward always, and uses the last
            except SystemExit:  # Tune ends the thread that reports, which may be another than the trial's
                self.stopped = True
                raise


class TrialMeter(Meter):
    """The progress of one stage of a trial. The watched stage is reported at every per cent of its steps, others now and then."""

    display: TrialDisplay
    _percent = 0

    def to(self, done: int, note: str = "", loss: float | None = None) -> None:
        """Set the number of finished items, and report the loss of the watched stage. See `Meter.to`."""
        self.done = done
        self._pace.at(time.monotonic(), done)
        percent = int(100 * done / max(1, self.total))
        if self.label == self.display.watched and loss is not None and percent > self._percent:
            self._percent = percent
            self.display.report({"percent": percent, "loss": loss, "share": percent / 100})
        else:
            self.speak(note)
