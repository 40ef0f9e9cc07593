"""The page of a sweep: its figures, positions in its charts, its safety, and odd sweeps."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from statistics import mean, stdev

import pytest

from tests.trial_rows import rows_of
from tests.unit.test_trials import KIND, LR, THETA, row, search
from wsss_ray.reporting.report.markup import DASH, number
from wsss_ray.reporting.report.sweep_axes import SweepAxis, parameters, round_values
from wsss_ray.reporting.report.sweep_page import build_sweep
from wsss_ray.storage.trials import TrialRow, ranking, to_table

HOSTILE = "<script>alert('x')</script>\"&"
JOB = "sweep:\n  note: '</code><img src=x>'\n"


class Page(HTMLParser):
    """Checks that elements nest; keeps texts, and every element with the names of those around it."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None], list[tuple[str, dict[str, str | None]]]]] = []
        self.marks: list[tuple[str, dict[str, str | None], str]] = []  # a mark's title, place and chart
        self.ways: list[tuple[str, dict[str, str | None]]] = []
        self.chart = ""
        self.feed(html.decode())
        self.close()
        assert self.open == []
        self.text = "\n".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given, list(self.open)))
        if tag not in {"meta", "img"}:
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        around = [tag for tag, _ in self.open]
        if "style" in around:
            return
        self.texts.append(data)
        if around[-1:] == ["title"] and len(around) > 1:
            parent = self.open[-2][1]
            if parent.get("role") == "img":
                self.chart = data
            elif parent.get("class") == "mark":
                self.marks.append((data, parent, self.chart))
            elif around[-2] == "polyline":
                self.ways.append((data, parent))

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs, _ in self.tags if tag == name]

    def figure(self, title: str) -> str:
        return self.texts[self.texts.index(title) + 1]


def page(rows: list[TrialRow], **given: object) -> Page:
    return Page(build_sweep("search", rows, "miou", JOB, **given))  # type: ignore[arg-type]


def test_header_counts_and_names_the_best() -> None:
    rows = search(40)
    made, best = page(rows), ranking(rows, "miou")[0]
    at = made.texts.index("best mIoU of the model")
    assert made.texts[at + 1 : at + 3] == [number(best.metrics["miou"]), best.name]
    done, stopped, failed = (sum(one.state == state for one in rows) for state in ("done", "stopped", "failed"))
    assert made.figure("trials done") == f"{done} of 40"
    assert made.figure("ended early") == str(stopped)
    assert made.figure("failed") == str(failed)
    assert made.figure("distinct stages") == "41 of 80"
    assert made.figure("time of all trials") == "40 min 00 s"
    assert "sharing stages saves 49 %" in made.texts
    assert page(rows, stages=(12, 48)).figure("distinct stages") == "12 of 48"


def test_ranking_lists_every_trial_in_order_with_its_figures() -> None:
    rows = [*search(60), row("paper", 0.7, published=61.4, seconds=3725.0, parameters={LR: 0.01})]
    made = page(rows)
    names = [text for text in made.texts if re.fullmatch(r"trial \d{3}|paper", text)]
    listed = names[1 : 1 + len(rows)]
    assert listed == [one.name for one in ranking(rows, "miou")]
    assert "The other 11 trials" in made.texts
    cells = made.texts[made.texts.index("Trials by mIoU of the model, best first") :]
    assert {"0.700", "0.614", "0.01", "1 h 02 min", "done"} <= set(cells[: cells.index(listed[1])])
    assert "stopped at 25 %" in made.texts
    assert all("caption" in [tag for tag, _, around in made.tags if any(o[1] is t for o in around)] for t in made.having("table"))


def test_seeds_of_a_trial_are_one_line_with_mean_and_sample_deviation() -> None:
    scores = {"a": [0.5, 0.52, 0.57], "b": [0.6, 0.4]}
    rows = [row(name, s, seed=i, parameters={"x": n}) for n, (name, of) in enumerate(scores.items()) for i, s in enumerate(of)]
    made = page([*rows, row("b", None, seed=2, state="failed", parameters={"x": 1})])
    for of in scores.values():
        assert f"{mean(of):.3f} ± {stdev(of):.3f}" in made.texts
    assert made.figure("best mIoU of the model") == "0.530 ± 0.036"
    assert "2 done, 1 failed" in made.texts
    assert made.texts.count("3 seeds") == 2
    assert made.figure("runs done") == "5 of 6"


