"""Draw charts as inline SVG. Lines stretch with the page and text does not, so text has the same size on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsss_ray.reporting.report.markup import Child, average, css_percent, is_finite, number, significant, tag, whole
from wsss_ray.reporting.words import percent

_HEIGHT = 200
_POINTS = 400  # of one line, at most: if there are more, each is the mean of several
_DOTTED = 40  # points of a line, at most, each of which has a dot
_LOG_FROM = 30.0  # ratio of the largest to the smallest loss; above it a linear axis would hide the smaller terms
_SERIES = 6  # line colours in style.css

Line = list[tuple[float, float]]


def losses(title: str, log: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the loss and its terms over the steps of one training.

    Args:
        title: title of the chart.
        log: rows of the training's log, at least one.

    Returns:
        A `figure`; a `p` if no step has a finite loss.

    Example:
        >>> chart = losses("segmenter", [{"step": 20, "loss": 0.5}, {"step": 40, "loss": 0.4}])
    """
    lines = {name: _thin(line) for name, line in _terms(log).items()}
    values = [y for line in lines.values() for _, y in line]
    if not values:
        return tag("p", "No step has a finite loss.", class_="note")
    logarithmic = min(values) > 0 and max(values) / min(values) >= _LOG_FROM
    ticks = _decades(min(values), max(values)) if logarithmic else _ticks(min(0.0, *values), max(values))
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    notes = ("log scale; " if logarithmic else "") + _caption(log)
    return _chart(title, f"Loss of {title}", "loss", lines, log, ticks, notes, scale)


