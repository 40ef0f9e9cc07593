"""Load jobs and stores, and print tables, for all commands. A mistake ends the command with one clear message."""

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
    from wsss_ray.core.graph import Plan
    from wsss_ray.storage.store import RunStore

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.", autocompletion=run_names)]
Override = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a field of the job, such as run.seed=1. Repeatable.")
]
StoreUri = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Folder or URI of the run store, instead of the job's run.store.")
]
OpenStore = Annotated[str, typer.Option("--store", metavar="URI", help="Folder or URI of the run store.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Stage that trained the segmenter. Default: the last one of the run.", autocompletion=trained_stages
    ),
]
# The kinds are those of `core.plan.Until`, whose import would make `--help` and TAB slow.
Until = Annotated[Literal["localize", "seed", "train"] | None, typer.Option(help="Stop after the last stage of this kind.")]

INTERRUPTED = "interrupted; what was done is kept, submit again to go on"
TERMINATED = "ended by SIGTERM; what was done is kept, submit again to go on"


def load(job_file: Path, override: list[str] | None) -> LoadedJob:
    """Read and validate a job file. Exit with one line per mistake.

    Args:
        job_file: The job file.
        override: Texts `a.b=value`, as `--set` takes them.

    Raises:
        SystemExit: if the job is not valid.

    Example:
        >>> load(Path("jobs/demo.yaml"), ["run.seed=1"]).job.run.seed
        1
    """
    from wsss_ray.config.document import JobError
    from wsss_ray.config.job import read_job

    try:
        return read_job(job_file, override or ())
    except JobError as error:
        fail(str(error))


def plan_here(
    loaded: LoadedJob, store: str | None, until: Until, listed: Listed | None = None
) -> tuple[JobConfig, Plan, RunStore]:
    """Plan a job as this machine sees its data. Exit with one line per mistake.

    Args:
        loaded: The job.
        store: URI of the run store; None for the job's own.
        until: Kind of stage after which to stop (see `core.plan.until`); None for the whole plan.
        listed: Data that is known; the data that is listed now is added to it.

    Returns:
        The job with absolute data paths, its plan and its store.

    Raises:
        SystemExit: if the data or the store cannot be used.

    Example:
        >>> job, plan, store = plan_here(load(Path("jobs/demo.yaml"), None), "runs", "seed")
        >>> [stage.kind for stage in plan]
        ['ingest', 'train', 'localize', 'seed', 'evaluate']
    """
    from wsss_ray.config.job import plans_of
    from wsss_ray.config.paths import located

    job = located(loaded.job)
    run_store = open_store(store or job.run.store)
    try:
        return job, plans_of([job], listed)[0].cut(until), run_store
    except (ValueError, OSError) as error:
        fail(f"{loaded.document.path}: {error}")


def check_loggers(job: JobConfig) -> None:
    """Exit if this process cannot use a logger of the job. No server is contacted."""
    for logger in job.run.loggers:
        try:
            logger.check()
        except ValueError as error:
            fail(str(error))


def plan_trials(loaded: LoadedJob, until: Until, listed: Listed) -> list[tuple[TrialJob, Plan]]:
    """Plan the trials of a sweep that are known before its start. Exit with one line per mistake.

    Args:
        loaded: The job with the sweep.
        until: Kind of stage after which to stop (see `core.plan.until`); None for whole plans.
        listed: Data that is known; the data that is listed now is added to it.

    Returns:
        The jobs with absolute data paths, each with its plan. There are none if the sweep chooses trials as results come in.

    Example:
        >>> loaded = load(Path("jobs/sweeps/demo_theta.yaml"), None)
        >>> plan_trials(loaded, None, {})[0][0].trial.name
        'theta 0.1'
    """
    from wsss_ray.config.document import JobError
    from wsss_ray.config.job import plans_of
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
    """Open a run store.

    Args:
        uri: Folder or URI of the store.
        must_exist: True exits if there is no store yet.

    Raises:
        SystemExit: if the URI is no store, or names a file.

    Example:
        >>> open_store("/nfs/runs").uri
        '/nfs/runs'
    """
    from wsss_ray.storage.store import RunStore

    try:
        store = RunStore(uri)
        there = store.there()
    except (OSError, ValueError) as error:  # pyarrow raises subclasses of these
        from wsss_ray.storage.filesystems import shown

        fail(f"store {shown(uri)}: {error}")
    if there == "file":
        fail(f"store {uri}: is a file; give a folder")
    if must_exist and there is None:
        fail(f"store {uri}: there is no store there; give its folder with --store")
    return store