def test_scatter_puts_the_best_highest_and_larger_values_to_the_right() -> None:
    rows = search(40)
    made = page(rows)
    for name in (LR, THETA):
        marks = {text.split(",")[0]: place for text, place, chart in made.marks if chart == f"mIoU of the model over {name}"}
        scored = [one for one in ranking(rows, "miou") if one.metrics]
        assert set(marks) == {one.name for one in scored}
        heights = [float(marks[one.name]["y"] or "") for one in scored]
        assert heights == sorted(heights)
        assert 0 < heights[0] < heights[-1] < 200
        across = [float((marks[one.name]["x"] or "").rstrip("%")) for one in sorted(scored, key=lambda o: o.parameters[name])]
        assert across == sorted(across)
        assert across[0] > 0
        assert across[-1] < 100
    assert "lr (log scale)" in made.texts
    assert "theta" in made.texts
    first, last = (min(one.parameters[LR] for one in scored), max(one.parameters[LR] for one in scored))
    middle = min(scored, key=lambda one: abs(math.log(one.parameters[LR]) - math.log(first * last) / 2))
    at = float((next(p for t, p, c in made.marks if t.startswith(middle.name) and c.endswith(LR))["x"] or "").rstrip("%"))
    assert at == pytest.approx(50, abs=5)
    rings = [around[-1][1] for tag, attrs, around in made.tags if attrs.get("class") == "ring" and around[-1][1].get("x") != "9"]
    assert len(rings) == 4  # once in each chart that has the best trial: two scatter plots, the method, the rule


def test_dots_of_a_value_are_those_of_its_trials() -> None:
    rows = search(40)
    made = page(rows)
    for kind in ("threshold", "growing"):
        having = [one for one in rows if one.parameters[KIND] == kind and one.metrics]
        figure = number(mean(one.metrics["miou"] for one in having))
        title = f"{KIND} {kind}: {len(having)} runs, mean mIoU of the model {figure}"
        marks = {text.split(",")[0]: float((place["x"] or "").rstrip("%")) for text, place, chart in made.marks if chart == title}
        assert sorted(marks, key=lambda name: -marks[name]) == [one.name for one in ranking(having, "miou")]
    assert "size: 321" in made.texts  # what the blocks have in common is not said
    assert not any("kind: crop" in text for text in made.texts)


def test_parallel_lines_end_at_their_scores_and_the_best_is_on_top() -> None:
    rows = search(40)
    made = page(rows)
    assert len(made.ways) == len(rows)
    ends = {text.split(",")[0]: float((attrs["points"] or "").split(",")[-1]) for text, attrs in made.ways}
    scored = [one for one in ranking(rows, "miou") if one.metrics]
    assert sorted((one.name for one in scored), key=lambda name: ends[name]) == [one.name for one in scored]
    text, best = made.ways[-1]
    assert text.startswith(scored[0].name)
    assert best["style"] == "--k:1.000"
    assert {len((attrs["points"] or "").split()) for _, attrs in made.ways} == {6}  # method, three parameters, a block, the score
    lost = [attrs for text, attrs in made.ways if f"mIoU of the model {DASH}" in text]
    assert {attrs["class"] for attrs in lost} == {"way none"}
    assert "not set" in made.texts
    assert "no score" in made.texts


def test_a_single_parameter_has_no_parallel_axes() -> None:
    rows = [row(str(i), i / 10, parameters={"x": i, "same": 3}) for i in range(5)]
    made = page(rows)
    assert made.ways == []
    assert "The same in every trial: same 3." in made.texts


def test_every_chart_has_a_title_and_a_description_and_scrolls_by_keyboard() -> None:
    made = page(search(40))
    charts = [attrs for attrs in made.having("svg") if attrs.get("role") == "img"]
    assert len(charts) > 5
    for chart in charts:
        inside = [tag for tag, _, around in made.tags if around and around[-1][1] is chart]
        assert inside[:2] == ["title", "desc"]
    scrolls = [attrs for attrs in made.having("div") if attrs.get("class") == "scroll"]
    assert all(attrs["tabindex"] == "0" and attrs["role"] == "region" and attrs["aria-label"] for attrs in scrolls)


def test_errors_are_said_in_words_and_in_full() -> None:
    trace = f"Traceback (most recent call last):\n  File x\nValueError: {HOSTILE}"
    made = page([row("a", 0.5), row("b", None, state="failed", error=trace), row("c", None, state="failed")])
    assert made.texts.count(f"ValueError: {HOSTILE}") == 2
    assert trace in made.texts
    assert "no reason is recorded" in made.texts
    assert "#errors" in [attrs.get("href") for attrs in made.having("a")]


