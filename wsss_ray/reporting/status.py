"""Read the progress of runs and sweeps from their store alone. No cluster needs to be reachable and no process is asked."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from wsss_ray.engine.failures import failure_of
from wsss_ray.engine.training_log import last_rows, read_log
from wsss_ray.reporting.history import refuse_lost
from wsss_ray.reporting.progress import Pace
from wsss_ray.reporting.remaining import expected_of, left_of
from wsss_ray.storage.claims import STALE_S, is_dead, read_claim
from wsss_ray.storage.documents import RUN, SWEEP
from wsss_ray.storage.finished import READERS, Finished, StageId
from wsss_ray.storage.shards import count_rows, present_shards
from wsss_ray.storage.store import RunStore

StageState = Literal["done", "running", "failed", "damaged", "interrupted", "waiting"]

_LINES = 10  # of a training's log; they give its rate


@dataclass(frozen=True)
class StageStatus:
    """The status of one stage. None stands for what is not known.

    Attributes:
        name: name of the stage.
        id: id of the stage.
        kind: kind of the stage.
        state: its state; `interrupted` if it has begun, has not failed, and nobody is running it; `damaged` if it has a record
            and is not done (see `storage/finished.py`).
        made: number of finished units.
        work: number of all units.
        unit: "steps" for a training, "shards" for any other stage.
        errors: number of images that failed so far.
        seconds: duration of a stage that is done.
        rate: units per second, in the attempt that is running it.
        left_s: estimate of the seconds left.
        holder: the attempt that is running it, or that ran it last.
        silent_s: seconds since the last sign of life.
        error: why it failed, or what is damaged.
        logs: where the logs of the failure are.
    """

    name: str
    id: str
    kind: str
    state: StageState
    made: int
    work: int | None
    unit: str
    errors: int
    seconds: float | None = None
    rate: float | None = None
    left_s: float | None = None
    holder: str | None = None
    silent_s: float | None = None
    error: str | None = None
    logs: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """The status of one run.

    Attributes:
        name: name of the run.
        attempt: the last attempt at it; None if it is not known.
        stages: its stages in the order in which they run.
        left_s: estimate of the seconds left of the whole run; None if it is not running or was not checked.

    Example:
        >>> found = run_status(RunStore("runs"), "pets")
        >>> found.state, f"{found.done} of {len(found.stages)}"
        ('running', '2 of 5')
    """

    name: str
    attempt: str | None
    stages: tuple[StageStatus, ...]
    left_s: float | None = None

    @property
    def done(self) -> int:
        """Count the stages that are done."""
        return sum(stage.state == "done" for stage in self.stages)

    @property
    def now(self) -> StageStatus | None:
        """Return the stage to look at; None if all are done, except features that no stage is left to read.

        It is the first stage that is running. If none is, the first that failed, then the first that is damaged, then the first
        that is not done.
        """
        open_ones = [stage for stage in self.stages if stage.state != "done"]
        if all(stage.kind == "features" and stage.state != "running" for stage in open_ones):
            return None
        order: tuple[StageState, ...] = ("running", "failed", "damaged", "interrupted", "waiting")
        return min(open_ones, key=lambda stage: order.index(stage.state), default=None)

    @property
    def state(self) -> StageState:
        """Return the state of the whole run: done, running, failed, damaged or interrupted."""
        if self.now is None:
            return "done"
        return self.now.state if self.now.state in ("running", "failed", "damaged") else "interrupted"

    @property
    def errors(self) -> int:
        """Count the failed images of all stages. An image that failed in two stages counts twice."""
        return sum(stage.errors for stage in self.stages)


@dataclass(frozen=True)
class SweepStatus:
    """The status of one sweep.

    Attributes:
        name: name of the sweep.
        attempt: the last attempt at it; None if it is not known.
        ended: number of trials that have ended.
        total: number of trials, as far as is known.
    """

    name: str
    attempt: str | None
    ended: int
    total: int


Seen = dict[str, StageStatus]
"""Statuses by stage id, kept between runs because runs share stages."""


def run_status(store: RunStore, name: str, seen: Seen | None = None) -> RunStatus | None:
    """Read the status of a run.

    Args:
        store: store of the run.
        name: name of the run.
        seen: statuses of stages that were read before; those that are read now are added to it.

    Raises:
        DamagedFile: if the plan is damaged, or lost although the run has attempts.

    Returns:
        The status. None if the store does not have the plan of the run: it is just being submitted, or was killed at that point.

    Example:
        >>> run_status(RunStore("runs"), "demo").state  # doctest: +SKIP
        'done'
    """
    path = store.run_path(name, "run.json")
    if not store.exists(path):
        if store.names(store.run_path(name, "attempts")) or "run.json" in store.names(store.run_path(name)):
            refuse_lost(store, name)
        return None
    return status_of(store, store.read_json(path, RUN) | {"name": name}, seen)


def status_of(store: RunStore, about: Mapping[str, Any], seen: Seen | None = None) -> RunStatus:
    """Read the status of the stages that a `run.json` or an attempt lists.

    Args:
        store: store of the run.
        about: `name`, `stages` and `attempt`, as `run.json` has them.
        seen: statuses of stages that were read before; those that are read now are added to it.

    Example:
        >>> status_of(store, attempts(store, "pets")[-1].about).state
        'done'
    """
    seen = {} if seen is None else seen
    finished = Finished(store)
    finished.look_at([StageId(stage["id"]) for stage in about["stages"] if stage["id"] not in seen])
    for stage in about["stages"]:
        if stage["id"] not in seen:
            seen[stage["id"]] = _stage_status(store, stage, finished)
    stages = tuple(replace(seen[stage["id"]], name=stage["name"]) for stage in about["stages"])
    found = RunStatus(about["name"], about.get("attempt"), stages)
    return replace(found, left_s=left_of(found.stages, expected_of(store, found.name))) if found.state == "running" else found


def sweep_status(store: RunStore, name: str) -> SweepStatus | None:
    """Read the status of a sweep.

    Args:
        store: store of the sweep.
        name: name of the sweep.

    Returns:
        The status; None if the store has no sweep of that name.

    Example:
        >>> sweep_status(RunStore("runs"), "pets-theta").ended
        3
    """
    path = store.run_path(name, "sweep.json")
    if not store.exists(path):
        return None
    about, ended = store.read_json(path, SWEEP), len(store.names(store.run_path(name, "trials")))
    return SweepStatus(name, about.get("attempt"), ended, max(ended, about["total"]))


def _stage_status(store: RunStore, about: dict[str, Any], finished: Finished) -> StageStatus:
    """Read the status of a stage that a run.json lists."""
    trains = about["kind"] == "train"
    unit = "steps" if trains else "shards"
    stage = StageStatus(about["name"], about["id"], about["kind"], "done", 0, about.get("work"), unit, errors=0)
    found = finished.state(stage.id)
    if found.record is not None and found.is_done:
        record, counts = found.record, found.record["counts"]
        return replace(stage, made=counts[unit], work=counts[unit], errors=counts["errors"], seconds=record["seconds"])
    claim = read_claim(store, stage.id)
    holder, silent = (claim.holder, claim.silent_s) if claim is not None else (None, None)
    since = holder.get("since") if holder is not None else None
    made, rate = _steps(store, stage, since) if trains else _shards(store, stage, since)
    stage = replace(stage, made=made, errors=_errors(store, stage), silent_s=silent)
    if holder is None or is_dead(holder):
        if found.problem is not None:
            return replace(stage, state="damaged", error=found.problem)
        failure = failure_of(store, stage.id) or {}
        state: StageState = "failed" if failure else "interrupted" if made or holder else "waiting"
        who = holder["attempt"] if holder is not None else None
        return replace(stage, state=state, holder=who, error=failure.get("error"), logs=failure.get("logs"))
    if silent is not None and silent > STALE_S:
        rate = None
    left = max(0, stage.work - made) / rate if rate and stage.work is not None else None
    return replace(stage, state="running", rate=rate, left_s=left, holder=holder["attempt"])


def _steps(store: RunStore, stage: StageStatus, since: float | None) -> tuple[int, float | None]:
    """Read the last step of a training from its log, and the steps per second since the running attempt claimed it."""
    lines = last_rows(store, stage.id, _LINES)
    fresh = [line for line in lines if since is not None and line.get("time", 0) > since]
    seconds = fresh[-1]["time"] - fresh[0]["time"] if fresh else 0.0
    rate = (fresh[-1]["step"] - fresh[0]["step"]) / seconds if seconds > 0 else None
    return (lines[-1]["step"] if lines else 0), rate


def _shards(store: RunStore, stage: StageStatus, since: float | None) -> tuple[int, float | None]:
    """Count the shards of a stage, and take the shards per second since the running attempt claimed it from their file times."""
    times = sorted(one.written for one in store.files(store.stage_path(stage, "shards")) if one.name.startswith("part-"))
    if since is None:
        return len(times), None
    pace = Pace(since)
    for done, at in enumerate((at for at in times if at > since), start=1):
        pace.at(at, done)
    return len(times), pace.rate


def _errors(store: RunStore, stage: StageStatus) -> int:
    """Count the images that have failed so far. Files that cannot be read count as 0."""

    def count(shard: int) -> int:
        with suppress(OSError, ValueError):  # a retry may be replacing the file at this moment
            return count_rows(store, stage, shard, "errors")
        return 0

    with ThreadPoolExecutor(READERS, thread_name_prefix="errors") as pool:
        return sum(pool.map(count, present_shards(store, stage, "errors")))


def quality(store: RunStore, name: str, stage_id: str) -> list[str]:
    """Write a line about the mIoU of a training on validation images: the last and the best.

    Args:
        store: store of the training.
        name: name of the stage.
        stage_id: id of the stage.

    Returns:
        A list of one line; [] if the mIoU was not measured.

    Example:
        >>> quality(store, "retrain", stage.id)
        ['retrain: mIoU on validation images 0.601 after step 2000, best 0.612 after step 1500']
    """
    scored = [(row["val_miou"], row["step"]) for row in read_log(store, stage_id) if "val_miou" in row]
    if not scored:
        return []
    (last, at), (best, where) = scored[-1], max(scored)
    return [f"{name}: mIoU on validation images {last:.3f} after step {at}, best {best:.3f} after step {where}"]
