"""Define sweeps: variants of one job, either rows of a paper's table or points of a search space. Shared stages run once.

Each point is drawn on its own from the job's seed, so a sweep that is submitted again, or with more samples, has the same points.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import mean, stdev
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wsss_ray.core.component import canonical, digest
from wsss_ray.core.graph import Plan
from wsss_ray.core.names import shortest_ends
from wsss_ray.core.randomness import random_key

MOST_TRIALS = 10_000
"""Most trials of a sweep: each is planned before the first one starts."""


class Trial(BaseModel):
    """One variant of the job: fields to change, and the score that the paper reports for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="Name of the trial, such as the row of the paper's table.")
    set: dict[str, Any] = Field(default={}, description="Fields to change, as a.b.c: value.")
    published: float | None = Field(default=None, description="Published score in per cent, shown beside ours.")

    @field_validator("set")
    @classmethod
    def _of_the_method_or_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_names(value)
        return value


class Domain(BaseModel):
    """The values of one field in a search space: set exactly one of these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: tuple[Any, ...] | None = Field(
        default=None, min_length=1, description="Try each of these values with every draw of other fields."
    )
    choice: tuple[Any, ...] | None = Field(
        default=None, min_length=1, description="Draw one of these values or blocks, all equally likely."
    )
    uniform: tuple[float, float] | None = Field(default=None, description="Draw a number between the two.")
    loguniform: tuple[float, float] | None = Field(
        default=None, description="Draw a number between the two, uniform in its logarithm."
    )

    @model_validator(mode="after")
    def _one(self) -> Domain:
        if len(self.model_fields_set) != 1:
            raise ValueError("give one of grid, choice, uniform, loguniform")
        bounds = self.uniform or self.loguniform
        if bounds is not None and not (bounds[0] < bounds[1] and (self.loguniform is None or bounds[0] > 0)):
            positive = " and positive" if self.loguniform else ""
            raise ValueError(f"[{bounds[0]:g}, {bounds[1]:g}]: the first number must be smaller{positive}")
        return self

    def holds(self, value: Any) -> bool:
        """Return True if the domain contains a value."""
        if bounds := self.uniform or self.loguniform:
            return isinstance(value, int | float) and bounds[0] <= value <= bounds[1]
        return value in (self.grid or self.choice or ())

    def draw(self, key: int) -> Any:
        """Map a 63-bit random key to a value; None for a grid."""
        if self.choice is not None:
            return self.choice[key % len(self.choice)]
        share = key / 2**63
        if self.uniform is not None:
            return _rounded(self.uniform[0] + share * (self.uniform[1] - self.uniform[0]))
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            return _rounded(math.exp(low + share * (high - low)))
        return None


class Asha(BaseModel):
    """Asynchronous successive halving (Li et al., MLSys 2020): compares trials by the loss of one training at equal steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["asha"]
    stage: str | None = Field(default=None, description="Train stage to compare; null: the last of the plan.")
    grace: float = Field(default=0.2, gt=0, lt=1, description="Share of the training that every trial completes.")
    reduction: int = Field(default=3, ge=2, description="At each rung, one of this many trials continues.")


