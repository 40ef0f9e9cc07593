"""Show jobs, methods and runs without starting anything: plan, validate, methods, schema, show."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

from wsss_ray.cli.console import (
    JobFile,
    OpenStore,
    Override,
    RunName,
    StoreUri,
    Until,
    fail,
    known_run,
    load,
    open_store,
    plan_here,
    plan_trials,
    say_data,
    table,
)
from wsss_ray.cli.own import Include, import_own
from wsss_ray.cli.scores import say_scores
from wsss_ray.cli.sweep import say_trials

if TYPE_CHECKING:
    from wsss_ray.config.job import Listed
    from wsss_ray.core.method import Method
    from wsss_ray.storage.finished import StageState


def plan(
    job_file: JobFile, override: Override = None, store: StoreUri = None, until: Until = None, include: Include = None
) -> None:
    """Show the stages of a job, done and missing.

    If the job has a sweep, shows its trials. Starts nothing.
    """
    from wsss_ray.storage.finished import Finished
    from wsss_ray.storage.shards import present_shards

    import_own(include)
    loaded = load(job_file, override)
    listed: Listed = {}
    _, stages, run_store = plan_here(loaded, store, until, listed)
    say_data(stages)
    if loaded.job.sweep is not None:
        say_trials(loaded.sweep, plan_trials(loaded, until, listed), run_store)
        return
    finished, damage = Finished(run_store), list[str]()
    finished.look_at(stages)
    rows, missing = [], {stage.id for stage in stages.missing(finished.is_done)}
    for stage in stages:
        found = finished.state(stage.id)
        made = len(present_shards(run_store, stage)) if stage.id in missing and found.problem is None else 0
        state = f"{made} shards" if made else _state(found)
        if stage.id not in missing and not found.is_done:
            state = "not needed"
        elif found.problem is not None:
            damage.append(f"{stage.name}: {found.problem}")
        reads = ", ".join(source.name for source in (*(source for _, source in stage.inputs), *stage.features))
        rows.append([stage.name, stage.kind, stage.id, state, reads])
    table(["stage", "kind", "id", "state", "reads"], rows)
    for line in damage:
        typer.echo(line)


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


def show(run: RunName, store: OpenStore = "runs") -> None:
    """Show the stages, times and scores of a run, and warnings about suspicious scores."""
    from wsss_ray.reporting.status import quality
    from wsss_ray.storage.finished import Finished, StageId

    run_store = open_store(store, must_exist=True)
    rows, found, validated, damage, bare = [], [], list[str](), list[str](), list[str]()
    finished, stages = Finished(run_store), known_run(run_store, run)["stages"]
    finished.look_at([StageId(stage["id"]) for stage in stages])
    for stage in stages:
        state = finished.state(stage["id"])
        record = state.record if state.is_done else None
        damage += [f"{stage['name']}: {state.problem}"] if state.problem is not None else []
        counts = record["counts"] if record else {}
        made = f"{counts['steps']} steps" if "steps" in counts else f"{counts['images']} images" if counts else ""
        seconds = f"{record['seconds']:.1f} s" if record else ""
        rows.append([stage["name"], stage["id"], _state(state), made, seconds, str(counts.get("errors", ""))])
        if without := counts.get("without_mask"):
            bare.append(f"{stage['name']}: {without} images are packed without a mask, as theirs cannot be used (see notes/)")
        if record:
            found.append((stage["name"], record))
        if stage["kind"] == "train":
            validated += quality(run_store, stage["name"], stage["id"])
    table(["stage", "id", "state", "made", "time", "errors"], rows)
    for line in (*damage, *bare, *validated):
        typer.echo(line)
    say_scores(found)
    if run_store.exists(run_store.run_path(run, "report.html")):
        typer.echo(f"report: {run_store.run_path(run, 'report.html')}")


def _state(state: StageState) -> str:
    return "done" if state.is_done else "damaged" if state.problem is not None else "missing"


def _register() -> None:
    """Import everything that a job file can name. Exit if a module of WSSS_RAY_PLUGINS fails."""
    from wsss_ray.config.document import JobError
    from wsss_ray.config.job import register

    try:
        register()
    except JobError as error:
        fail(str(error))


def _stages(method: type[Method]) -> str:
    """Name the stages of a method with its default fields, or say why there are none."""
    from wsss_ray.methods import outline

    try:
        return ", ".join(outline(method()))
    except Exception as error:  # noqa: BLE001  a plug-in's own code
        return f"none: {type(error).__name__}"
