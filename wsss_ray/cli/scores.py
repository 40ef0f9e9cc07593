"""Print the scores of a run, and warnings about those that are suspicious."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from wsss_ray.cli.console import figure, table
from wsss_ray.reporting.headings import FIGURES

if TYPE_CHECKING:
    from wsss_ray.reporting.doubts import Named

_TABLES = {
    "evaluate": FIGURES,
    "classify": {"map": "mAP", "f1": "F1", "chance": "mAP by chance"},
}


def say_scores(stages: Sequence[Named]) -> None:
    """Print a table of the scores of models and seeds, one of the scores of tags, and a line for each doubt about a score.

    Args:
        stages: names and records of the finished stages of a run, in the order of its plan.

    Example:
        >>> say_scores([(stage.name, record) for stage in plan if (record := store.record(stage)) is not None])
        score  images  mIoU   precision  recall  coverage
        miou   8       0.872  0.993      0.879   1.000
    """
    from wsss_ray.reporting.doubts import doubts

    for kind, columns in _TABLES.items():
        found = [(name, record["metrics"]) for name, record in stages if record["kind"] == kind]
        if found:
            rows = [[name, str(metrics["scored"]), *(figure(metrics[key]) for key in columns)] for name, metrics in found]
            table(["score" if kind == "evaluate" else "tags", "images", *columns.values()], rows)
    for line in doubts(stages):
        typer.echo(f"warning: {line}")
