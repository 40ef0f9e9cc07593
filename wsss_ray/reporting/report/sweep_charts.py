"""Draw charts of a sweep as inline SVG: a score over one parameter, and over all parameters at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from wsss_ray.core.counted import counted
from wsss_ray.reporting.report.charts import legend_item, level, stretched
from wsss_ray.reporting.report.markup import Child, css_percent, number, shorten, tag
from wsss_ray.reporting.report.sweep_axes import UNSET, Parameter, SweepAxis
from wsss_ray.storage.trials import TrialRow

_HEIGHT, _PARALLEL = 200, 260
_TOP = 34  # pixels above the parallel axes, for their names
_UNSET_AT = 26  # pixels below an axis where lines of trials without a value there pass
_PITCH = 9.5  # rem between parallel axes, at least
_SHAPES = ("M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z", "M-4-4H4V4H-4Z", "M0-5.5L5.5 0L0 5.5L-5.5 0Z", "M-5 4L0-5L5 4Z")
_MANY = 80  # lines between parallel axes; above it only the best stand out
_COLORS = 5  # of methods, in style.css


@dataclass(frozen=True)
class Marks:
    """The marks of trials: a shape and colour for each method, hollow if the trial ended early, a ring around the best.

    Attributes:
        metric: score that the charts show.
        methods: methods of the trials; a method's place gives its shape and colour.
        best: row of the best trial; None for no ring.

    Example:
        >>> marks = Marks("miou", ("ficklenet",), best=rows[0])
        >>> legend = marks.key(rows, means=False)
    """

    metric: str
    methods: tuple[str, ...]
    best: TrialRow | None

    def at(self, row: TrialRow, x: float, y: str, hover: str) -> Markup:
        """Draw the mark of a trial.

        Args:
            row: row of the trial.
            x: share of the chart's width.
            y: pixels from the top of the chart.
            hover: text that the mark shows on hover.
        """
        index = self.methods.index(row.method)
        shape = tag("path", d=_SHAPES[index % len(_SHAPES)], class_=_dot(index, hollow=row.state != "done"))
        ring = tag("circle", r="8", class_="ring") if row is self.best else None
        return tag("svg", tag("title", hover), ring, shape, x=css_percent(x, 2), y=y, width="1", height="1", class_="mark")

    def key(self, rows: Sequence[TrialRow], *, means: bool) -> Markup:
        """Draw the legend. It names methods only if there are several, and early ends only if there are any.

        Args:
            rows: rows of the trials in the charts.
            means: True if a chart marks means.
        """
        entries = [(name, _dot(i, hollow=False), i) for i, name in enumerate(self.methods)] if len(self.methods) > 1 else []
        if any(row.state != "done" for row in rows):
            entries.append(("ended early", _dot(0, hollow=True), 0))
        items = [_key(tag("path", d=_SHAPES[i % len(_SHAPES)], class_=name), text) for text, name, i in entries]
        ring = tag("circle", r="8", class_="ring") + tag("path", d=_SHAPES[0], class_=_dot(0, hollow=False))
        mean = _key(tag("line", x1="0", x2="0", y1="-8", y2="8", class_="mean"), "mean") if means else None
        return tag("ul", *items, _key(ring, "best"), mean, class_="keys")


def scatter(parameter: Parameter, rows: Sequence[TrialRow], score: SweepAxis, marks: Marks) -> Markup:
    """Draw the score over a numeric parameter.

    Args:
        parameter: the parameter.
        rows: rows that have the parameter and the score, best first.
        score: axis of the score.
        marks: marks of the trials.

    Example:
        >>> score = SweepAxis.of_numbers(row.metrics["miou"] for row in rows)
        >>> chart = scatter(parameters(rows)[0], rows, score, Marks("miou", ("ficklenet",), best=rows[0]))
    """
    axis = parameter.axis(rows)
    grid = [level(_HEIGHT * (1 - share), text) for share, text in score.ticks()]
    for share, text in axis.ticks():
        x = css_percent(share, 2)
        grid.append(tag("line", x1=x, x2=x, y1=str(_HEIGHT), y2=str(_HEIGHT + 5), class_="axis"))
        grid.append(tag("text", text, x=x, y=str(_HEIGHT + 19), text_anchor="middle"))
    grid.append(tag("line", x1="0", x2="100%", y1=str(_HEIGHT), y2=str(_HEIGHT), class_="axis"))
    name = shorten(parameter.label, 40, tail=True) + (" (log scale)" if axis.logarithmic else "")
    named = [
        tag("text", shorten(marks.metric, 40), x="-8", y="-12", class_="name"),
        tag("text", name, x="100%", y=str(_HEIGHT + 38), text_anchor="end", class_="name"),
    ]
    points = []
    for row in reversed(rows):  # the best on top
        y = f"{_HEIGHT * (1 - score.at(row.metrics[marks.metric])):.1f}"
        points.append(marks.at(row, axis.at(parameter.value(row)), y, hover(row, marks.metric, [parameter])))
    values = f"{parameter.name} from {parameter.texts[0]} to {parameter.texts[-1]}"
    about = f"{counted(len(rows), 'run')}, {values}. {_best(rows, marks.metric)}"
    drawn = tag(
        "svg", tag("title", f"{marks.metric} over {parameter.name}"), tag("desc", about), *grid, *named, *points, class_="plot",
        role="img", width="100%", height=str(_HEIGHT + 44),
    )  # fmt: skip
    return _figure(parameter, tag("div", drawn, class_="frame over"))


def dots(parameter: Parameter, rows: Sequence[TrialRow], score: SweepAxis, marks: Marks, *, limit: int = 24) -> Markup:
    """Draw a row of dots for each value of a parameter, the score across and a stroke at the mean.

    Args:
        parameter: the parameter, whose values are words.
        rows: rows that have the parameter and the score.
        score: axis of the score.
        marks: marks of the trials.
        limit: number of values to show, at most.

    Example:
        >>> chart = dots(parameter, rows, score, marks)  # as for `scatter`
    """
    ticks = score.ticks(4)
    lines = [tag("line", x1=css_percent(x, 2), x2=css_percent(x, 2), y1="0", y2="30", class_="grid") for x, _ in ticks]
    base = tag("line", x1="0", x2="100%", y1="15", y2="15", class_="grid")
    drawn = []
    shown = [text for text in parameter.texts if any(parameter.value(row) == text for row in rows)]
    for text in shown[:limit]:
        having = [row for row in rows if parameter.value(row) == text]
        values = [row.metrics[marks.metric] for row in having]
        middle = sum(values) / len(values)
        at = css_percent(score.at(middle), 2)
        mean = tag("line", x1=at, x2=at, y1="3", y2="27", class_="mean") if len(having) > 1 else None
        points = []
        for i, row in enumerate(having):  # equal scores must not hide each other: their heights differ
            y = 15 + (i % 5 - 2) * 3 if len(having) > 1 else 15
            points.append(marks.at(row, score.at(row.metrics[marks.metric]), str(y), hover(row, marks.metric, [parameter])))
        title = f"{parameter.name} {text}: {counted(len(having), 'run')}, mean {marks.metric} {number(middle)}"
        svg = tag(
            "svg", tag("title", title), tag("desc", _best(having, marks.metric)), *lines, base, *points, mean, class_="strip",
            role="img", width="100%", height="30",
        )  # fmt: skip
        label = tag("span", shorten(text, 90), tag("small", f"{counted(len(having), 'run')}, mean {number(middle)}"), title=text)
        drawn.append(tag("div", label, tag("div", svg), class_="strip-row"))
    texts = (tag("text", text, x=css_percent(x, 2), y="12", text_anchor="middle") for x, text in ticks)
    name = tag("text", shorten(marks.metric, 40), x="100%", y="30", text_anchor="end", class_="name")
    below = tag("svg", *texts, name, class_="plot", width="100%", height="36")
    scale = tag("div", tag("span"), tag("div", below), class_="strip-row", aria_hidden="true")
    rest = len(shown) - limit
    more = tag("p", f"{rest} more values are in the ranking.", class_="note") if rest > 0 else None
    return _figure(parameter, tag("div", *drawn, scale, class_="strips"), more)


def parallel(parameters: Sequence[Parameter], rows: Sequence[TrialRow], score: SweepAxis, metric: str) -> Markup:
    """Draw every trial as a line through its parameters to its score. Better trials have bluer, wider and less transparent lines.

    Args:
        parameters: the parameters, in the order of their axes.
        rows: rows of the trials, best first. At least one has the score.
        score: axis of the score.
        metric: name of the score.

    Example:
        >>> chart = parallel(parameters(rows), rows, score, "miou")
    """
    axes = [parameter.axis(rows) for parameter in parameters]
    known = [row.metrics[metric] for row in rows if metric in row.metrics]
    low, high = min(known), max(known)
    gaps = [not all(parameter.has(row) for row in rows) for parameter in parameters] + [len(known) < len(rows)]
    bottom = _PARALLEL + _UNSET_AT * any(gaps)
    names = [*(parameter.label for parameter in parameters), metric]
    paths = []
    for row in reversed(rows):  # the best is drawn last, on top of the others
        pairs = zip(axes, parameters, strict=True)
        ends = [axis.at(parameter.value(row)) if parameter.has(row) else None for axis, parameter in pairs]
        value = row.metrics.get(metric)
        ends.append(None if value is None else score.at(value))
        places = (bottom if end is None else _PARALLEL * (1 - end) for end in ends)
        points = " ".join(f"{1000 * i / len(parameters):.1f},{y:.1f}" for i, y in enumerate(places))
        share = None if value is None else (value - low) / (high - low) if high > low else 1.0
        paths.append(
            tag(
                "polyline", tag("title", hover(row, metric, parameters)), points=points, vector_effect="non-scaling-stroke",
                class_="way none" if share is None else "way", style=None if share is None else _weight(share, len(rows)),
            )
        )  # fmt: skip
    scales = [_scale(i / len(parameters), names[i], axis, gaps[i], bottom) for i, axis in enumerate([*axes, score])]
    about = f"{counted(len(rows), 'run')}, one line each, through {', '.join(names[:-1])} to {metric}. {_best(rows, metric)}"
    drawn = tag(
        "svg", tag("title", f"All parameters and {metric}"), tag("desc", about), stretched(paths, bottom, y=str(_TOP)), *scales,
        class_="plot", role="img", width="100%", height=str(_TOP + bottom + 10),
    )  # fmt: skip
    box = tag("div", drawn, class_="ways", style=f"min-width:{_PITCH * len(parameters) + 8:.1f}rem")
    parts = ((str(4 * i), str(4 * i + 4), _weight(i / 15, len(rows))) for i in range(16))
    ramp = (tag("line", x1=start, x2=end, y1="6", y2="6", class_="way", style=style) for start, end, style in parts)
    keys = [tag("li", number(low), tag("svg", *ramp, width="64", height="12", aria_hidden="true"), number(high), " ", metric)]
    if gaps[-1]:
        sample = tag("line", x1="0", x2="24", y1="6", y2="6", class_="way none")
        keys.append(legend_item(sample, 24, 12, "no score"))
    scroll = tag("div", box, class_="scroll", tabindex="0", role="region", aria_label="All parameters")
    return tag("ul", *keys, class_="keys") + scroll


def hover(row: TrialRow, metric: str, parameters: Sequence[Parameter]) -> str:
    """Write the text that a mark shows on hover: the trial, its score and its parameters."""
    value = number(row.metrics.get(metric))
    lines = [f"{row.name}, seed {row.seed}", f"{metric} {value}" + ("" if row.state == "done" else f", {row.state}")]
    return "\n".join([*lines, *(f"{p.label}: {shorten(p.words(row), 90)}" for p in parameters if p.has(row))])


def _scale(share: float, name: str, axis: SweepAxis, gap: bool, bottom: int) -> Markup:
    """Draw one of the parallel axes."""
    x, right = css_percent(share, 2), share == 1
    side: dict[str, Child] = {"dx": "-6" if right else "6", "text_anchor": "end" if right else "start"}
    ticks = [(_TOP + _PARALLEL * (1 - at), shorten(text, 21)) for at, text in axis.ticks()]
    ticks += [(float(_TOP + bottom), "no score" if right else UNSET)] if gap else []
    texts = [tag("text", text, x=x, y=f"{y:.1f}", dy="0.35em", class_="halo", **side) for y, text in ticks]
    strokes = [tag("line", x1=x, x2=x, y1=str(_TOP), y2=str(_TOP + _PARALLEL), class_="axis")]
    strokes += [tag("line", x1=x, x2=x, y1=str(_TOP + _PARALLEL), y2=str(_TOP + bottom), class_="axis dashed")] if gap else []
    note = " (log)" if axis.logarithmic else ""
    anchor = "start" if share == 0 else "end" if right else "middle"
    head = tag("text", shorten(name, 21 - len(note), tail=True) + note, x=x, y="14", text_anchor=anchor, class_="name")
    return Markup().join([*strokes, *texts, head])


def _figure(parameter: Parameter, *drawn: Child) -> Markup:
    full = tag("p", tag("code", parameter.name), class_="note") if parameter.name != parameter.label else None
    return tag("figure", tag("h3", parameter.label), full, *drawn, class_="chart")


def _key(sample: Markup, text: str) -> Markup:
    inner = tag("svg", sample, x="9", y="9", width="1", height="1", class_="mark")
    return legend_item(inner, 18, 18, text)


def _dot(index: int, *, hollow: bool) -> str:
    return f"dot c{index % _COLORS}" + (" hollow" if hollow else "")


def _weight(share: float, count: int) -> str:
    """Set how strong a line is. It is not proportional: most of many trials end near the best and would hide it."""
    return f"--k:{share ** (2 if count <= _MANY else 6):.3f}"


def _best(rows: Sequence[TrialRow], metric: str) -> str:
    best = max((row for row in rows if metric in row.metrics), key=lambda row: row.metrics[metric])
    return f"Best: {best.name} with {number(best.metrics[metric])}."
