"""Lay out the threshold: a slider, the figures of the seeds along it, and those of the run's own threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsss_ray.reporting.report.markup import Child, Markup, join, number, section, table, tag, whole
from wsss_ray.reporting.report.thresholds import FIGURES, THETAS, Curve, Rule

_HEIGHT = 220
_APART = 16  # pixels between the names of two lines, at least
_NAMES = {"miou": "mIoU", "precision": "precision", "recall": "recall", "coverage": "coverage"}


def threshold(
    rules: Sequence[Rule], curves: Sequence[Curve | None], stored: Sequence[Mapping[str, float | None] | None], embedded: bool
) -> Markup | None:
    """Return the section. `stored`: of each rule the figures of the seeds in the store, where they were scored."""
    if not rules or not (embedded or any(curves)):
        return None
    several = len(rules) > 1
    parts = [_panel(i, several, *one) for i, one in enumerate(zip(rules, curves, stored, strict=True))]
    lead = "What another threshold would do to the seeds, computed in this page from the stored localization maps."
    if not any(rule.recipe for rule in rules):
        lead = "What another threshold would do to the figures of the seeds, computed when this page was made."
    elif any(rule.crf for rule in rules):
        lead += " The dense CRF is not computed here: the stored seeds, with it, stand beside."
    return section("threshold", "Threshold", tag("p", lead, class_="note"), _slider(rules), *parts)


def _slider(rules: Sequence[Rule]) -> Markup:
    """Return one slider for all rules; the page shows it once its script runs."""
    names = [tag("option", rule.stage.name, value=str(i)) for i, rule in enumerate(rules)]
    choice = tag("label", tag("span", "Seeds"), tag("select", *names, id="rule")) if len(rules) > 1 else None
    value = tag("output", f"{rules[0].theta:.2f}", id="theta-value", for_="theta")
    back = tag("button", "back to the job's", id="theta-back", type="button")
    slider = tag("input", type="range", id="theta", min="0", max="1", step="0.01", value=f"{rules[0].theta:g}")
    named = tag("label", f"Threshold {rules[0].symbol} ", value, for_="theta")
    said = tag("div", choice, named, back, class_="said")
    return tag("div", said, tag("div", slider, class_="track"), class_="dial", hidden="")


def _panel(
    index: int, several: bool, rule: Rule, curve: Curve | None, stored: Mapping[str, float | None] | None
) -> Markup:
    """Return the curve of one rule and its figures at theta and as stored."""
    at = round(100 * rule.theta)
    before, after = (tag("small", f"{when} the CRF") if rule.crf else None for when in ("before", "with"))
    rows: list[list[Child]] = []
    if curve is not None:
        here = [tag("span", number(curve.figures[name][at]), data_figure=name) for name in FIGURES]
        theta = tag("span", f"{rule.theta:.2f}", data_figure="theta")
        rows.append([join([f"at {rule.symbol} ", theta, before]), *here])
    if stored is not None:
        kept = f"stored, {rule.symbol} {rule.theta:g}"
        rows.append([join([kept, after]), *(number(stored.get(name)) for name in FIGURES)])
    figures = table("Figures of the seeds", ("seeds", *_NAMES.values()), rows, numeric=range(1, 5)) if rows else None
    if curve is None:
        body = tag("div", figures, tag("p", "There are no masks to score a threshold with.", class_="note"))
    else:
        some = f"all {whole(curve.of)}" if curve.images == curve.of else f"{whole(curve.images)} of {whole(curve.of)}"
        note = f"Scored on {some} training images at the size of thumbnails; their masks serve this chart only."
        if rule.recipe is None:
            note += f" The pictures do not follow the slider: {rule.part.kind()} gives no recipe for them."
        body = join([_chart(rule, curve), tag("div", figures, tag("p", note, class_="note"))])
    heading = tag("h3", rule.stage.name, class_="of") if several else None
    return tag("div", heading, body, class_="panel", data_rule=str(index))


def _chart(rule: Rule, curve: Curve) -> Markup:
    """Draw the figures over theta, each line named at its end; a stroke at the slider's theta and one at the job's."""
    grid = []
    for i in range(5):
        y = f"{_HEIGHT * (1 - i / 4):.1f}"
        grid.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid" if i else "axis"))
        grid.append(tag("text", f"{i / 4:g}", x="-8", y=y, dy="0.35em", text_anchor="end"))
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
        tag("text", _NAMES[FIGURES[i]], x="100%", dx="8", y=f"{y:.1f}", dy="0.35em", class_=f"name t{i}") for i, y in _apart(ends)
    ]
    at = f"{100 * rule.theta:.2f}%"
    own = [
        tag("line", x1=at, x2=at, y1="0", y2=str(_HEIGHT), class_="own"),
        tag("text", f"the job's {rule.theta:g}", x=at, y="-10", text_anchor=_anchor(rule.theta), class_="name"),
    ]
    now = tag("line", x1=at, x2=at, y1="-4", y2=str(_HEIGHT), class_="now")
    stretched = tag(
        "svg", *lines, viewBox=f"0 0 1000 {_HEIGHT}", width="100%", height=str(_HEIGHT), preserveAspectRatio="none",
        style="overflow:visible",
    )  # fmt: skip
    label = f"mIoU, precision, recall and coverage of {rule.stage.name} over the threshold"
    drawn = tag(
        "svg", *grid, *own, stretched, now, *names, class_="plot", role="img", width="100%", height=str(_HEIGHT + 40),
        aria_label=label,
    )  # fmt: skip
    return tag("div", drawn, class_="frame ended over")


def _apart(ends: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return the heights of the names: each at its line's end, moved down as the one above wants, all on the chart."""
    placed: list[tuple[int, float]] = []
    for i, y in sorted(ends.items(), key=lambda end: end[1]):
        placed.append((i, max(y, placed[-1][1] + _APART) if placed else max(y, 0.0)))
    limit = float(_HEIGHT)
    for place in range(len(placed) - 1, -1, -1):
        i, y = placed[place]
        placed[place] = (i, min(y, limit))
        limit = placed[place][1] - _APART
    return placed


def _anchor(share: float) -> str:
    return "start" if share < 0.08 else "end" if share > 0.92 else "middle"


