"""What the commands share: loading jobs and stores with one clear message on mistakes, printing tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from wsss_ray.cli.complete import run_names, trained_stages

if TYPE_CHECKING:
    from wsss_ray.config.job import JobConfig, Listed, LoadedJob, TrialJob
    from wsss_ray.core.plan import Plan
    from wsss_ray.storage.store import RunStore

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


def load(job: Path, override: list[str] | None) -> LoadedJob:
    """Read a job file. Exits with a line per mistake."""
    from wsss_ray.config.job import JobError, read_job

    try:
        return read_job(job, override or ())
    except JobError as error:
        fail(str(error))


def plan_here(
    loaded: LoadedJob, store: str | None, until: Until, listed: Listed | None = None
) -> tuple[JobConfig, Plan, RunStore]:
    """The job with its data at absolute paths, its plan, and its store. Exits with a line per mistake."""
    from wsss_ray.config.job import plans_of
    from wsss_ray.config.paths import located

    job = located(loaded.job)
    run_store = open_store(store or job.run.store)
    try:
        return job, plans_of([job], listed)[0].cut(until), run_store
    except (ValueError, OSError) as error:
        fail(f"{loaded.document.path}: {error}")


def check_loggers(job: JobConfig) -> None:
    """Exit if a logger of the job cannot be used from here."""
    for logger in job.run.loggers:
        try:
            logger.check()
        except ValueError as error:
            fail(str(error))


def plan_trials(loaded: LoadedJob, until: Until, listed: Listed) -> list[tuple[TrialJob, Plan]]:
    """Every job of a sweep with its plan, as far as they are known before the start. Exits with a line per mistake."""
    from wsss_ray.config.job import JobError, plans_of
    from wsss_ray.config.paths import located
    from wsss_ray.config.sweep import check_scheduler

    try:
        trials = [replace(one, job=located(one.job)) for one in loaded.trials()]
        plans = plans_of((one.job for one in trials), listed)
        check_scheduler(loaded.sweep, plans)
        return [(one, plan.cut(until)) for one, plan in zip(trials, plans, strict=True)]
    except JobError as error:
        fail(str(error))
    except (ValueError, OSError) as error:
        fail(f"{loaded.document.path}: {error}")


def open_store(uri: str, *, must_exist: bool = False) -> RunStore:
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
def told(store: RunStore) -> Iterator[None]:
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


def known_run(store: RunStore, run: str) -> dict[str, Any]:
    """What `run.json` says of a run. Exits if there is no such run."""
    names = store.names(store.path("runs"))
    path = store.run_path(run, "run.json")
    if run not in names or not store.exists(path):
        fail(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    about: dict[str, Any] = store.read_json(path)
    return about


def say_data(plan: Plan) -> None:
    """Print what was found where the job file points: the first thing to look at."""
    from wsss_ray.data.source import DataSplit

    for stage in plan:
        if isinstance(stage.component, DataSplit):
            typer.echo(f"{stage.name}: {stage.component.summary()}")


def count_done(plan: Plan, store: RunStore) -> int:
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


def table(header: list[str], rows: list[list[str]], *, right: Collection[str] = ()) -> None:
    """Print aligned columns, two spaces apart; those named in `right` are aligned to the right, as numbers are read."""
    columns = [[name, *(row[place] for row in rows)] for place, name in enumerate(header)]
    widths = [max(map(len, column)) for column in columns]
    aligned = [
        [cell.rjust(width) if column[0] in right else cell.ljust(width) for cell in column]
        for column, width in zip(columns, widths, strict=True)
    ]
    for line in zip(*aligned, strict=True):
        typer.echo("  ".join(line).rstrip())


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one clear message, or one for each mistake."""
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)
