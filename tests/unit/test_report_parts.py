"""The parts of the report: colours, charts, markup."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from tests.unit.test_report import JOB, Page, log, make_plan
from wsss_ray.core.values import IGNORE
from wsss_ray.engine.training_log import parse_log, steps_between_lines
from wsss_ray.reporting import report
from wsss_ray.reporting.report import charts, pictures
from wsss_ray.reporting.report.markup import duration, escape, number, tag
from wsss_ray.reporting.report.page import render
from wsss_ray.storage.store import RunStore


def test_small_label_maps_are_enlarged_and_undecided_pixels_hatched() -> None:
    picture = pictures.labels(np.full((64, 64), IGNORE, np.uint8))
    assert (picture.width, picture.height) == (128, 128)
    image = opened(picture)
    assert image.size == (64, 64)
    assert sorted(color for _, color in image.getcolors()) == sorted(pictures.HATCH)


def opened(picture: pictures.Thumbnail) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))) as image:
        return image.convert("RGBA")


@pytest.mark.parametrize("gray", [40, 200])
def test_labels_over_an_image_colour_objects_and_leave_the_background(gray: int) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:32] = 2
    label[48:] = IGNORE
    below = Image.new("RGBA", (64, 64), (gray, gray, gray, 255))
    mixed = np.asarray(Image.alpha_composite(below, opened(pictures.labels(label))).convert("RGB"), float)
    assert (mixed[:32] == (0, 128, 0)).all(), "an object has its colour"
    assert np.abs(mixed[32:48] - gray).max() <= 0.11 * gray, "the background stays as it is, nearly"
    assert len(np.unique(mixed[48:])) > 1, "undecided pixels are hatched"


def test_a_map_over_an_image_leaves_what_it_does_not_claim() -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    assert pictures.heat_over(image, np.zeros((8, 8), np.float32)).min() >= 160
    assert pictures.heat_over(image, np.ones((8, 8), np.float32))[0, 0].tolist() == pytest.approx([239, 241, 173], abs=2)


def test_heat_grows_in_lightness() -> None:
    luminance = pictures.heat_colors(np.linspace(0, 1, 50)) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()


def test_log_keeps_the_last_of_a_repeated_step_and_drops_torn_lines() -> None:
    data = b'{"step": 2, "loss": 1.0}\n{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 0.5}\n{"st'
    assert [(row["step"], row["loss"]) for row in parse_log(data)] == [(1, 3.0), (2, 0.5)]


@pytest.mark.parametrize(
    "losses", [[1.0], [0.0, 0.0], [-1.0, 2.0], [1e-9, 1e4], [float("nan")], [float("inf"), 1.0], [5.0] * 1000, [1e-30, 1.0]]
)
def test_any_loss_can_be_drawn(losses: list[float]) -> None:
    rows = [{"step": i, "loss": loss, "terms": {"a": loss, "b": loss / 2}, "lr": 0.1} for i, loss in enumerate(losses)]
    html = charts.losses("t", rows)
    HTMLParser().feed(html)
    assert "nan," not in html
    assert "inf" not in html.replace("finite", "")


@pytest.mark.parametrize(("steps", "drawn", "dots"), [(3, 3, 3), (100, 100, 1), (400, 400, 1), (3000, 400, 1)])
def test_a_curve_has_all_points_of_its_log_a_last_value_and_named_axes(steps: int, drawn: int, dots: int) -> None:
    losses = np.random.default_rng(0).random(steps) + 0.5
    rows = [{"step": i + 1, "loss": float(loss), "terms": {"a": float(loss)}} for i, loss in enumerate(losses)]
    page = Page(charts.losses("net", rows))
    (points,) = [attrs["points"].split() for name, attrs in page.tags if name == "polyline"]
    assert len(points) == drawn
    assert sum(name == "circle" for name, _ in page.tags) == dots
    assert {"loss", "step"} <= set(page.texts)
    assert f"last {number(losses[-1])}" in page.texts


def test_a_short_training_logs_enough_points() -> None:
    for total in (1, 7, 100, 621, 2000, 90_000):
        every = steps_between_lines(total)
        assert 1 <= every <= 20
        assert total // every >= min(total, 100)


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<&>", tag("i", "x"), None, title='"\x00') == '<p title="&#34;\ufffd">&lt;&amp;&gt;<i>x</i></p>'
    assert escape(escape("&")) == "&amp;"
    assert [number(v) for v in (None, float("nan"), 0.12349, 1)] == ["\u2013", "\u2013", "0.123", "1.000"]
    assert [duration(v) for v in (None, 0.5, 75, 7384.2)] == ["\u2013", "0.500 s", "1 min 15 s", "2 h 03 min"]


def test_templates_escape_what_is_not_markup() -> None:
    html = render("job.html", job_yaml="</code>\x00\ud800'")
    assert html.endswith("<code>&lt;/code&gt;\ufffd\ufffd&#39;</code></pre>")


CARD = {"key": "k", "place": 0, "labels": "[]", "image_id": "a", "tags": [], "found": [], "rows": []}


@pytest.mark.parametrize(("name", "given"), [("job.html", {}), ("card.html", CARD)], ids=["text", "figure"])
def test_a_value_that_a_template_lacks_is_an_error(name: str, given: dict) -> None:
    with pytest.raises(UndefinedError):
        render(name, **given)


def test_the_quality_over_a_training_is_drawn_where_it_was_measured(tmp_path) -> None:
    store, (plan, named) = RunStore(str(tmp_path)), make_plan()
    path, rows = store.stage_path(named["classifier"], "metrics.jsonl"), parse_log(log(40))
    store.write(path, log(40))
    assert "Classifier (not finished): mIoU" not in Page(report.build(store, "r", plan, JOB).decode()).texts
    scored = [row | ({"val_miou": 0.25 + 0.001 * place} if place % 10 == 9 else {}) for place, row in enumerate(rows)]
    scored[-1]["val_miou"] = 0.2
    store.write(path, "\n".join(map(json.dumps, scored)).encode())
    page = Page(report.build(store, "r", plan, JOB).decode())
    assert "Classifier (not finished): mIoU" in page.texts
    assert "best 0.279 after step 580" in page.text
    drawn = Page(charts.quality("net", scored))
    (points,) = [attrs["points"].split() for name, attrs in drawn.tags if name == "polyline"]
    places = [tuple(map(float, point.split(","))) for point in points]
    steps = [row["step"] for row in scored if "val_miou" in row]
    assert [x for x, _ in places] == [pytest.approx(1000 * step / 780, abs=0.1) for step in steps]
    assert places[2][1] < places[0][1] < places[3][1], "higher is better"
