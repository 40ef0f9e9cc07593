"""Show runs side by side: the command compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_ray.cli.complete import run_names
from wsss_ray.cli.console import OpenStore, fail, figure, short, table

if TYPE_CHECKING:
    from wsss_ray.inference.compare import Comparison

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN RUN...", help="Runs; RUN@2 is attempt 2 at a run.", autocompletion=run_names)
]


Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="Write one page with all this, and with the same images as each run labels them."),
]


def compare(runs: Runs, report: Report = None, store: OpenStore = "runs") -> None:
    """Show the scores of runs side by side, those of each class, and the fields in which their jobs differ."""
    from wsss_ray.inference.compare import compare as compare_runs
    from wsss_ray.inference.compare import run_named

    if report is not None and not report.parent.is_dir():
        fail(f"--report {report}: there is no folder {report.parent}. Make it, or give another path.")
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
    if report is not None:
        _write(found, report)


def _write(found: Comparison, path: Path) -> None:
    """Write the page of a comparison."""
    from wsss_ray.storage.atomic import replacing

    try:
        page = found.report()
        with replacing(path) as file:
            file.write(page)
    except OSError as error:
        what = str(error) if error.errno is None else f"--report {path}: cannot be written ({error.strerror}). Give another path."
        fail(what)
    typer.echo(f"report: {path}")


def _say_scores(found: Comparison) -> None:
    """Print a table of each kind of score, then one of the classes of each evaluate stage."""
    from wsss_ray.reporting.headings import FIGURES

    rows = []
    for stage, several in found.scores.items():
        for name, shown in FIGURES.items():
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
