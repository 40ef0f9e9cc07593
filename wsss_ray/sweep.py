"""A sweep: variants of one job, such as the rows of a paper's table. Stages that they share are made once, being found by id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wsss_ray.component import digest


class Trial(BaseModel):
    """One variant: fields of the job by their dotted path, and the figure that the paper has for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="What the paper's table calls the row.")
    set: dict[str, Any] = Field(default={}, description="Fields to change, as a.b.c: value.")
    published: float | None = Field(default=None, description="The paper's figure in per cent, to stand beside ours.")

    @field_validator("set")
    @classmethod
    def _of_the_method_or_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name.partition(".")[0] in ("name", "sweep") or name in ("run", "run.seed", "run.store"):
                raise ValueError(f"{name} is not a trial's to set; seeds are the sweep's, one store serves all its trials")
        return value


class Sweep(BaseModel):
    """The `sweep` block of a job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str = Field(default="", description="Paper and table that the trials are from.")
    metrics: tuple[str, ...] = Field(default=("miou",), min_length=1, description="Scores to show, by stage.")
    seeds: tuple[int, ...] = Field(default=(), description="Values of run.seed, each for every trial; empty: the job's own.")
    trials: tuple[Trial, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Sweep:
        slugs = [slug(trial.name) for trial in self.trials]
        twice = next((name for name in slugs if slugs.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"trials: two are called {twice!r}; give each a name of its own")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} has one twice")
        return self


def slug(name: str) -> str:
    """A trial's name as part of a run's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() or "trial"


def trial_name(job: str, trial: Trial, seed: int) -> str:
    """The name of a trial's run; where it would be too long, shortened and told apart by a digest."""
    name = f"{job}.{slug(trial.name)}.{seed}"
    return name if len(name) <= 100 else f"{name[:80]}.{digest(name)[:8]}.{seed}"


def result_table(sweep: Sweep, results: Sequence[tuple[Trial, dict[str, float]]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each trial's scores in per cent, mean and sample deviation over its seeds, and the published figure.

    `results` holds, for every trial and seed that ran, the scores by name; a trial may be missing.
    """
    published = any(trial.published is not None for trial in sweep.trials)
    header = ["trial", *sweep.metrics, *(["published"] if published else [])]
    rows = []
    for trial in sweep.trials:
        found = [scores for of, scores in results if of == trial]
        cells = [_cell([100 * scores[name] for scores in found if name in scores]) for name in sweep.metrics]
        figure = [f"{trial.published:.1f}" if trial.published is not None else "-"] if published else []
        rows.append([trial.name, *cells, *figure])
    return header, rows


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
