"""Complete names of runs and stages in a shell, from the store that --store names or from `runs`.

Completion must be fast. So this module imports nothing but the standard library, and reads only stores that are folders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_SKIPPED = (OSError, ValueError, LookupError, TypeError, RecursionError)  # completion prints no messages


def run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """List the runs of the store that begin with what is typed; none if the store cannot be read.

    Args:
        ctx: The command line so far.
        incomplete: Beginning of a name.

    Example:
        >>> ctx = typer.Context(typer.core.TyperCommand("show"))
        >>> ctx.params = {"store": "/nfs/runs"}
        >>> run_names(ctx, "p")
        ['pets']
    """
    folder = _runs(ctx)
    try:
        return sorted(path.name for path in folder.iterdir() if path.name.startswith(incomplete) and path.is_dir())
    except _SKIPPED:
        return []


def label_stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """List the stages of the given run that may hold label maps. The arguments are those of `run_names`."""
    return _stages(ctx, ("seed", "evaluate"), incomplete)


def trained_stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """List the train stages of the given run. The arguments are those of `run_names`."""
    return _stages(ctx, ("train",), incomplete)


def _stages(ctx: typer.Context, kinds: tuple[str, ...], incomplete: str) -> list[str]:
    try:
        run = ctx.params["run"] or ctx.args[0]  # click parses no argument of a line that ends in an option
        stages: list[dict[str, Any]] = json.loads((_runs(ctx) / run / "run.json").read_bytes())["stages"]
        return [stage["name"] for stage in stages if stage["kind"] in kinds and stage["name"].startswith(incomplete)]
    except _SKIPPED:
        return []


def _runs(ctx: typer.Context) -> Path:
    """Return the folder of the runs. For a store that is no folder, it is a path that does not exist."""
    return Path(ctx.params.get("store") or "runs", "runs").expanduser()
