"""What a shell may complete besides commands and options: names of runs and stages, as the store `runs` or --store has them.

A tab must not wait: nothing but the standard library is imported here, and only a store that is a folder is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_SKIPPED = (OSError, ValueError, LookupError, TypeError)  # a tab is no place for messages


def run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs of the store."""
    folder = _runs(ctx)
    try:
        return sorted(path.name for path in folder.iterdir() if path.name.startswith(incomplete) and path.is_dir())
    except _SKIPPED:
        return []


def label_stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages of the run that was given that may hold label maps."""
    return _stages(ctx, ("seed", "evaluate"), incomplete)


def trained_stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Trainings of the run that was given."""
    return _stages(ctx, ("train",), incomplete)


def _stages(ctx: typer.Context, kinds: tuple[str, ...], incomplete: str) -> list[str]:
    try:
        run = ctx.params["run"] or ctx.args[0]  # of a line that ends in an option without its value, no argument is parsed
        stages: list[dict[str, Any]] = json.loads((_runs(ctx) / run / "run.json").read_bytes())["stages"]
        return [stage["name"] for stage in stages if stage["kind"] in kinds and stage["name"].startswith(incomplete)]
    except _SKIPPED:
        return []


def _runs(ctx: typer.Context) -> Path:
    """Where the runs of the store are; below a file that is not there if the store is no folder."""
    return Path(ctx.params.get("store") or "runs", "runs").expanduser()
