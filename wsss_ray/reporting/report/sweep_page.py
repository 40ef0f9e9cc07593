"""The report of a sweep: which trials did best, what their parameters have to do with it, what went wrong. One HTML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from wsss_ray.reporting.report.markup import DASH, Child, Markup, bar, duration, join, number, section, table, tag, whole
from wsss_ray.reporting.report.page import render
from wsss_ray.reporting.report.sweep_axes import Axis, Parameter, parameters, shorten
from wsss_ray.reporting.report.sweep_charts import Marks, dots, parallel, scatter
from wsss_ray.storage.trials import TrialRow, ranking

_SHOWN = 50  # trials of the ranking that are not folded
_ERRORS = 100
_ERROR = 4000  # characters of one error


def build_sweep(name: str, rows: Sequence[TrialRow], metric: str, job_yaml: str, stages: tuple[int, int] | None = None) -> bytes:
    """The report of a sweep as UTF-8 HTML, as far as it has come. `metric`: the score that ranks the trials.

    `stages`: how many distinct stages the trials have, and how many if each had its own; counted from the rows if not given.
    The same rows give the same bytes, in whatever order they come.
    """
    rows = ranking(map(_finite, rows), metric)
    trials, fields = _trials(rows, metric), parameters(rows)
    parts = {
        "Ranking": _ranking(trials, rows, metric, fields),
        "All parameters": _together(rows, metric, fields),
        "Each parameter": _each(rows, metric, fields),
        "Errors": _errors(rows),
        "Job": section("job", "Job", tag("pre", tag("code", job_yaml), tabindex="0", role="region", aria_label="Job file")),
    }
    links = [tag("a", text, href="#" + text.lower().replace(" ", "-")) for text, part in parts.items() if part]
    header = _header(name, rows, trials, metric, stages)
    return render(title=name, header=header, links=links, body=join(parts.values()))


@dataclass(frozen=True)
class _Trial:
    """The rows of one name: a trial under each of its seeds."""

    rows: tuple[TrialRow, ...]
    rank: int | None

    @property
    def name(self) -> str:
        return self.rows[0].name

    def values(self, metric: str) -> list[float]:
        """The scores of those seeds that have one."""
        return [row.metrics[metric] for row in self.rows if metric in row.metrics]


def _trials(rows: Sequence[TrialRow], metric: str) -> list[_Trial]:
    """By the mean over the seeds, best first."""
    named: dict[str, list[TrialRow]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    means = []
    for same in named.values():
        known = [row.metrics[metric] for row in same if metric in row.metrics]
        means.append(replace(same[0], metrics={metric: mean(known)} if known else {}))
    ranked = enumerate(ranking(means, metric), start=1)
    return [_Trial(tuple(sorted(named[row.name], key=_seed)), rank if row.metrics else None) for rank, row in ranked]


def _header(name: str, rows: Sequence[TrialRow], trials: Sequence[_Trial], metric: str, stages: tuple[int, int] | None) -> Markup:
    """How good, how far, how long, how much was shared, and whether something went wrong."""
    count = {state: sum(row.state == state for row in rows) for state in ("done", "stopped", "failed")}
    distinct, total = stages or (len({id for row in rows for id in row.stages}), sum(len(row.stages) for row in rows))
    best = trials[0] if trials and trials[0].rank else None
    shared = f"{1 - distinct / total:.0%} less than each on its own" if distinct < total else None
    tiles = [
        _figure(f"best {metric}", _mean(best.values(metric)) if best else DASH, shorten(best.name, 80) if best else None),
        _figure("trials done" if len(trials) == len(rows) else "runs done", f"{whole(count['done'])} of {whole(len(rows))}"),
        _figure("ended early", whole(count["stopped"])),
        _figure("failed", tag("a", whole(count["failed"]), href="#errors") if count["failed"] else "0"),
        _figure("stages, of the sum over trials", f"{whole(distinct)} of {whole(total)}" if total else DASH, shared),
        _figure("time of all trials", duration(float(sum(row.seconds for row in rows))) if rows else DASH),
    ]
    methods, seeds = sorted({row.method for row in rows}), sorted({row.seed for row in rows})
    about: list[Child] = [_about("method", methods), _about("seed", list(map(str, seeds)))]
    if finished := max((row.finished for row in rows if row.finished), default=""):
        about.append(tag("span", "last trial ended ", tag("time", finished[:19].replace("T", " "), datetime=finished)))
    return join([tag("h1", name), tag("p", *about, class_="about"), tag("dl", *tiles, class_="figures")])


def _ranking(trials: Sequence[_Trial], rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Markup:
    """Every trial; those beyond the first fifty folded."""
    others = sorted({name for row in rows for name in row.metrics} - {metric})
    published = any(row.published is not None for row in rows)
    failing = any(row.error for row in rows)
    words = [tag("span", shorten(field.label, 40, tail=True), title=field.name) for field in fields]
    numbers = [metric, *(["published"] if published else []), *others]
    head = ["trial", *numbers, *words, "state", "time", *(["error"] if failing else [])]
    numeric = [*range(1, len(numbers) + 1), len(numbers) + len(fields) + 2]
    numeric += [i for i, field in enumerate(fields, start=len(numbers) + 1) if field.numeric]

    def cells(trial: _Trial) -> list[Child]:
        first = trial.rows[0]
        about = first.run if len(trial.rows) == 1 else f"{len(trial.rows)} seeds"
        place = tag("span", whole(trial.rank), class_="rank")
        made: list[Child] = [tag("div", place, tag("div", trial.name, tag("small", about)), class_="placed")]
        made.append(_score(trial.values(metric)))
        if published:
            made.append(number(first.published / 100) if first.published is not None else DASH)
        made += [_score(trial.values(name)) for name in others]
        for field in fields:
            text = field.words(first) if field.has(first) else DASH
            made.append(tag("span", shorten(text, 60), title=text, class_="long") if len(text) > 20 else text)
        made += [_state(trial.rows), duration(float(sum(row.seconds for row in trial.rows)))]
        error = next((row.error for row in trial.rows if row.error), None)
        return made + ([tag("span", shorten(_in_words(error), 120), class_="why") if error else ""] if failing else [])

    def listed(title: str, some: Sequence[_Trial]) -> Markup:
        return _captioned(title, table(title, head, map(cells, some), numeric=numeric))

    more = any(len(trial.rows) > 1 for trial in trials)
    order = f"Trials by {metric}, best first" + (", mean ± sample deviation over seeds" if more else "")
    parts: list[Child] = [listed(order, trials[:_SHOWN]) if trials else tag("p", "The sweep has no trials.", class_="note")]
    if rest := trials[_SHOWN:]:
        title = f"The other {whole(len(rest))} trials"
        parts.append(tag("details", tag("summary", title), listed(title, rest)))
    return section("ranking", "Ranking", *parts)


def _together(rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Markup | None:
    """Where there are two parameters to compare at least."""
    varying = [field for field in fields if field.varies]
    known = [row.metrics[metric] for row in rows if metric in row.metrics]
    if len(varying) < 2 or not known:
        return None
    lead = "A line for each trial, from its parameters to its score: the wider and stronger the line, the better the score."
    drawn = parallel(varying, rows, Axis.of_numbers(known, logarithmic=False), metric)
    return section("all-parameters", "All parameters", tag("p", lead, class_="note"), drawn)


def _each(rows: Sequence[TrialRow], metric: str, fields: Sequence[Parameter]) -> Markup | None:
    """The score over every parameter that varies."""
    if not fields:
        return None
    scored = [row for row in rows if metric in row.metrics]
    fixed = [f"{field.label} {shorten(field.texts[0], 90)}" for field in fields if not field.varies]
    same = tag("p", f"The same in every trial: {'; '.join(fixed)}.", class_="note") if fixed else None
    if not scored:
        return section("each-parameter", "Each parameter", same, tag("p", f"No trial has a score {metric} yet.", class_="note"))
    score = Axis.of_numbers((row.metrics[metric] for row in scored), logarithmic=False)
    marks = Marks(metric, tuple(sorted({row.method for row in rows})), scored[0])
    charts = []
    for field in sorted(fields, key=lambda field: field.numeric):
        having = [row for row in scored if field.has(row)]
        if field.varies and having:
            charts.append((scatter if field.numeric else dots)(field, having, score, marks))
    if not charts:
        return section("each-parameter", "Each parameter", same)
    keys = marks.key(scored, means=any(field.varies and not field.numeric for field in fields))
    return section("each-parameter", "Each parameter", keys, same, tag("div", *charts, class_="charts"))


def _errors(rows: Sequence[TrialRow]) -> Markup | None:
    """What failed, in full; the first hundred."""
    failed = sorted((row for row in rows if row.error or row.state == "failed"), key=lambda row: (row.name, *_seed(row)))
    if not failed:
        return None
    note = f"The first {_ERRORS} of {whole(len(failed))}." if len(failed) > _ERRORS else None
    body: list[list[Child]] = []
    for row in failed[:_ERRORS]:
        text = (row.error or "").strip()
        full = tag("pre", shorten(text, _ERROR), tabindex="0", role="region", aria_label=f"Error of {row.run}")
        folded = tag("details", tag("summary", "in full"), full) if "\n" in text or len(text) > 400 else None
        why = join([tag("span", shorten(_in_words(text), 400), class_="why"), folded]) if text else "no reason is recorded"
        body.append([join([row.name, tag("small", row.run)]), str(row.seed), _state([row]), duration(row.seconds), why])
    listed = table("Errors", ("trial", "seed", "state", "time", "error"), body, numeric=(1, 3))
    return section("errors", "Errors", tag("p", note, class_="note") if note else None, _captioned("Trials with errors", listed))


def _state(rows: Sequence[TrialRow]) -> Markup:
    """In words, and how far; of several seeds how many are in each state."""
    if len(rows) == 1:
        row = rows[0]
        far = f" at {row.progress:.0%}" if row.progress is not None and row.state != "done" else ""
        return tag("span", row.state + far, class_="state missing" if row.state in ("failed", "missing") else "state")
    counts = {state: sum(row.state == state for row in rows) for state in ("done", "stopped", "failed", "missing")}
    alarming = bool(counts["failed"] or counts["missing"])
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return tag("span", text, class_="state missing" if alarming else "state")


def _score(values: Sequence[float]) -> Markup:
    if len(values) < 2:
        return bar(values[0] if values else None)
    length = 100 * min(max(mean(values), 0.0), 1.0)
    return tag("span", _mean(values), class_="bar", style=f"--v:{length:.1f}%", title=", ".join(map(number, values)))


def _mean(values: Sequence[float]) -> str:
    return number(mean(values)) + (f" ± {number(stdev(values))}" if len(values) > 1 else "")


def _in_words(error: str) -> str:
    """The line of an error that says most: the last of a traceback, else the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return (lines[-1] if lines[0].startswith("Traceback") else lines[0]) if lines else ""


def _figure(title: str, value: Child, note: str | None = None) -> Markup:
    return tag("div", tag("dt", title), tag("dd", value, tag("small", note) if note else None))


def _about(what: str, values: Sequence[str]) -> Markup | None:
    if not values:
        return None
    shown = ", ".join(values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
    return tag("span", what + ("s " if len(values) > 1 else " "), tag("b", shown))


def _captioned(caption: str, listed: Markup) -> Markup:
    """The table with its title inside."""
    return Markup(listed.replace("<table>", f"<table>{tag('caption', caption)}", 1))


def _finite(row: TrialRow) -> TrialRow:
    return replace(row, metrics={name: value for name, value in row.metrics.items() if math.isfinite(value)})


def _seed(row: TrialRow) -> tuple[int, str]:
    return row.seed, row.run
