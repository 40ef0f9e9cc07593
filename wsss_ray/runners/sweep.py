"""Running the trials of a sweep one after another in one Ray session. What trials share, the later ones find done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from wsss_ray.job import TrialJob
from wsss_ray.plan import Plan
from wsss_ray.progress import Display
from wsss_ray.records import StageError
from wsss_ray.runners.cluster import ray_session
from wsss_ray.runners.execute import execute, pending
from wsss_ray.store import RunStore

Planned = tuple[TrialJob, Plan]


def run_trials(trials: Sequence[Planned], store: RunStore, display: Display) -> list[tuple[TrialJob, str]]:
    """Make every missing stage of every trial. A trial that fails does not stop the others; returns those with their errors.

    A stage that failed is not tried again by the trials that share it.
    """
    failed: list[tuple[TrialJob, str]] = []
    broken: dict[str, str] = {}  # stage id -> what was wrong
    needs = max(one.job.run.worker_range[1] * (one.job.run.cpus_per_worker or 1) for one, _ in trials)
    with ray_session(needs_cpus=needs) if any(pending(plan, store) for _, plan in trials) else nullcontext():
        for place, (one, plan) in enumerate(trials, start=1):
            display.say(f"trial {place} of {len(trials)}: {one.trial.name}, seed {one.seed}")
            known = next((broken[stage.id] for stage in plan if stage.id in broken), None)
            if known is not None:
                failed.append((one, f"as before: {known}"))
                continue
            try:
                execute(one.job, plan, store, display)
            except StageError as error:
                display.say(f"failed: {error}")
                what = str(error).splitlines()[0]
                broken |= dict.fromkeys(error.stages, what)
                failed.append((one, what))
    return failed


def scores(plan: Plan, store: RunStore) -> dict[str, float]:
    """The mIoU of every score of a plan that is done, by the stage's name."""
    records = [(stage.name, store.record(stage)) for stage in plan if stage.kind == "evaluate"]
    return {name: record["metrics"]["miou"] for name, record in records if record and record["metrics"]["miou"] is not None}