def check_out(folder: Path) -> None:
    """Exit if --out names a file."""
    if folder.exists() and not folder.is_dir():
        fail(f"--out {folder}: is a file; give a folder")


@contextmanager
def exit_on_stage_error(store: RunStore) -> Iterator[None]:
    """Exit with one clear message if a stage, the store or the cluster fails in this block, or if the user interrupts it.

    Raises:
        SystemExit: with code 2 after a failure, 130 after an interrupt, 143 after SIGTERM.

    Example:
        >>> with exit_on_stage_error(store):
        ...     report = execute(job, plan, store, Display())
    """
    from wsss_ray.cli.signals import Ended, unwound_by_sigterm
    from wsss_ray.core.errors import DamagedFile
    from wsss_ray.engine.records import StageError

    try:
        with unwound_by_sigterm():
            yield
    except StageError as error:
        fail(str(error))
    except ConnectionError as error:
        refused = f"the cluster at {os.environ.get('RAY_ADDRESS')} refused the connection"
        fail(f"RAY_ADDRESS: {refused}: {str(error).strip().splitlines()[0]}. Check the versions and the token.")
    except DamagedFile as error:
        fail(str(error))
    except OSError as error:
        fail(f"store {store.uri}: {'cannot be read or written: ' if error.errno else ''}{error}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, code=130)
    except Ended as end:
        fail(TERMINATED, code=int(end.code or 0))


def known_run(store: RunStore, run: str) -> dict[str, Any]:
    """Return the content of a run's `run.json`. Exit if the store has no such run.

    Example:
        >>> [stage["name"] for stage in known_run(store, "pets")["stages"]][-1]
        'miou'
    """
    from wsss_ray.storage.documents import RUN

    names = store.names(store.path("runs"))
    path = store.run_path(run, "run.json")
    if run not in names or not store.exists(path):
        fail(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    about: dict[str, Any] = store.read_json(path, RUN)
    return about


def say_data(plan: Plan) -> None:
    """Print how many images each data stage has found, so that wrong paths and tags are seen at once."""
    from wsss_ray.data.source import DataSplit

    for stage in plan:
        if isinstance(stage.component, DataSplit):
            typer.echo(f"{stage.name}: {stage.component.summary()}")


def count_done(plan: Plan, store: RunStore) -> int:
    """Count the stages of a plan that are done."""
    from wsss_ray.storage.finished import Finished

    finished = Finished(store)
    finished.look_at(plan)
    return sum(map(finished.is_done, plan))


def figure(value: float | None) -> str:
    """Format a score with three digits, or `-` for None."""
    return "-" if value is None else f"{value:.3f}"


def table(header: list[str], rows: list[list[str]], *, right: Collection[str] = ()) -> None:
    """Print aligned columns, two spaces apart.

    Args:
        header: Names of the columns.
        rows: Cells of each row, one for each column.
        right: Names of the columns to align to the right, for numbers.

    Example:
        >>> table(["stage", "time"], [["seed", "9 s"], ["evaluate", "12 s"]], right=["time"])
        stage     time
        seed       9 s
        evaluate  12 s
    """
    columns = [[name, *(row[place] for row in rows)] for place, name in enumerate(header)]
    widths = [max(map(len, column)) for column in columns]
    aligned = [
        [cell.rjust(width) if column[0] in right else cell.ljust(width) for cell in column]
        for column, width in zip(columns, widths, strict=True)
    ]
    for line in zip(*aligned, strict=True):
        typer.echo("  ".join(line).rstrip())


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error message and exit.

    Args:
        message: The message, one line per mistake.
        code: Exit code.

    Example:
        >>> fail("--out labels: is a file; give a folder")
        error: --out labels: is a file; give a folder
    """
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)
