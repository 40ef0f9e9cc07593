"""Running a plan: what is done is skipped, what belongs together runs together, and the report is written at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from wsss_ray.job import JobConfig
from wsss_ray.plan import Plan, Stage
from wsss_ray.progress import Display
from wsss_ray.records import StageError, check_unchanged, git_commit, versions
from wsss_ray.report import build
from wsss_ray.runners.cluster import Resources, keep_logs, ray_session
from wsss_ray.store import RunStore


def execute(job: JobConfig, plan: Plan, store: RunStore, display: Display) -> str:
    """Make every missing stage of a plan. Returns the path of the report. Raises StageError."""
    begin_run(job, plan, store)
    for stage in plan:
        if stage.kind == "ingest":
            try:
                check_unchanged(store, stage)
            except ValueError as error:
                raise StageError(f"stage {stage.name}: {error}", [stage.id]) from error
    groups = pending(plan, store)
    if groups:
        needs = job.run.workers * (job.run.cpus_per_worker or 1)
        with ray_session(needs_cpus=needs) as have, display.meters():
            try:
                for group in groups:
                    _run(group, job, store, have, display)
            finally:
                if store.is_local:
                    keep_logs(Path(store.run_path(job.name, "logs")))
    return write_report(job, plan, store)


def begin_run(job: JobConfig, plan: Plan, store: RunStore) -> None:
    """Write down what this run is, before anything starts."""
    store.write(store.run_path(job.name, "job.yaml"), yaml.safe_dump(job.spec(), sort_keys=False, allow_unicode=True).encode())
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    about = {"name": job.name, "stages": stages, "submitted": time.time(), "versions": versions(), "git": git_commit()}
    store.write_json(store.run_path(job.name, "run.json"), about)


def write_report(job: JobConfig, plan: Plan, store: RunStore) -> str:
    """Write the report of what is done so far."""
    path = store.run_path(job.name, "report.html")
    text = store.read(store.run_path(job.name, "job.yaml")).decode()
    store.write(path, build(store, job.name, plan, text))
    return path


def pending(plan: Plan, store: RunStore) -> list[list[Stage]]:
    """The stages that are not done, grouped: a training alone, neighbouring per-image stages of the same data together."""
    groups: list[list[Stage]] = []
    for stage in plan:
        if store.record(stage) is not None:
            continue
        last = groups[-1] if groups else []
        if last and _same_shards(last, stage):
            last.append(stage)
        else:
            groups.append([stage])
    return groups


def _same_shards(group: Sequence[Stage], stage: Stage) -> bool:
    mergeable = ("localize", "seed", "evaluate")
    return (
        stage.kind in mergeable
        and group[-1].kind in mergeable
        and stage.input("data").id == group[-1].input("data").id
    )


def _run(group: Sequence[Stage], job: JobConfig, store: RunStore, have: Resources, display: Display) -> None:
    from wsss_ray.runners.shards import run_shards
    from wsss_ray.runners.train import run_train

    names = ", ".join(stage.name for stage in group)
    try:
        if group[0].kind == "train":
            run_train(store, group[0], job.run, have, display)
        else:
            run_shards(store, group, job.run, have, display)
    except StageError as error:
        raise StageError(f"{error}\nlogs: {store.run_path(job.name, 'logs')}", _missing(group, store)) from error
    except KeyboardInterrupt:
        raise
    except Exception as error:
        raise StageError(
            f"stage {names}: {_cause(error)}\nlogs: {store.run_path(job.name, 'logs')}; what was done is kept",
            _missing(group, store),
        ) from error
    for stage in group:
        record = store.record(stage)
        assert record is not None
        errors = record["counts"]["errors"]
        note = f", {errors} failed (see errors/)" if errors else ""
        unit = f"{record['counts']['steps']} steps" if stage.kind == "train" else f"{record['counts']['images']} images"
        display.say(f"{stage.name:<16} {stage.id}  {unit}, {record['seconds']:.1f} s{note}")


def _missing(group: Sequence[Stage], store: RunStore) -> list[str]:
    return [stage.id for stage in group if store.record(stage) is None]


def _cause(error: BaseException) -> str:
    """The innermost message of Ray's nested errors, without its traceback."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        failures = getattr(error, "worker_failures", None)
        inner = next(iter(failures.values())) if failures else getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
