"""Remove runs, and free the disk of what no run refers to: the commands rm and gc."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_ray.cli.console import OpenStore, RunName, fail, open_store, table
from wsss_ray.core.counted import counted
from wsss_ray.reporting.words import size

if TYPE_CHECKING:
    from wsss_ray.storage.store import RunStore

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def rm(
    run: RunName,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", help="Remove only this attempt at the run, as show lists them.")
    ] = None,
    store: OpenStore = "runs",
    yes: Yes = False,
) -> None:
    """Remove a run, or a sweep with its trials.

    Its stages stay, because other runs may share them; gc frees the others. Says first what it removes, and asks.
    """
    from wsss_ray.inference.cleanup import removal, remove, remove_attempt

    run_store = open_store(store, must_exist=True)
    try:
        found = removal(run_store, run)
        if attempt is not None:
            _ask(f"Remove attempt {attempt} at {run}?", yes=yes)
            remove_attempt(run_store, run, attempt)
            typer.echo(f"attempt {attempt} at {run} is removed")
        else:
            others = f" and {counted(len(found.runs) - 1, 'trial')}" if len(found.runs) > 1 else ""
            typer.echo(f"{run}{others}: {size(found.num_bytes)} of job, report and logs in {run_store.run_path(run)}")
            _ask(f"Remove {run}?", yes=yes)
            remove(run_store, found)
            typer.echo(f"{run} is removed")
    except ValueError as error:
        fail(str(error))
    _say_unused(run_store)


def gc(store: OpenStore = "runs", yes: Yes = False) -> None:
    """Free the disk of stages that no run refers to.

    Says first what it would delete, and asks. Stages that a process is making are kept.
    """
    from wsss_ray.inference.cleanup import free, unused

    run_store = open_store(store, must_exist=True)
    found = unused(run_store)
    for name in found.strangers:
        typer.echo(f"left alone: {run_store.path('stages', name)} (a link, or no stage)")
    if not found.stages:
        typer.echo("every stage belongs to a run; there is nothing to free")
        return
    states = {stage_id: "done" if run_store.record_by_id(stage_id) else "unfinished" for stage_id, _ in found.stages}
    rows = [[stage_id, states[stage_id], size(num_bytes)] for stage_id, num_bytes in found.stages]
    table(["stage", "state", "size"], rows, right=["size"])
    typer.echo(f"{counted(len(found.stages), 'stage', 'belong')} to no run: {size(found.num_bytes)}")
    _ask("Delete them?", yes=yes)
    gone = free(run_store, found)
    typer.echo(f"{counted(len(gone.stages), 'stage', 'are')} deleted: {size(gone.num_bytes)}")


def _say_unused(store: RunStore) -> None:
    """Print what `gc` would free, if that can be known."""
    from wsss_ray.core.errors import DamagedFile
    from wsss_ray.inference.cleanup import unused

    try:
        found = unused(store)
    except DamagedFile as error:
        typer.echo(f"warning: {error}")
        return
    if found.stages:
        command = f"wsss-ray gc --store {store.uri}"
        typer.echo(f"{counted(len(found.stages), 'stage', 'belong')} to no run: {size(found.num_bytes)}; `{command}` frees them")


def _ask(question: str, *, yes: bool) -> None:
    """Exit unless the user agrees."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("--yes: is needed where nobody can answer; nothing is deleted")
    if not typer.confirm(question):
        typer.echo("nothing is deleted")
        raise SystemExit(1)
