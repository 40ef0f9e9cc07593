"""Build the report of a sweep in one HTML file: the ranking, the effect of each parameter, and the errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from wsss_ray.reporting.headings import score_words
from wsss_ray.reporting.report.markup import DASH, duration, number, shorten, tag, whole
from wsss_ray.reporting.report.page import Figure, PageHeader, Section, job, page, render
from wsss_ray.reporting.report.sweep_axes import Parameter, SweepAxis, parameters
from wsss_ray.reporting.report.sweep_charts import Marks, dots, parallel, scatter
from wsss_ray.reporting.words import percent
from wsss_ray.storage.trials import TrialRow, ranking

_SHOWN = 50  # trials that the ranking shows unfolded
_ERRORS = 100


def build_sweep(name: str, rows: Sequence[TrialRow], metric: str, job_yaml: str, stages: tuple[int, int] | None = None) -> bytes:
    """Build the report of a sweep, finished or not.

    Args:
        name: name of the sweep.
        rows: one row for each run, in any order.
        metric: score that ranks the trials.
        job_yaml: text of the job file.
        stages: number of distinct stages, and the number if trials shared none. By default they are counted from the rows.

    Returns:
        The page as UTF-8 HTML. The same rows give the same bytes, in any order.

    Example:
        >>> html = build_sweep("pets-theta", rows, "miou", job_yaml)
    """
    metric = score_words(metric)
    rows = ranking(map(_finite_metrics, rows), metric)
    trials, fields = _trials(rows, metric), parameters(rows)
    methods, seeds = sorted({row.method for row in rows}), sorted({row.seed for row in rows})
    about = _about("method", methods) | _about("seed", list(map(str, seeds)))
    ended = max((row.finished for row in rows if row.finished), default="")
    header = PageHeader(name, about, "last trial ended", ended, _figures(rows, trials, metric, stages))
    parts = [
        _ranking(trials, rows, metric, fields),
        _together(rows, metric, fields),
        _each(rows, metric, fields),
        _errors(rows),
        job(job_yaml),
    ]
    return page(header, parts)


@dataclass(frozen=True)
class _Trial:
    """A trial: its rows, one for each random seed."""

    rows: tuple[TrialRow, ...]
    rank: int | None = None

    @property
    def name(self) -> str:
        return self.rows[0].name

    @property
    def about(self) -> str:
        return self.rows[0].run if len(self.rows) == 1 else f"{len(self.rows)} seeds"

    @property
    def published(self) -> float | None:
        """Return the figure of the paper, as a share of one."""
        published = self.rows[0].published
        return published / 100 if published is not None else None

    @property
    def seconds(self) -> float:
        return float(sum(row.seconds for row in self.rows))

    @property
    def state(self) -> tuple[str, bool]:
        """Describe the state of the run, or count the states of several runs. True if a run failed or is missing."""
        count = {state: sum(row.state == state for row in self.rows) for state in ("done", "stopped", "failed", "missing")}
        alarming = bool(count["failed"] or count["missing"])
        if len(self.rows) > 1:
            return ", ".join(f"{number} {state}" for state, number in count.items() if number), alarming
        (row,) = self.rows
        share = row.progress if row.state != "done" else None
        return row.state + (f" at {percent(share)}" if share is not None else ""), alarming

    @property
    def text(self) -> str:
        """Return the full text of the first error."""
        return next((row.error for row in self.rows if row.error), "").strip()

    @property
    def error(self) -> str:
        """Return the main line of the first error: the last line of a traceback, else the first line."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return (lines[-1] if lines[0].startswith("Traceback") else lines[0]) if lines else ""

    def score(self, metric: str) -> tuple[float | None, str, str | None]:
        """Return the mean over the seeds that have a score, its text with the deviation, and a text of the single scores."""
        values = [row.metrics[metric] for row in self.rows if metric in row.metrics]
        if len(values) < 2:
            only = values[0] if values else None
            return only, number(only), None
        return mean(values), f"{number(mean(values))} ± {number(stdev(values))}", ", ".join(map(number, values))

    def words(self, field: Parameter) -> str:
        """Return the value of a parameter in words; a dash if the trial did not set it."""
        return field.words(self.rows[0]) if field.has(self.rows[0]) else DASH