def test_nothing_from_users_becomes_markup_and_nothing_points_outside() -> None:
    given = {HOSTILE: HOSTILE, f"a.{HOSTILE}": 1, "block": {HOSTILE: HOSTILE}}
    bad = {"method": HOSTILE, "error": HOSTILE, "run": HOSTILE, "stages": [HOSTILE], "finished": HOSTILE, "seed": 1}
    rows = [
        row(HOSTILE, 0.5, parameters=given, **bad),
        row("b", parameters={f"a.{HOSTILE}": 2, HOSTILE: "other", "block": {HOSTILE: 2}}, metrics={"miou": 0.3, HOSTILE: 0.2}),
    ]
    html = build_sweep(HOSTILE, [*rows, replace(rows[0], name="c", state="failed")], "miou", JOB).decode()
    made = Page(html.encode())
    assert HOSTILE in made.text
    assert JOB in made.text
    assert [attrs for tag, attrs, _ in made.tags if tag == "script"] == [{}]
    assert not {"img", "link", "iframe", "form"} & {tag for tag, _, _ in made.tags}
    assert not [attrs for _, attrs, _ in made.tags if any(key.startswith("on") for key in attrs)]
    assert re.search(r"https?:|//[a-z]|@import|url\(", html) is None
    ids = [attrs["id"] for _, attrs, _ in made.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all((attrs["href"] or "")[1:] in ids for attrs in made.having("a"))


def test_same_rows_same_bytes_in_any_order_and_after_the_table() -> None:
    rows = search(30)
    first = build_sweep("s", rows, "miou", JOB)
    assert first == build_sweep("s", rows[::-1], "miou", JOB)
    assert first == build_sweep("s", rows_of(to_table(rows)), "miou", JOB)
    turned = [replace(one, parameters=dict(reversed(one.parameters.items()))) for one in rows]
    assert first == build_sweep("s", turned, "miou", JOB)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        search(1),
        [replace(one, metrics={}, state="missing") for one in search(5)],
        [replace(one, metrics={"other": 0.5}) for one in search(5)],
        [replace(one, metrics={"miou": math.nan}) for one in search(5)],
        [row(str(i), 0.5, parameters={"x": 1.0 + i * 1e-16, "y": i * 1e-300, "z": -i}) for i in range(4)],
        [row("a", 0.0, parameters={"x": math.inf, "y": [], "z": {}}), row("b", 1.0, parameters={"x": 0, "y": "", "z": {"k": 1}})],
        [row("a", 0.5, parameters={"method": {"name": "ficklenet", "steps": 3}}), row("b", 0.6, parameters={"x": None})],
        search(300),
    ],
    ids=["none", "one", "unfinished", "other", "nan", "close", "odd", "blocks", "many"],
)
def test_odd_sweeps_make_a_page(rows: list[TrialRow]) -> None:
    made = page(rows)
    assert "nan" not in " ".join(value or "" for _, attrs, _ in made.tags for key, value in attrs.items() if key in "x y points")
    assert all(one.name in made.texts for one in rows)
    assert len(build_sweep("s", rows, "miou", JOB)) < 1_000_000


def test_short_names_are_the_ends_that_no_other_has() -> None:
    given = {"a.classifier.lr": 1, "a.segmenter.lr": 1, "a.theta": 1, "theta": 2, "a.b.c": 3}
    labels = [field.label for field in parameters([row(parameters=given)])]
    assert labels == ["c", "classifier.lr", "segmenter.lr", "a.theta", "theta"]


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0, 10], False, ["0", "2", "4", "6", "8", "10"]),
        ([0.003, 0.2], True, ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]),
        ([1e-6, 10], True, ["1e-06", "0.0001", "0.01", "1"]),
        ([0.01, 0.4], False, ["0", "0.1", "0.2", "0.3", "0.4"]),
        ([-5, 500], False, ["0", "100", "200", "300", "400", "500"]),
        ([3, 3], False, None),
    ],
)
def test_axes_have_few_round_ticks(values: list[float], log: bool, labels: list[str] | None) -> None:
    axis = SweepAxis.of_numbers(values)
    assert axis.logarithmic is log
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 8
    assert all(0 <= share <= 1 for share, _ in ticks)
    assert [axis.at(float(text)) for _, text in ticks] == pytest.approx([share for share, _ in ticks])
    if labels is not None:
        assert [text for _, text in ticks] == labels


def test_round_values_of_a_narrow_range_are_told_apart() -> None:
    values = round_values(0.61234, 0.61236)
    assert len({f"{value:g}" for value in values}) == len(values) >= 3
