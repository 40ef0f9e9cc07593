"""What the commands share: loading jobs and stores with one clear message on mistakes, printing tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from wsss_ray.cli.complete import run_names, trained_stages

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.", autocompletion=run_names)]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a field; may be repeated.")]
StoreUri = Annotated[str | None, typer.Option("--store", metavar="URI", help="Run store; overrides run.store.")]
OpenStore = Annotated[str, typer.Option("--store", metavar="URI", help="Run store.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Which segmenter of the run; by default the last trained one.", autocompletion=trained_stages
    ),
]
Until = Annotated[Literal["localize", "seed", "train"] | None, typer.Option(help="Stop after the last stage of this kind.")]

INTERRUPTED = "interrupted; what was done is kept, submit again to go on"


def load(job: Path, override: list[str] | None) -> Any:
    """The job of a file. Exits with a line per mistake."""
    from wsss_ray.config.job import JobError, load_job

    try:
        return load_job(job, override or ())
    except JobError as error:
        fail(str(error))


def load_plan(
    job: Path, override: list[str] | None, store: str | None, until: Until, listed: dict[Any, Any] | None = None
) -> tuple[Any, Any, Any]:
    """A file's job, its plan and its store."""
    from wsss_ray.config.job import plans_of
    from wsss_ray.config.paths import located

    loaded = located(load(job, override))
    run_store = open_store(store or loaded.run.store)
    try:
        return loaded, plans_of([loaded], listed)[0].cut(until), run_store
    except (ValueError, OSError) as error:
        fail(f"{job}: {error}")


def check_loggers(job: Any) -> None:
    """Exit if a logger of the job cannot be used from here."""
    for logger in job.run.loggers:
        try:
            logger.check()
        except ValueError as error:
            fail(str(error))


def load_sweep(job: Path, override: list[str] | None, until: Until, listed: dict[Any, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
    """A file's sweep, and every job of it with its plan, as far as they are known before the start."""
    from wsss_ray.config.job import JobError, plans_of
    from wsss_ray.config.job import load_sweep as read_sweep
    from wsss_ray.config.paths import located
    from wsss_ray.config.sweep import check_scheduler

    try:
        sweep_job = read_sweep(job, override or ())
        trials = sweep_job.trials()
        trials = tuple(replace(one, job=located(one.job)) for one in trials)
        plans = plans_of((one.job for one in trials), listed)
        check_scheduler(sweep_job.sweep, plans)
        plans = [plan.cut(until) for plan in plans]
    except JobError as error:
        fail(str(error))
    except (ValueError, OSError) as error:
        fail(f"{job}: {error}")
    return sweep_job, list(zip(trials, plans, strict=True))


def open_store(uri: str, *, must_exist: bool = False) -> Any:
    """A run store. Exits if it is none."""
    from wsss_ray.storage.store import RunStore

    try:
        store = RunStore(uri)
        there = store.there()
    except (OSError, ValueError) as error:  # pyarrow's own are among these
        from wsss_ray.storage.filesystems import shown

        fail(f"store {shown(uri)}: {error}")
    if there == "file":
        fail(f"store {uri}: is a file; give a folder")
    if must_exist and there is None:
        fail(f"store {uri}: there is no store there; give the folder by --store")
    return store


@contextmanager
def told(store: Any) -> Iterator[None]:
    """What can go wrong while stages are made, each as one clear message."""
    from wsss_ray.engine.records import StageError

    try:
        yield
    except StageError as error:
        fail(str(error))
    except ConnectionError as error:
        fail(f"no Ray cluster at {os.environ.get('RAY_ADDRESS')} takes this process: {str(error).strip().splitlines()[0]}")
    except OSError as error:
        fail(f"store {store.uri}: {error}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, code=130)


def known_run(store: Any, run: str) -> dict[str, Any]:
    """What `run.json` says of a run. Exits if there is no such run."""
    names = store.names(store.path("runs"))
    path = store.run_path(run, "run.json")
    if run not in names or not store.exists(path):
        fail(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    about: dict[str, Any] = store.read_json(path)
    return about


def say_data(plan: Any) -> None:
    """What was found where the job file points: the first thing to look at."""
    for stage in plan:
        if stage.kind == "ingest":
            typer.echo(f"{stage.name}: {stage.component.summary()}")


def count_done(plan: Any, store: Any) -> int:
    """Stages of a plan that are done."""
    return sum(map(store.is_done, plan))


def score_table(scores: list[tuple[str, Any]]) -> None:
    """The scores of evaluate stages by their records."""
    if not scores:
        return
    names = ("miou", "precision", "recall", "coverage")
    rows = [[name, str(r["metrics"]["scored"]), *(figure(r["metrics"][key]) for key in names)] for name, r in scores]
    table(["score", "images", "mIoU", "precision", "recall", "coverage"], rows)


def figure(value: float | None) -> str:
    """A share with three digits."""
    return "-" if value is None else f"{value:.3f}"


def table(header: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, two spaces apart."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one clear message, or one for each mistake."""
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)
