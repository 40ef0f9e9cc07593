"""Render the section on the threshold: a slider, the scores of the seeds over it, and the scores of the stored seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from wsss_ray.reporting.headings import FIGURES, stage_words
from wsss_ray.reporting.report.charts import anchor, level, stretched
from wsss_ray.reporting.report.markup import css_percent, tag
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.reporting.report.refined import Refined
from wsss_ray.reporting.report.thresholds import THETAS, Curve, Rule

_HEIGHT = 220
_APART = 16  # pixels between the names of two lines, at least


def threshold(
    rules: Sequence[Rule],
    curves: Sequence[Curve | None],
    after: Sequence[Refined | None],
    stored: Sequence[Mapping[str, float | None] | None],
    embedded: bool,
) -> Section:
    """Render the section; empty if there is nothing to show.

    Args:
        rules: seed rules that name a threshold.
        curves: scores of each rule over the threshold; None if there are no masks.
        after: scores of each rule at a few thresholds with its CRF; None if it has none.
        stored: scores of each rule's stored seeds; None if they have none.
        embedded: True if the page can draw seeds.

    Example:
        >>> rules = [rule for stage in plan if (rule := Rule.of(stage))]
        >>> section = threshold(rules, *[[None] * len(rules)] * 3, embedded=True)
    """
    if not rules or not (embedded or any(curves)):
        return Section("threshold", "Threshold", Markup())
    panels = [
        {
            "rule": rule,
            "curve": curve,
            "stored": figures,
            "at": round(100 * rule.theta),
            "refined": points,
            "chart": _chart(rule, curve, points) if curve else None,
        }
        for rule, curve, points, figures in zip(rules, curves, after, stored, strict=True)
    ]
    return Section("threshold", "Threshold", render("threshold.html", panels=panels, names=FIGURES))


def _chart(rule: Rule, curve: Curve, after: Refined | None) -> Markup:
    """Draw the scores over the threshold. Each line is named at its end; strokes mark the slider's threshold and the job's.

    Rings mark the mIoU after the CRF, on a few images.
    """
    grid = [level(_HEIGHT * (1 - i / 4), f"{i / 4:g}", axis=i == 0) for i in range(5)]
    below = str(_HEIGHT + 18)
    grid += [tag("text", f"{i / 10:g}", x=f"{10 * i}%", y=below, text_anchor="middle") for i in range(0, 11, 2)]
    grid.append(tag("text", f"threshold {rule.symbol}", x="100%", y=str(_HEIGHT + 36), text_anchor="end"))
    lines, ends = [], {}
    for i, name in enumerate(FIGURES):
        known = [(theta, value) for theta, value in zip(THETAS, curve.figures[name], strict=True) if value is not None]
        points = " ".join(f"{1000 * theta:.0f},{_HEIGHT * (1 - value):.1f}" for theta, value in known)
        lines.append(tag("polyline", points=points, class_=f"line s{i} d{i}", vector_effect="non-scaling-stroke"))
        if known:
            ends[i] = _HEIGHT * (1 - known[-1][1])
    names = [
        tag("text", list(FIGURES.values())[i], x="100%", dx="8", y=f"{y:.1f}", dy="0.35em", class_=f"name t{i}")
        for i, y in _apart(ends)
    ]
    at = css_percent(rule.theta, 2)
    own = [
        tag("line", x1=at, x2=at, y1="0", y2=str(_HEIGHT), class_="own"),
        tag("text", f"job: {rule.theta:g}", x=at, y="-10", text_anchor=anchor(100 * rule.theta, margin=8), class_="name"),
    ]
    now = tag("line", x1=at, x2=at, y1="-4", y2=str(_HEIGHT), class_="now")
    rings = [
        tag("circle", tag("title", f"mIoU after the CRF at {point.theta:.2f}: {point.after:.3f}"), cx=css_percent(point.theta, 2),
            cy=f"{_HEIGHT * (1 - point.after):.1f}", r="5", class_="refined")
        for point in (after.points if after else ())
        if point.after is not None
    ]  # fmt: skip
    label = f"mIoU, precision, recall and coverage of {stage_words(rule.stage.name)} over the threshold"
    drawn = tag(
        "svg", *grid, *own, stretched(lines, _HEIGHT), now, *rings, *names, class_="plot", role="img", width="100%",
        height=str(_HEIGHT + 40), aria_label=label,
    )  # fmt: skip
    return tag("div", drawn, class_="frame ended over")


def _apart(ends: Mapping[int, float]) -> list[tuple[int, float]]:
    """Place each name at the end of its line. Names that would overlap are moved apart and stay on the chart."""
    placed: list[tuple[int, float]] = []
    for i, y in sorted(ends.items(), key=lambda end: end[1]):
        placed.append((i, max(y, placed[-1][1] + _APART) if placed else max(y, 0.0)))
    limit = float(_HEIGHT)
    for place in range(len(placed) - 1, -1, -1):
        i, y = placed[place]
        placed[place] = (i, min(y, limit))
        limit = placed[place][1] - _APART
    return placed
