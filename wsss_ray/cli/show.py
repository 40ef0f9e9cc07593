"""Show jobs, methods and runs without starting anything: plan, validate, methods, schema, show."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_ray.cli.console import (
    JobFile,
    OpenStore,
    Override,
    RunName,
    StoreUri,
    Until,
    exit_on_job_error,
    fail,
    load,
    open_store,
    plan_here,
    short,
    table,
)
from wsss_ray.cli.own import Include, import_own
from wsss_ray.cli.scores import say_scores
from wsss_ray.cli.sweep import say_trials
from wsss_ray.core.counted import counted

if TYPE_CHECKING:
    from wsss_ray.core.method import Method
    from wsss_ray.reporting.history import Attempt
    from wsss_ray.storage.finished import Finished

AttemptNumber = Annotated[
    int | None, typer.Option("--attempt", metavar="N", help="Attempt to show. Default: the one that was submitted last.")
]


def plan(
    job_file: JobFile, override: Override = None, store: StoreUri = None, until: Until = None, include: Include = None
) -> None:
    """Show the stages of a job, done and missing.

    If the job has a sweep, shows its trials. Starts nothing.
    """
    import_own(include)
    planned = plan_here(load(job_file, override), store, until)
    with exit_on_job_error():
        for line in planned.data:
            typer.echo(line)
    if planned.job.sweep is not None:
        with exit_on_job_error():
            say_trials(planned.loaded.sweep, planned.trials(), planned.store)
        return
    stages = planned.stages
    rows = [[stage.name, stage.kind, stage.id, stage.state, ", ".join(stage.reads)] for stage in stages]
    table(["stage", "kind", "id", "state", "reads"], rows)
    for stage in stages:
        if stage.problem is not None:
            typer.echo(f"{stage.name}: {stage.problem}")


def validate(job_file: JobFile, override: Override = None, include: Include = None) -> None:
    """Check a job file and print it with every default.

    Does not read the data.
    """
    from wsss_ray.config.document import to_yaml

    import_own(include)
    typer.echo(to_yaml(load(job_file, override).job.spec()), nl=False)


def methods() -> None:
    """List the methods that a job file can name.

    Shows each method's stages, the job file with the paper's settings, the package that it comes from, and the paper.
    """
    from wsss_ray.core.method import Method
    from wsss_ray.core.plugins import origin

    _register()
    rows = []
    for name, several in Method.by_kind().items():
        for method in several:
            assert issubclass(method, Method)
            paper = next(iter((sys.modules[method.__module__].__doc__ or "").strip().splitlines()), "")
            job = f"jobs/{name}.yaml" if method.__module__.startswith("wsss_ray.") else "-"
            rows.append([name, _stages(method), job, origin(method), paper])
    table(["method", "stages", "job", "from", "paper"], rows)


def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    from wsss_ray.config.schema import job_schema

    _register()
    typer.echo(json.dumps(job_schema(), indent=2))


def show(run: RunName, store: OpenStore = "runs", attempt: AttemptNumber = None) -> None:
    """Show the stages, times and scores of a run, and warnings about suspicious scores.

    If several jobs were submitted under its name, lists these attempts. predict and export take the last one with a whole model.
    """
    from wsss_ray.inference.attempts import known_attempt, known_attempts
    from wsss_ray.reporting.history import refuse_lost, report_path
    from wsss_ray.reporting.status import quality
    from wsss_ray.reporting.words import work_done
    from wsss_ray.storage.finished import Finished, StageId

    run_store = open_store(store, must_exist=True)
    try:
        several = known_attempts(run_store, run)
        refuse_lost(run_store, run)
        one = several[0] if attempt is None else known_attempt(run_store, run, attempt)
    except ValueError as error:
        fail(str(error))
    rows, found, validated, damage, bare = [], [], list[str](), list[str](), list[str]()
    finished = Finished(run_store)
    finished.look_at([StageId(stage["id"]) for stage in one.stages])
    for stage in one.stages:
        state = finished.state(stage["id"])
        record = state.record if state.is_done else None
        damage += [f"{stage['name']}: {state.problem}"] if state.problem is not None else []
        counts = record["counts"] if record else {}
        made = work_done(counts)
        seconds = f"{record['seconds']:.1f} s" if record else ""
        rows.append([stage["name"], stage["id"], state.word, made, seconds, str(counts.get("errors", ""))])
        if without := counts.get("without_mask"):
            packed = counted(without, "image", "are")
            bare.append(f"{stage['name']}: {packed} packed without a mask, as theirs cannot be used (see notes/)")
        if record:
            found.append((stage["name"], record))
        if stage["kind"] == "train":
            validated += quality(run_store, stage["name"], stage["id"])
    table(["stage", "id", "state", "made", "time", "errors"], rows)
    for line in (*damage, *bare, *validated):
        typer.echo(line)
    say_scores(found)
    _say_attempts(finished, several)
    report = report_path(run_store, one)
    if run_store.exists(report):
        typer.echo(f"report: {report}")


def _say_attempts(finished: Finished, several: list[Attempt]) -> None:
    """Print the attempts at a run, the last submitted one first, if there are several."""
    from datetime import datetime

    from wsss_ray.inference.attempts import fields_of
    from wsss_ray.inference.trained import find_trained
    from wsss_ray.reporting.history import differences
    from wsss_ray.storage.finished import StageId

    if len(several) == 1:
        return
    typer.echo("")
    rows = []
    for place, one in enumerate(several):
        done = sum(finished.is_done(StageId(stage["id"])) for stage in one.stages)
        when = datetime.fromtimestamp(one.submitted).strftime("%Y-%m-%d %H:%M:%S")
        changed = differences([fields_of(several[place + 1]), fields_of(one)]) if place + 1 < len(several) else {}
        what = ", ".join(f"{field}={values[1]}" for field, values in changed.items())
        rows.append([str(one.number), when, one.until or "", f"{done}/{len(one.stages)}", short(what)])
    table(["attempt", "submitted", "until", "stages done", "changed"], rows)
    try:
        trained = find_trained(several[0].run, finished.store.uri)
    except ValueError:
        typer.echo("model: none yet")
    else:
        typer.echo(f"model: {trained.title}")


def _register() -> None:
    """Import everything that a job file can name. Exit if a module of WSSS_RAY_PLUGINS fails."""
    from wsss_ray.config.job import register

    with exit_on_job_error():
        register()


def _stages(method: type[Method]) -> str:
    """Name the stages of a method with its default fields, or say why there are none."""
    from wsss_ray.methods import outline

    try:
        return ", ".join(outline(method()))
    except Exception as error:  # noqa: BLE001  a plug-in's own code
        return f"none: {type(error).__name__}"