def quality(title: str, log: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw the mIoU on validation images over the steps of one training.

    Args:
        title: title of the chart.
        log: rows of the training's log, at least one.

    Returns:
        A `figure`; None if the mIoU was not measured.

    Example:
        >>> chart = quality("segmenter", [{"step": 20, "val_miou": 0.4}, {"step": 40, "val_miou": 0.5}])
    """
    line = _finite([(row["step"], row.get("val_miou")) for row in log])
    if not line:
        return None
    best_step, best = max(line, key=lambda point: point[1])
    notes = "measured on a sample of the validation images, at one scale and without a CRF; "
    notes += f"best {number(best)} after step {whole(int(best_step))}"
    title = f"{title}: mIoU"
    return _chart(title, title, "mIoU", {"mIoU": line}, log, _ticks(0.0, best), notes)


def _chart(
    title: str,
    label: str,
    unit: str,
    lines: Mapping[str, Line],
    log: Sequence[Mapping[str, Any]],
    ticks: Sequence[float],
    notes: str,
    scale: Callable[[float], float] = float,
) -> Markup:
    """Draw lines over the steps of a log, from the first tick to the last.

    Every line ends in a dot, and its last value stands in the legend. The points of a line with few points are dots too.
    """
    low, high = scale(ticks[0]), scale(ticks[-1])
    first, last = float(log[0]["step"]), float(log[-1]["step"])

    def down(y: float) -> float:
        return _HEIGHT * (1 - (scale(y) - low) / (high - low))

    def across(x: float) -> float:
        return 100 * (x - first) / (last - first) if last > first else 50.0

    grid = [level(down(y), f"{y:g}", axis=i == 0) for i, y in enumerate(ticks)]
    steps = [x for x in _ticks(first, last) if first <= x <= last] or [first]
    places = [(f"{x:,.0f}", across(x)) for x in steps]
    below = [tag("text", text, x=f"{x:.2f}%", y=str(_HEIGHT + 18), text_anchor=anchor(x, margin=4)) for text, x in places]
    axis = tag("text", "step", x="100%", y=str(_HEIGHT + 36), text_anchor="end")
    axis += tag("text", unit, x="-8", y="-14", text_anchor="end", class_="name")
    paths = [_line([(10 * across(x), down(y)) for x, y in line], f"s{i}") for i, line in enumerate(lines.values())]
    dots = [
        tag("circle", cx=f"{across(x):.2f}%", cy=f"{down(y):.1f}", r="2.5", class_=f"point p{i % _SERIES}")
        for i, line in enumerate(lines.values())
        for place, (x, y) in enumerate(line)
        if len(line) <= _DOTTED or place == len(line) - 1
    ]
    drawn = tag(
        "svg", *grid, *below, axis, stretched(paths, _HEIGHT), *dots, class_="plot", role="img", width="100%",
        height=str(_HEIGHT + 40),
        aria_label=f"{label} over {whole(log[-1]['step'])} steps",
    )  # fmt: skip
    legend = tag("ul", *(_key(i, name, line) for i, (name, line) in enumerate(lines.items())), class_="keys")
    caption = tag("figcaption", notes, class_="note")
    return tag("figure", tag("h3", title), tag("div", drawn, class_="frame over"), legend, caption, class_="chart")


def level(y: float, text: str, *, axis: bool = False) -> Markup:
    """Draw a horizontal line across a chart, with its value on the left.

    Args:
        y: place in pixels from the top of the chart.
        text: the value in words.
        axis: True draws the line as an axis, else as a line of the grid.

    Example:
        >>> lines = [level(200 * (1 - share), f"{share:g}", axis=share == 0) for share in (0, 0.5, 1)]
    """
    at = f"{y:.1f}"
    line = tag("line", x1="0", x2="100%", y1=at, y2=at, class_="axis" if axis else "grid")
    return line + tag("text", text, x="-8", y=at, dy="0.35em", text_anchor="end")


def stretched(lines: Iterable[Markup], height: int, **more: str) -> Markup:
    """Put lines with x from 0 to 1000 into a box as wide as the page.

    Args:
        lines: SVG elements.
        height: pixels from the top of the box to its bottom, which y counts.
        more: further attributes of the box.

    Example:
        >>> box = stretched([tag("polyline", points="0,200 1000,0", class_="line s0")], 200)
    """
    return tag(
        "svg", *lines, viewBox=f"0 0 1000 {height}", **more, width="100%", height=str(height), preserveAspectRatio="none",
        style="overflow:visible",
    )  # fmt: skip


def anchor(percent: float, *, margin: float) -> str:
    """Return the text anchor that keeps a text inside the chart: not the middle near an edge.

    Args:
        percent: place of the text as a percentage of the chart's width.
        margin: percentage of the width that counts as near an edge.

    Example:
        >>> anchor(2, margin=4), anchor(50, margin=4), anchor(99, margin=4)
        ('start', 'middle', 'end')
    """
    return "start" if percent < margin else "end" if percent > 100 - margin else "middle"


def round_step(span: float, count: int) -> float:
    """Return the smallest round step (1, 2, 2.5 or 5 times a power of ten) that cuts a span into at most `count` parts.

    Example:
        >>> round_step(0.9, 5)
        0.2
    """
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= count)


def strip(marks: Sequence[tuple[str, float | None]]) -> Markup:
    """Draw values as marks on a line from 0 to 1, each with its own colour and shape.

    Args:
        marks: names and values. A value that is missing or not finite has no mark.

    Example:
        >>> chart = strip([("mIoU", 0.5), ("precision", 0.7), ("recall", None)])
    """
    shown = [(i, name, value) for i, (name, value) in enumerate(marks) if is_finite(value)]
    ruled = ((f"{x}%", "axis" if x in (0, 100) else "grid") for x in range(0, 101, 25))
    grid = [tag("line", x1=x, x2=x, y1="0", y2="22", class_=name) for x, name in ruled]
    base = tag("line", x1="0", x2="100%", y1="11", y2="11", class_="grid")
    label = ", ".join(f"{name} {number(value)}" for _, name, value in shown)
    points = (_mark(i, css_percent(value, 2)) for i, _, value in shown)
    return tag("svg", *grid, base, *points, class_="strip", role="img", width="100%", height="22", aria_label=label)


def mark_key(index: int, name: str) -> Markup:
    """Make the legend item of one mark of `strip`.

    Args:
        index: position of the mark in `marks`.
        name: name of the mark.

    Example:
        >>> keys = [mark_key(i, name) for i, name in enumerate(("mIoU", "precision", "recall"))]
    """
    return legend_item(_mark(index, "8"), 16, 22, name)


def legend_item(sample: Markup, width: int, height: int, *words: Child) -> Markup:
    """Make an item of a legend: a sample, which assistive programs skip, and words about it.

    Args:
        sample: SVG element to show.
        width: pixels of the sample.
        height: pixels of the sample.
        words: texts and elements that follow it.

    Example:
        >>> item = legend_item(tag("line", x1="0", x2="18", y1="6", y2="6", class_="line s0"), 18, 12, "loss")
    """
    return tag("li", tag("svg", sample, width=str(width), height=str(height), aria_hidden="true"), *words)


def _mark(index: int, x: str) -> Markup:
    shapes = ("M-5.5 0A5.5 5.5 0 1 0 5.5 0A5.5 5.5 0 1 0-5.5 0Z", "M-5 4.5L0-5L5 4.5Z", "M-4-4H4V4H-4Z", "M0-6L6 0L0 6L-6 0Z")
    inner = tag("path", d=shapes[index % len(shapes)], class_=f"m{index % len(shapes)}")
    return tag("svg", inner, x=x, y="11", width="1", height="1", style="overflow:visible")


def _terms(log: Sequence[Mapping[str, Any]]) -> dict[str, Line]:
    """Return the total and then its terms. A single term equals the total and is drawn once."""
    names = list(dict.fromkeys(name for row in log for name in row.get("terms") or {}))
    if len(names) == 1:
        return {names[0]: _finite([(row["step"], (row.get("terms") or {}).get(names[0])) for row in log])}
    terms = {name: _finite([(row["step"], (row.get("terms") or {}).get(name)) for row in log]) for name in names}
    return {"total": _finite([(row["step"], row.get("loss")) for row in log])} | terms


def _finite(points: Sequence[tuple[int, Any]]) -> Line:
    return [(float(x), float(y)) for x, y in points if is_finite(y)]


def _thin(line: Line) -> Line:
    count = min(len(line), _POINTS)
    parts = [line[i * len(line) // count : (i + 1) * len(line) // count] for i in range(count)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means[:-1], *line[-1:]]  # the last value is shown as it is


def _line(points: Line, name: str) -> Markup:
    if len(points) == 1:
        points = [(points[0][0] - 4, points[0][1]), (points[0][0] + 4, points[0][1])]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", points=text, class_=_style(name), vector_effect="non-scaling-stroke")


def _style(name: str) -> str:
    index = int(name[1:])
    return f"line s{index % _SERIES}" + (" dashed" if index >= _SERIES else "")


def _key(index: int, name: str, line: Line) -> Markup:
    sample = tag("line", x1="0", x2="18", y1="6", y2="6", class_=_style(f"s{index}"))
    end = tag("b", "last ", number(line[-1][1])) if line else tag("b", "none")
    return legend_item(sample, 18, 12, name, " ", end)


def _caption(log: Sequence[Mapping[str, Any]]) -> str:
    def finite(key: str) -> list[float]:
        return [y for _, y in _finite([(row["step"], row.get(key)) for row in log])]

    parts = []
    if rates := finite("lr"):
        fixed = min(rates) == max(rates)
        parts.append(f"learning rate {rates[0]:.3g}" + ("" if fixed else f" to {rates[-1]:.3g}"))
    if epochs := finite("epoch"):
        parts.append(f"{significant(epochs[-1])} epochs")
    if (speed := average(finite("images_per_s"))) is not None:
        parts.append(f"{significant(speed)} images/s")
    if (wait := average(finite("wait_share"))) is not None:
        parts.append(f"{percent(wait, 1)} of the time spent waiting for data")
    bad = sum(not math.isfinite(row["loss"]) for row in log if isinstance(row.get("loss"), int | float))
    return "; ".join(parts + ([f"{bad} steps without a finite loss"] if bad else []))


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round values around [low, high]."""
    step = round_step((high - low) or abs(high) or 1.0, 5)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(start, max(stop, start + 1) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**i for i in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
