"""The command line: parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).")]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a field; may be repeated.")]
StoreUri = Annotated[str | None, typer.Option("--store", metavar="URI", help="Run store; overrides run.store.")]


def main() -> None:
    """Run the command line: exit code 2 and one clear message for what a user can mend."""
    app()


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster."""
    if version:
        import wsss_ray

        typer.echo(f"wsss-ray {wsss_ray.__version__}")
        raise typer.Exit


@app.command()
def submit(
    job: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Annotated[
        Literal["localize", "seed", "train"] | None, typer.Option(help="Stop after the last stage of this kind.")
    ] = None,
) -> None:
    """Run a job, or the trials of its sweep: every stage that is not done yet. Submit again to resume."""
    from wsss_ray.progress import Display
    from wsss_ray.records import StageError

    loaded, plan, run_store = _plan(job, override, store, until)
    if loaded.sweep is not None:
        _submit_sweep(job, override, loaded, run_store, until)
        return
    display = Display()
    display.say(f"{loaded.name}: {len(plan.stages)} stages, {_count_done(plan, run_store)} done, store {run_store.uri}")
    _print_data(plan)
    from wsss_ray.runners.execute import execute

    try:
        report = execute(loaded, plan, run_store, display)
    except StageError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"store {run_store.uri}: {error}")
    except KeyboardInterrupt:
        _fail("interrupted; what was done is kept, submit again to go on", code=130)
    _print_scores(plan, run_store)
    typer.echo(f"report: {report}")


@app.command()
def plan(
    job: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Annotated[
        Literal["localize", "seed", "train"] | None, typer.Option(help="Stop after the last stage of this kind.")
    ] = None,
) -> None:
    """Show a job's stages, done and missing, or the trials of its sweep. Starts nothing."""
    loaded, stages, run_store = _plan(job, override, store, until)
    _print_data(stages)
    if loaded.sweep is not None:
        _print_trials(_trials(job, override, until), run_store)
        return
    rows = []
    for stage in stages:
        done = run_store.record(stage) is not None
        made = len(run_store.shards(stage))
        reads = ", ".join(source.name for _, source in stage.inputs)
        rows.append([stage.name, stage.kind, stage.id, "done" if done else f"{made} shards" if made else "missing", reads])
    _table(["stage", "kind", "id", "state", "reads"], rows)


