"""Show runs side by side: the command compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wsss_ray.cli.complete import run_names
from wsss_ray.cli.console import OpenStore, fail, figure, short, table

if TYPE_CHECKING:
    from wsss_ray.inference.compare import Comparison

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN RUN...", help="Runs; RUN@2 is attempt 2 at a run.", autocompletion=run_names)
]


def compare(runs: Runs, store: OpenStore = "runs") -> None:
    """Show the scores of runs side by side, those of each class, and the fields in which their jobs differ."""
    from wsss_ray.inference.compare import compare as compare_runs
    from wsss_ray.inference.compare import run_named

    try:
        found = compare_runs([run_named(name, store) for name in runs])
    except ValueError as error:
        fail(str(error))
    _say_scores(found)
    if found.fields:
        typer.echo("")
        rows = [[field, *(short(str(value), 40) for value in values)] for field, values in found.fields.items()]
        table(["field", *found.runs], rows)
    else:
        typer.echo("the jobs are the same")


def _say_scores(found: Comparison) -> None:
    """Print a table of each kind of score, then one of the classes of each evaluate stage."""
    names = {"mIoU": "miou", "precision": "precision", "recall": "recall", "coverage": "coverage"}
    rows = []
    for stage, several in found.scores.items():
        for shown, name in names.items():
            rows.append([stage, shown, *(figure(getattr(score, name, None)) for score in several)])
        rows.append([stage, "images", *("-" if score is None else str(score.images) for score in several)])
    if not rows:
        typer.echo("none of these runs has a score yet")
        return
    table(["stage", "score", *found.runs], rows)
    for stage in found.scores:
        typer.echo("")
        classes = [[name, *map(figure, values)] for name, values in found.per_class(stage).items()]
        table([f"IoU in {stage}", *found.runs], classes)
