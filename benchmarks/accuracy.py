"""Run sweeps through the command line and collect the scores of their trials: what the benchmarks of accuracy share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from wsss_ray.config.job import plans_of, read_job
from wsss_ray.runners.trial import scores
from wsss_ray.storage.store import RunStore

Scores = dict[str, dict[str, list[float]]]
"""Values of all seeds, by trial and score."""


def submit(job: Path, changes: Sequence[str], store: str) -> None:
    """Run a job through the command line, as a user would type it."""
    command = [sys.executable, "-m", "wsss_ray", "submit", str(job), "--store", store]
    subprocess.run([*command, *(part for change in changes for part in ("--set", change))], check=True)


def scores_of(job: Path, changes: Sequence[str], store: RunStore, columns: Mapping[str, str]) -> Scores:
    """Collect the scores of a sweep that are in the store.

    Args:
        job: The job file.
        changes: What distinguishes the run from the job file.
        store: The store.
        columns: The stages of the scores, with their column in the table.

    Returns:
        The values of every trial that has a score, by column.

    Example:
        >>> scores_of(Path("cam.yaml"), [], RunStore("runs"), {"miou": "model"})
        {'CAM': {'model': [0.44, 0.45, 0.44]}}
    """
    found: Scores = {}
    trials = read_job(job, list(changes)).trials()
    for one, plan in zip(trials, plans_of(one.job for one in trials), strict=True):
        row = found.setdefault(one.trial.name, {column: [] for column in columns.values()})
        for name, value in scores(plan, store).items():
            if name in columns:
                row[columns[name]].append(value)
    return {name: row for name, row in found.items() if any(row.values())}


def cell(values: Sequence[float]) -> str:
    """Write mean and sample standard deviation, and the number of runs if they are not three.

    Example:
        >>> cell([0.5, 0.52, 0.51])
        '0.510 ± 0.010'
    """
    if not values:
        return "-"
    few = "" if len(values) == 3 else f" (n={len(values)})"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") + few


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown. The first column has no heading."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
