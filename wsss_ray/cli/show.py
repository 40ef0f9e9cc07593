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
    score_table,
    short,
    table,
)
from wsss_ray.cli.sweep import say_trials

if TYPE_CHECKING:
    from wsss_ray.core.method import Method
    from wsss_ray.reporting.history import Attempt
    from wsss_ray.storage.store import RunStore

AttemptNumber = Annotated[
    int | None, typer.Option("--attempt", metavar="N", help="Attempt to show. Default: the one that was submitted last.")
]


def plan(job_file: JobFile, override: Override = None, store: StoreUri = None, until: Until = None) -> None:
    """Show the stages of a job, done and missing.

    If the job has a sweep, shows its trials. Starts nothing.
    """
    planned = plan_here(load(job_file, override), store, until)
    for line in planned.data:
        typer.echo(line)
    if planned.job.sweep is not None:
        with exit_on_job_error():
            say_trials(planned.loaded.sweep, planned.trials(), planned.store)
        return
    rows = [[stage.name, stage.kind, stage.id, stage.state, ", ".join(stage.reads)] for stage in planned.stages]
    table(["stage", "kind", "id", "state", "reads"], rows)


def validate(job_file: JobFile, override: Override = None) -> None:
    """Check a job file and print it with every default.

    Does not read the data.
    """
    from wsss_ray.config.document import to_yaml

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
    """Show the stages, times and scores of a run.

    If several jobs were submitted under its name, lists these attempts. predict and export take the last one with a whole model.
    """
    from wsss_ray.inference.attempts import known_attempt, known_attempts
    from wsss_ray.reporting.history import report_path
    from wsss_ray.reporting.status import quality

    run_store = open_store(store, must_exist=True)
    try:
        several = known_attempts(run_store, run)
        one = several[0] if attempt is None else known_attempt(run_store, run, attempt)
    except ValueError as error:
        fail(str(error))
    rows, scores, validated = [], [], list[str]()
    for stage in one.stages:
        record = run_store.record_by_id(stage["id"])
        counts = record["counts"] if record else {}
        made = f"{counts['steps']} steps" if "steps" in counts else f"{counts['images']} images" if counts else ""
        seconds = f"{record['seconds']:.1f} s" if record else ""
        rows.append([stage["name"], stage["id"], "done" if record else "missing", made, seconds, str(counts.get("errors", ""))])
        if record and record["kind"] == "evaluate":
            scores.append((stage["name"], record))
        if stage["kind"] == "train":
            validated += quality(run_store, stage["name"], stage["id"])
    table(["stage", "id", "state", "made", "time", "errors"], rows)
    for training in validated:
        typer.echo(training)
    score_table(scores)
    _say_attempts(run_store, several)
    report = report_path(run_store, one)
    if run_store.exists(report):
        typer.echo(f"report: {report}")


def _say_attempts(store: RunStore, several: list[Attempt]) -> None:
    """Print the attempts at a run, the last submitted one first, if there are several."""
    from datetime import datetime

    from wsss_ray.inference.trained import find_trained
    from wsss_ray.reporting.history import differences

    if len(several) == 1:
        return
    typer.echo("")
    rows = []
    for place, one in enumerate(several):
        done = sum(store.record_by_id(stage["id"]) is not None for stage in one.stages)
        when = datetime.fromtimestamp(one.submitted).strftime("%Y-%m-%d %H:%M:%S")
        changed = differences([several[place + 1].spec(), one.spec()]) if place + 1 < len(several) else {}
        what = ", ".join(f"{field}={values[1]}" for field, values in changed.items())
        rows.append([str(one.number), when, one.until or "", f"{done}/{len(one.stages)}", short(what)])
    table(["attempt", "submitted", "until", "stages done", "changed"], rows)
    try:
        trained = find_trained(several[0].run, store.uri)
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