@app.command()
def validate(job: JobFile, override: Override = None) -> None:
    """Check a job file, not its data, and print it with every default spelt out."""
    import yaml

    typer.echo(yaml.safe_dump(_load(job, override).spec(), sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def methods() -> None:
    """List the methods that a job file can name: paper, stages that train or label, and the job with the paper's settings."""
    from wsss_ray.methods import methods as all_methods
    from wsss_ray.methods import outline

    rows = []
    for name, method in all_methods().items():
        paper = (sys.modules[method.__module__].__doc__ or "").splitlines()[0]
        rows.append([name, ", ".join(outline(method())), f"jobs/{name}.yaml", paper])
    _table(["method", "stages", "job", "paper"], rows)


@app.command()
def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    from wsss_ray.schema import job_schema

    typer.echo(json.dumps(job_schema(), indent=2))


@app.command()
def status(store: Annotated[str, typer.Option("--store", metavar="URI", help="Run store.")] = "runs") -> None:
    """List the runs of a store and how far they are."""
    run_store = _store(store, must_exist=True)
    rows = []
    for name in run_store.names(run_store.path("runs")):
        if not run_store.exists(run_store.run_path(name, "run.json")):
            continue  # submitted this moment, or killed in it
        stages = run_store.read_json(run_store.run_path(name, "run.json"))["stages"]
        missing = [s["name"] for s in stages if not run_store.exists(run_store.path("stages", s["id"], "record.json"))]
        rows.append([name, f"{len(stages) - len(missing)}/{len(stages)}", missing[0] if missing else "done"])
    _table(["run", "stages", "next"], rows)


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")],
    store: Annotated[str, typer.Option("--store", metavar="URI", help="Run store.")] = "runs",
) -> None:
    """Show a run: its stages, times and scores."""
    run_store = _store(store, must_exist=True)
    path = run_store.run_path(run, "run.json")
    if not run_store.exists(path):
        _fail(f"no run {run!r} in {run_store.uri}; `wsss-ray status --store {store}` lists them")
    rows, scores = [], []
    for stage in run_store.read_json(path)["stages"]:
        record_path = run_store.path("stages", stage["id"], "record.json")
        record = run_store.read_json(record_path) if run_store.exists(record_path) else None
        counts = record["counts"] if record else {}
        made = f"{counts['steps']} steps" if "steps" in counts else f"{counts['images']} images" if counts else ""
        seconds = f"{record['seconds']:.1f} s" if record else ""
        rows.append([stage["name"], stage["id"], "done" if record else "missing", made, seconds, str(counts.get("errors", ""))])
        if record and record["kind"] == "evaluate":
            scores.append((stage["name"], record))
    _table(["stage", "id", "state", "made", "time", "errors"], rows)
    _score_table(scores)
    if run_store.exists(run_store.run_path(run, "report.html")):
        typer.echo(f"report: {run_store.run_path(run, 'report.html')}")


def _load(job: Path, override: list[str] | None) -> Any:
    from wsss_ray.job import JobError, load_job

    try:
        return load_job(job, override or ())
    except JobError as error:
        _fail(str(error))


def _plan(job: Path, override: list[str] | None, store: str | None, until: str | None) -> tuple[Any, Any, Any]:
    from wsss_ray.plan import Plan
    from wsss_ray.plan import until as cut

    loaded = _load(job, override)
    run_store = _store(store or loaded.run.store)
    try:
        full = loaded.plan()
        return loaded, Plan.of(cut(full.targets, until)) if until else full, run_store  # type: ignore[arg-type]
    except (ValueError, OSError) as error:
        _fail(f"{job}: {error}")


def _trials(job: Path, override: list[str] | None, until: str | None) -> list[tuple[Any, Any]]:
    """Every job of the sweep with its plan."""
    from wsss_ray.job import JobError, load_trials, plans_of
    from wsss_ray.plan import Plan
    from wsss_ray.plan import until as cut

    try:
        trials = load_trials(job, override or ())
        plans = plans_of(one.job for one in trials)
        if until:
            plans = [Plan.of(cut(plan.targets, until)) for plan in plans]  # type: ignore[arg-type]
    except JobError as error:
        _fail(str(error))
    except (ValueError, OSError) as error:
        _fail(f"{job}: {error}")
    return list(zip(trials, plans, strict=True))


def _submit_sweep(job: Path, override: list[str] | None, loaded: Any, store: Any, until: str | None) -> None:
    from wsss_ray.progress import Display
    from wsss_ray.runners.sweep import run_trials, scores
    from wsss_ray.sweep import result_table

    trials = _trials(job, override, until)
    _print_trials(trials, store)
    try:
        failed = run_trials(trials, store, Display())
    except OSError as error:
        _fail(f"store {store.uri}: {error}")
    except KeyboardInterrupt:
        _fail("interrupted; what was done is kept, submit again to go on", code=130)
    header, rows = result_table(loaded.sweep, [(one.trial, scores(plan, store)) for one, plan in trials])
    if loaded.sweep.paper:
        typer.echo(loaded.sweep.paper)
    _table(header, rows)
    if failed:
        _fail("\n".join(f"trial {one.trial.name!r}, seed {one.seed}: {error}" for one, error in failed))


def _print_trials(trials: list[tuple[Any, Any]], store: Any) -> None:
    rows, seen = [], set()
    for one, plan in trials:
        new = [stage for stage in plan if stage.id not in seen]
        seen |= {stage.id for stage in plan}
        rows.append([one.trial.name, str(one.seed), f"{_count_done(plan, store)}/{len(plan.stages)}", str(len(new))])
    _table(["trial", "seed", "stages done", "stages of its own"], rows)
    typer.echo(f"{len(trials)} jobs, {sum(len(plan.stages) for _, plan in trials)} stages, {len(seen)} of them distinct")


def _store(uri: str, *, must_exist: bool = False) -> Any:
    import pyarrow
    import pyarrow.fs

    from wsss_ray.store import RunStore

    try:
        store = RunStore(uri)
        kind = store.fs.get_file_info(store.path()).type
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        _fail(f"store {uri}: {error}")
    if kind == pyarrow.fs.FileType.File:
        _fail(f"store {uri}: is a file; give a folder")
    if must_exist and kind == pyarrow.fs.FileType.NotFound:
        _fail(f"store {uri}: there is no store there; give the folder by --store")
    return store


def _print_data(plan: Any) -> None:
    """What was found where the job file points: the first thing to look at."""
    for stage in plan:
        if stage.kind == "ingest":
            typer.echo(f"{stage.name}: {stage.component.summary()}")


def _count_done(plan: Any, store: Any) -> int:
    return sum(store.record(stage) is not None for stage in plan)


def _print_scores(plan: Any, store: Any) -> None:
    records = [(stage.name, store.record(stage)) for stage in plan if stage.kind == "evaluate"]
    _score_table([(name, record) for name, record in records if record])


def _score_table(scores: list[tuple[str, Any]]) -> None:
    if not scores:
        return
    names = ("miou", "precision", "recall", "coverage")
    rows = [[name, str(r["metrics"]["scored"]), *(_figure(r["metrics"][key]) for key in names)] for name, r in scores]
    _table(["score", "images", "mIoU", "precision", "recall", "coverage"], rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(f"error: {message}" if "\n" not in message else message, err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