def _trials(rows: Sequence[TrialRow], metric: str) -> list[_Trial]:
    """Group rows by trial and rank them by the mean over the seeds, best first."""
    named: dict[str, list[TrialRow]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    means = []
    for same in named.values():
        known = [row.metrics[metric] for row in same if metric in row.metrics]
        means.append(replace(same[0], metrics={metric: mean(known)} if known else {}))
    ranked = enumerate(ranking(means, metric), start=1)
    return [_Trial(tuple(sorted(named[row.name], key=_seed)), rank if row.metrics else None) for rank, row in ranked]


def _figures(rows: Sequence[TrialRow], trials: Sequence[_Trial], metric: str, stages: tuple[int, int] | None) -> list[Figure]:
    """List the main figures: best score, progress, failures, shared stages and time."""
    done, stopped, failed = (sum(row.state == state for row in rows) for state in ("done", "stopped", "failed"))
    distinct, total = stages or (len({id for row in rows for id in row.stages}), sum(len(row.stages) for row in rows))
    best = trials[0] if trials and trials[0].rank else None
    shared = f"sharing stages saves {percent(1 - distinct / total)}" if distinct < total else None
    return [
        Figure(f"best {metric}", best.score(metric)[1] if best else DASH, shorten(best.name, 80) if best else None),
        Figure("trials done" if len(trials) == len(rows) else "runs done", f"{whole(done)} of {whole(len(rows))}"),
        Figure("ended early", whole(stopped)),
        Figure("failed", whole(failed), href="#errors" if failed else None),
        Figure("distinct stages", f"{whole(distinct)} of {whole(total)}" if total else DASH, shared),
        Figure("time of all trials", duration(float(sum(row.seconds for row in rows))) if rows else DASH),
    ]


def _ranking(trials: Sequence[_Trial], rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Section:
    """List every trial. Those after the first fifty are folded."""
    others = sorted({name for row in rows for name in row.metrics} - {metric})
    published, failing = any(row.published is not None for row in rows), any(row.error for row in rows)
    numbers = [metric, *(["published"] if published else []), *others]
    named = [tag("span", shorten(field.label, 40, tail=True), title=field.name) for field in fields]
    numeric = {*range(1, len(numbers) + 1), len(numbers) + len(fields) + 2}
    seeds = any(len(trial.rows) > 1 for trial in trials)
    body = render(
        "sweep_ranking.html",
        trials=trials,
        shown=_SHOWN,
        metric=metric,
        others=others,
        fields=fields,
        published=published,
        failing=failing,
        order=f"Trials by {metric}, best first" + (", mean ± sample deviation over seeds" if seeds else ""),
        head=["trial", *numbers, *named, "state", "time", *(["error"] if failing else [])],
        numeric=numeric | {i for i, field in enumerate(fields, start=len(numbers) + 1) if field.numeric},
    )
    return Section("ranking", "Ranking", body)


def _together(rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Section:
    """Draw all parameters at once. Empty if fewer than two vary, or if no trial has a score."""
    varying = [field for field in fields if field.varies]
    known = [row.metrics[metric] for row in rows if metric in row.metrics]
    chart = None
    if len(varying) > 1 and known:
        chart = parallel(varying, rows, SweepAxis.of_numbers(known, logarithmic=False), metric)
    return Section("all-parameters", "All parameters", render("sweep_all.html", chart=chart))


def _each(rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Section:
    """Draw the score over every parameter that varies. Empty if trials set none."""
    scored = [row for row in rows if metric in row.metrics]
    charts, keys = [], None
    if scored:
        score = SweepAxis.of_numbers((row.metrics[metric] for row in scored), logarithmic=False)
        marks = Marks(metric, tuple(sorted({row.method for row in rows})), scored[0])
        keys = marks.key(scored, means=any(field.varies and not field.numeric for field in fields))
        for field in sorted(fields, key=lambda field: field.numeric):
            having = [row for row in scored if field.has(row)]
            if field.varies and having:
                charts.append((scatter if field.numeric else dots)(field, having, score, marks))
    fixed = [f"{field.label} {shorten(field.texts[0], 90)}" for field in fields if not field.varies]
    body = render("sweep_each.html", metric=metric, waiting=bool(fields and not scored), fixed=fixed, keys=keys, charts=charts)
    return Section("each-parameter", "Each parameter", body)


def _errors(rows: Sequence[TrialRow]) -> Section:
    """List the first hundred failures with their full errors."""
    failed = sorted((row for row in rows if row.error or row.state == "failed"), key=lambda row: (row.name, *_seed(row)))
    body = render("sweep_errors.html", failed=[_Trial((row,)) for row in failed], most=_ERRORS)
    return Section("errors", "Errors", body)


def _about(what: str, values: Sequence[str]) -> dict[str, str]:
    """Name the first six values that trials have, for the top of the page."""
    shown = ", ".join(values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
    return {what + ("s" if len(values) > 1 else ""): shown} if values else {}


def _finite_metrics(row: TrialRow) -> TrialRow:
    """Return the row with its scores under their words, without those that are not finite."""
    return replace(row, metrics={score_words(name): value for name, value in row.metrics.items() if math.isfinite(value)})


def _seed(row: TrialRow) -> tuple[int, str]:
    return row.seed, row.run