class Pbt(BaseModel):
    """Population based training (Jaderberg et al., 2017) of a learning rate, in generations.

    The population is `sweep.samples` draws of one field that ends in `.optimizer.lr`. After each generation, the worst members
    copy checkpoint and rate of members drawn from the best, and multiply the rate by one of `factors`. The others continue. The
    rates replace the learner's schedule and are written as `piecewise`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pbt"]
    generations: int = Field(default=4, ge=2, description="Number of equal parts of the training.")
    quantile: float = Field(default=0.25, gt=0, le=0.5, description="Share of members that are replaced, and that are copied.")
    factors: tuple[float, ...] = Field(
        default=(0.8, 1.25), min_length=1, description="Factors for a copied rate, one drawn per copy."
    )


class Sweep(BaseModel):
    """The `sweep` block of a job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str = Field(default="", description="Paper and table of the trials.")
    metrics: tuple[str, ...] = Field(
        default=("miou",), min_length=1, description="Scores to show, by stage name; the first ranks the trials."
    )
    seeds: tuple[int, ...] = Field(default=(), description="Values of run.seed to run every trial with; empty: the job's.")
    trials: tuple[Trial, ...] = Field(default=(), description="Variants, listed one by one; or give a space.")
    space: dict[str, Domain] = Field(default={}, description="Fields to search, as a.b.c: {uniform: [0, 1]}.")
    samples: int = Field(default=1, ge=1, description="Draws from the space, each with every point of its grids.")
    search: Literal["random", "optuna"] = Field(default="random", description="Choice of draws; optuna learns from results.")
    scheduler: Asha | Pbt | None = Field(
        default=None, discriminator="kind", description="Ends trials early (asha) or breeds them (pbt); null: neither."
    )
    max_concurrent: int = Field(default=1, ge=1, description="Trials that run at the same time and share the cluster.")

    @field_validator("space")
    @classmethod
    def _names(cls, value: dict[str, Domain]) -> dict[str, Domain]:
        _check_names(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Sweep:
        if bool(self.trials) == bool(self.space):
            raise ValueError("give either trials (at least one) or a space")
        if self.search == "optuna" and (not self.space or any(domain.grid for domain in self.space.values()) or self.seeds):
            raise ValueError("search: optuna needs a space without grids, and no sweep.seeds. Change these, or use random.")
        if self.search == "optuna" and (self.scheduler or all(domain.choice for domain in self.space.values())):
            raise ValueError("search: optuna needs a uniform or loguniform field, and no scheduler. Change these, or use random.")
        if isinstance(self.scheduler, Pbt):
            field, domain = next(iter(self.space.items()), ("", None))
            alone = len(self.space) == 1 and domain is not None and not domain.grid and field.endswith(".optimizer.lr")
            if not alone or self.seeds or self.search != "random" or self.samples < 2:
                wants = "a space of one field, method.PART.optimizer.lr, drawn at random, at least 2 samples, and no seeds"
                raise ValueError(f"scheduler: pbt needs {wants}. Change these, or remove it.")
        return self

    @property
    def learns(self) -> bool:
        """Return True if results choose later trials, which are then unknown before the start."""
        return self.search == "optuna" or isinstance(self.scheduler, Pbt)

    @model_validator(mode="after")
    def _not_too_many(self) -> Sweep:
        points = self.samples * math.prod(len(domain.grid) for domain in self.space.values() if domain.grid)
        count = max(len(self.trials), points if self.space else 0) * max(1, len(self.seeds))
        if count > MOST_TRIALS:
            raise ValueError(f"{count} trials, more than {MOST_TRIALS}. Lower samples, or give fewer values or seeds.")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Sweep:
        twice = next((name for name, count in Counter(slug(trial.name) for trial in self.trials).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"trials: two are called {twice!r}. Give each its own name.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} lists one twice. Remove it.")
        return self


def check_scheduler(sweep: Sweep, plans: Iterable[Plan]) -> None:
    """Raise ValueError if the scheduler watches a training that a plan does not contain."""
    stage = sweep.scheduler.stage if isinstance(sweep.scheduler, Asha) else None
    for plan in plans if stage is not None else ():
        trains = [one.name for one in plan if one.kind == "train"]
        if stage not in trains:
            raise ValueError(f"sweep.scheduler.stage: {stage} is no training of this plan; there are {', '.join(trains)}")


def trials_of(sweep: Sweep, seed: int) -> tuple[Trial, ...]:
    """Return the trials, listed or drawn; none if they depend on results. A point that is drawn twice is one trial."""
    return () if sweep.learns else sweep.trials or drawn_trials(sweep, seed)


def drawn_trials(sweep: Sweep, seed: int) -> tuple[Trial, ...]:
    """Draw the points of the space as trials."""
    points: dict[str, dict[str, Any]] = {}
    grids = {name: domain.grid for name, domain in sweep.space.items() if domain.grid}
    for sample in range(sweep.samples):
        drawn = {name: domain.draw(random_key("sweep", seed, sample, name)) for name, domain in sweep.space.items()}
        for values in itertools.product(*grids.values()):
            point = drawn | dict(zip(grids, values, strict=True))
            points.setdefault(canonical(point), point)
    trials = [trial_of(point) for point in points.values()]
    slugs = [slug(trial.name) for trial in trials]
    uses = Counter(slugs)
    return tuple(
        trial if uses[name] == 1 else trial.model_copy(update={"name": f"{trial.name} {digest(trial.set)[:6]}"})
        for trial, name in zip(trials, slugs, strict=True)
    )


def trial_of(point: dict[str, Any]) -> Trial:
    """Return the trial of one point of the space, named by its values."""
    return Trial(name=", ".join(_labels(point)), set=point)


def _labels(point: dict[str, Any]) -> Iterator[str]:
    ends = shortest_ends(point)
    for name, value in point.items():
        tags = [value[tag] for tag in ("name", "kind") if isinstance(value, dict) and tag in value]
        if tags:
            alone = {key: part for key, part in value.items() if key not in ("name", "kind")}
            yield f"{tags[0]} {digest(alone)[:4]}" if alone else str(tags[0])
        elif name == "method.name":
            yield str(value)
        elif isinstance(value, dict | list):
            yield f"{ends[name]} {digest(value)[:6]}"
        else:
            yield f"{ends[name]} {value:.6g}" if isinstance(value, float) else f"{ends[name]} {value}"


def _rounded(value: float) -> float:
    """Round to six digits: enough for a search, and short enough to read."""
    return float(f"{value:.6g}")


def _check_names(fields: dict[str, Any]) -> None:
    for name in fields:
        if name.partition(".")[0] in ("name", "sweep") or name in ("run", "run.seed", "run.store"):
            raise ValueError(f"{name} cannot be set by a trial. Seeds come from sweep.seeds, and all trials share one store.")


def slug(name: str) -> str:
    """Turn a trial's name into a part of its run's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() or "trial"


def trial_name(job: str, trial: Trial, seed: int) -> str:
    """Return the name of a trial's run. A name that is too long is cut, and a digest keeps it unique."""
    name = f"{job}.{slug(trial.name)}.{seed}"
    return name if len(name) <= 100 else f"{name[:80]}.{digest(name)[:8]}.{seed}"


def result_table(sweep: Sweep, results: Sequence[tuple[Trial, dict[str, float]]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of trials.

    A row has the trial's scores in per cent, as mean and sample deviation over its seeds, and the published score.

    Args:
        sweep: Sweep whose trials are the rows.
        results: Scores by name for each trial and seed that ran. A trial may be missing.
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
