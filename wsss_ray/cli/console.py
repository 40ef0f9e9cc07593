"""Load jobs and stores, and print tables, for all commands. A mistake ends the command with one clear message."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from wsss_ray.cli.complete import run_names, trained_stages

if TYPE_CHECKING:
    from wsss_ray.config.job import LoadedJob
    from wsss_ray.config.planning import PlannedJob
    from wsss_ray.reporting.progress import Display
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


@contextmanager
def exit_on_job_error() -> Iterator[None]:
    """Exit with one line per mistake if a job, its data, its store or a run is not valid in this block.

    Example:
        >>> with exit_on_job_error():
        ...     planned = plan("jobs/demo.yaml")
    """
    from wsss_ray.config.document import JobError

    try:
        yield
    except JobError as error:
        fail(str(error))


def load(job_file: Path, override: list[str] | None) -> LoadedJob:
    """Read and validate a job file. Exit with one line per mistake. See `config.planning.load`."""
    from wsss_ray.config.planning import load as load_job

    with exit_on_job_error():
        return load_job(job_file, override)


def plan_here(loaded: LoadedJob, store: str | None, until: Until) -> PlannedJob:
    """Plan a job as this machine sees its data. Exit with one line per mistake. See `config.planning.plan_loaded`."""
    from wsss_ray.config.planning import plan_loaded

    display = display_errors()
    with exit_on_job_error(), display.still(f"reading {loaded.document.path} and its data"):
        return plan_loaded(loaded, store, until)


def display_errors() -> Display:
    """Return a display on the error stream, for progress beside an output that can be piped."""
    from rich.console import Console

    from wsss_ray.reporting.progress import Display

    return Display(Console(stderr=True, highlight=False))


def open_store(uri: str, *, must_exist: bool = False) -> RunStore:
    """Open a run store. Exit if the URI is no store. See `config.planning.open_store`."""
    from wsss_ray.config.planning import open_store as open_there

    with exit_on_job_error():
        return open_there(uri, must_exist=must_exist)


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


def short(text: str, most: int = 100) -> str:
    """Cut a text for a cell of a table."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


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
