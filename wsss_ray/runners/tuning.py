"""Run a batch of trials on Ray Tune, with its schedulers and searches."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ray import tune

from wsss_ray.config.sweep import Asha
from wsss_ray.engine.records import StageError
from wsss_ray.reporting.progress import Display, Meter
from wsss_ray.runners.causes import cause
from wsss_ray.runners.cluster import in_a_thread
from wsss_ray.runners.train import free_dead_groups
from wsss_ray.runners.trial import SweepRun, run_trial, trial_row, write_row
from wsss_ray.storage.trials import TrialRow, TrialState

_FULL = 2**20  # bytes: with less free space, files are cut off
_FREE_S = 2.0


def tune_trials(work: SweepRun, open_ones: Sequence[int], samples: int, display: Display, *, known: Sequence[TrialRow]) -> None:
    """Run a batch of trials, and write the rows of trials that could not write their own.

    Args:
        work: Sweep with its trials.
        open_ones: Indices in `work.trials` of the trials to run.
        samples: Number of trials that the search chooses, if there is one.
        display: Shows progress.
        known: Finished trials from which the search learns.

    Raises:
        StageError: if Tune itself fails.
        ValueError: if the search is not installed.
        OSError: if the store cannot be read or written.

    Example:
        >>> tune_trials(work, open_ones=[0, 1], samples=0, display=display, known=())
    """
    os.environ |= dict.fromkeys(("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_STRICT_METRIC_CHECKING"), "1")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old output can be silenced
    sweep = work.sweep_job.sweep
    watch = _TrialWatch(display, display.meter("trials", samples or len(open_ones), "trials"))
    scratch, experiment = work.store.path("ray-tune", work.sweep_job.job.name), str(time.time_ns())
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, work=work), {"cpu": 0.01}),
        param_space={} if work.searches else {"index": tune.grid_search(list(open_ones))},
        tune_config=tune.TuneConfig(
            num_samples=samples if work.searches else 1,
            max_concurrent_trials=sweep.max_concurrent,
            scheduler=_scheduler(work),
            search_alg=_search(work, known) if work.searches else None,
            reuse_actors=not isinstance(sweep.scheduler, Asha),
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
    except OSError:
        raise
    except Exception as error:
        full = work.store.is_local and shutil.disk_usage(work.store.path()).free < _FULL
        why = "the disk of the store is full" if full else cause(error).line
        raise StageError(f"sweep: {why}", logs=work.logs) from error
    finally:
        with suppress(OSError):  # a failing store must not hide the cause
            work.store.delete_folder(f"{scratch}/{experiment}")
    for result in results:
        last, config = result.metrics or {}, result.config or {}
        if last.get("ended"):
            continue  # the trial has written its row
        one, plan = work.planned(config)
        seconds, share = last.get("time_total_s", 0.0), last.get("share")
        what = cause(result.error).line if result.error else None
        state: TrialState = "failed" if what else "stopped"
        row = trial_row(work, one, plan, state=state, error=what, seconds=seconds, finished=time.time(), progress=share)
        write_row(work, one, row)


class _TrialWatch(tune.Callback):  # type: ignore[misc]
    """A callback that shows what trials report. Tune pickles its callbacks; a copy has no display."""

    def __init__(self, display: Display | None, meter: Meter | None) -> None:
        self.display, self.meter, self._next = display, meter, 0.0

    def __reduce__(self) -> tuple[type[_TrialWatch], tuple[None, None]]:
        return (_TrialWatch, (None, None))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Print the line that a trial reports."""
        if self.display is not None and result.get("said"):
            self.display.say(f"{result['trial']}: {result['said']}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Count a trial that has ended."""
        if self.meter is not None:
            self.meter.add(1)

    on_trial_error = on_trial_complete

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Free, from time to time, the resources of trainings whose trials were ended, however early."""
        if time.monotonic() > self._next:
            free_dead_groups()
            self._next = time.monotonic() + _FREE_S


def _scheduler(work: SweepRun) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    asha = work.sweep_job.sweep.scheduler
    if not isinstance(asha, Asha):
        return None
    first = max(1, round(100 * asha.grace))
    rule = {"max_t": 100, "grace_period": first, "reduction_factor": asha.reduction, "stop_last_trials": False}
    return ASHAScheduler(time_attr="percent", metric="loss", mode="min", **rule)


def _search(work: SweepRun, known: Sequence[TrialRow]) -> Any:
    """Return an Optuna search that knows the finished trials. Raises ValueError if Optuna is not installed."""
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
    points = [work.tune_config(row.parameters) for row in known]
    told = {"points_to_evaluate": points, "evaluated_rewards": [work.reward(row) for row in known]} if known else {}
    return OptunaSearch(space, metric="reward", mode="max", seed=work.sweep_job.job.run.seed + len(known), **told)
