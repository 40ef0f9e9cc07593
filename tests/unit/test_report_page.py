"""The report in a real browser: what its slider, filters and keys do, and that it asks nobody for anything."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report_set import IMAGES, RULES, SIZE, fill, maps_of, saliency_of
from tests.unit.test_report import CLASSES, HOSTILE, JOB, draw
from wsss_ray.core.plan import Stage
from wsss_ray.core.values import IGNORE
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.reporting import report
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.thresholds import Rule
from wsss_ray.storage.store import RunStore

pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
from playwright.sync_api import Browser, Page, expect

from tests.browser import MISSING, chromium, draw_twice, launched, opened


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = RunStore(str(folder))
    path = folder / "report.html"
    path.write_bytes(report.build(store, "a", fill(store), JOB))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip(MISSING)
    with launched(program) as started:
        yield started


@pytest.fixture
def page(browser: Browser, html: Path) -> Iterator[Page]:
    """The page, tall enough that every picture is in view; silent until the end of the test, and asking for itself alone."""
    with opened(browser, html, height=6000) as (page, heard):
        assert page.locator(".made b").count() == IMAGES
        expect(page.locator(".made b:empty")).to_have_count(0)
        yield page
    assert heard.complaints == []
    assert [url for url in heard.requests if not url.startswith("data:")] == [html.as_uri()]


def small() -> tuple[int, int]:
    width, height = pictures.small_size(*SIZE)
    return height, width


def expected(name: str, index: int, theta: float) -> np.ndarray:
    """The seed by the rule itself at the size of the picture."""
    rule = Rule.of(Stage("seed", name, RULES[name]))
    assert rule is not None
    changed = rule.at(theta)
    assert changed is not None
    saliency_HW = pictures.shrink_labels(saliency_of(index)).astype(np.float32) / np.float32(255)
    return changed.seed(np.zeros((*small(), 3), np.uint8), maps_of(index), saliency_HW)


def drawn(page: Page) -> dict[int, np.ndarray]:
    """The label maps on the page's canvases, by image."""
    draw_twice(page)
    script = """(cards) => cards.map((card) => {
        const canvas = card.querySelector("canvas"), copy = new OffscreenCanvas(canvas.width, canvas.height);
        const context = copy.getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        let text = "";
        for (const value of data) text += String.fromCharCode(value);
        return [card.querySelector("h4").firstChild.textContent, btoa(text), canvas.height];
    })"""
    colors = np.concatenate([pictures.label_colors()[: len(CLASSES) + 1], pictures.HATCH]).astype(int)
    labels = np.array([*range(len(CLASSES) + 1), IGNORE, IGNORE], np.uint8)
    found = {}
    for name, text, height in page.locator(".card").evaluate_all(script):
        rgba = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, -1, 1, 4).astype(int)
        apart = np.abs(rgba - colors).max(axis=-1)  # a browser rounds colours that are not opaque
        assert apart.min(axis=-1).max() <= 2
        found[int(name[-2:])] = labels[apart.argmin(axis=-1)]
    return found


def check(page: Page, name: str, theta: float) -> dict[int, np.ndarray]:
    found = drawn(page)
    assert sorted(found) == list(range(IMAGES))
    for index, label in found.items():
        np.testing.assert_array_equal(label, expected(name, index, theta), err_msg=f"{name} {index} at {theta}")
    return found


def press(page: Page, key: str, times: int = 1) -> None:
    for _ in range(times):
        page.keyboard.press(key)


def test_the_slider_moves_the_seeds_as_ops_does(page: Page) -> None:
    first = check(page, "mean", 0.3)
    page.locator("#theta").focus()
    press(page, "ArrowRight", 25)
    assert page.locator("#theta-value").text_content() == "0.55"
    assert page.locator("#theta-too").input_value() == "0.55"
    later = check(page, "mean", 0.55)
    assert all((later[i] == IGNORE).sum() > (first[i] == IGNORE).sum() for i in first)
    for key, theta in (("Home", 0.0), ("End", 1.0)):
        press(page, key)
        check(page, "mean", theta)
    page.locator("#theta-back").click()
    check(page, "mean", 0.3)


@pytest.mark.parametrize("name", ["power", "peak", "salient", "share", "plugged"])
def test_each_rule_has_its_own_seeds_and_curve(page: Page, name: str) -> None:
    own = {"power": 0.45, "peak": 0.5, "salient": 0.25, "share": 0.4, "plugged": 0.6}[name]
    page.locator("#rule").select_option(str(list(RULES).index(name)))
    check(page, name, own)
    page.locator("#theta").fill("0.21")
    check(page, name, 0.21)
    assert page.locator(".panel:visible").count() == 1


def test_figures_are_those_of_the_seeds_at_theta(page: Page) -> None:
    page.locator("#theta").fill("0.62")
    drawn(page)
    total = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
    for index in range(IMAGES):
        mask = pictures.shrink_labels(draw(index, SIZE)[1])
        matrix = confusion(mask, expected("mean", index, 0.62), len(CLASSES) + 1)
        card = page.locator(".card", has_text=re.compile(f"^weak_{index:02d}"))
        assert card.locator(".made b").text_content() == f"{scores(matrix).miou:.3f}"
        total += matrix
    cells = page.locator(".panel:visible [data-figure]")
    shown = dict(cells.evaluate_all("(cells) => cells.map((cell) => [cell.dataset.figure, cell.textContent])"))
    assert shown["theta"] == "0.62"
    assert shown["miou"] == f"{scores(total).miou:.3f}"
    assert shown["coverage"] == f"{scores(total).coverage:.3f}"
    assert page.locator(".panel:visible .now").get_attribute("x1") == "62%"


def test_the_threshold_has_the_name_of_its_field(page: Page) -> None:
    page.locator("#rule").select_option(str(list(RULES).index("share")))
    draw_twice(page)
    assert page.locator("label[for=theta]").text_content() == "Threshold share 0.40"
    assert page.locator(".made figcaption").first.text_content().startswith("share 0.40")
    page.locator("#rule").select_option(str(list(RULES).index("plugged")))
    assert page.locator("label[for=theta]").text_content() == "Threshold \N{GREEK SMALL LETTER THETA} 0.60"


def test_a_rule_without_a_recipe_has_its_curve_and_no_pictures(page: Page) -> None:
    page.locator("#rule").select_option(str(list(RULES).index("called")))
    page.locator("#theta").fill("0.62")
    draw_twice(page)
    assert page.locator(".made").count() == 0
    total = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
    for index in range(IMAGES):
        total += confusion(pictures.shrink_labels(draw(index, SIZE)[1]), expected("called", index, 0.62), len(CLASSES) + 1)
    panel = page.locator(".panel:visible")
    figures = panel.locator("[data-figure]").evaluate_all("(cells) => cells.map((c) => [c.dataset.figure, c.textContent])")
    assert dict(figures)["miou"] == f"{scores(total).miou:.3f}"
    assert dict(figures)["coverage"] == f"{scores(total).coverage:.3f}"
    assert "The pictures do not follow the slider: called_seeds gives no recipe by which the page" in panel.text_content()
    page.locator("#rule").select_option("0")
    check(page, "mean", 0.3)


def title(page: Page, card: str) -> str:
    return page.locator(f"{card} h4").evaluate("(title) => title.firstChild.textContent")


def names(page: Page) -> list[str]:
    return page.locator(".card:visible h4").evaluate_all("(all) => all.map((title) => title.firstChild.textContent)")


def test_filter_and_order(page: Page) -> None:
    worst_first = names(page)
    assert len(worst_first) == IMAGES
    page.locator("#order").select_option("all down")
    assert names(page) == worst_first[::-1]
    page.locator("#order").select_option("data")
    assert names(page) == [f"weak_{i:02d}" for i in range(IMAGES)]
    page.locator("#class").select_option("1")
    assert names(page) == [f"weak_{i:02d}" for i in range(IMAGES) if 0 in maps_of(i).classes]
    assert page.locator(".count").text_content() == "4 of 6 shown"
    assert page.locator("#class option").all_text_contents() == ["all (6)", *(f"{name} (4)" for name in CLASSES)]


def test_keys_go_through_the_pictures_and_enlarge_them(page: Page) -> None:
    assert page.locator(".card .pic[tabindex='0']").count() == IMAGES  # one stop of the tab key in each card
    page.locator("#overlay").focus()
    press(page, "Tab")
    assert page.locator(".card .pic:focus img").get_attribute("alt") == f"Image {names(page)[0]}"
    press(page, "ArrowRight", 5)  # past saliency, the maps and the mask
    assert page.locator("figure.made :focus").count() == 1
    press(page, "ArrowDown")
    assert title(page, ".card:has(:focus)") == names(page)[1]
    press(page, "Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("p").text_content().startswith(f"{names(page)[1]} · θ 0.30")
    draw_twice(page)
    assert dialog.locator("canvas").bounding_box()["width"] > 900
    press(page, "ArrowRight")
    assert "by mean" in dialog.locator("p").text_content()
    press(page, "Escape")
    assert not dialog.is_visible()
    expect(page.locator("figure:has(:focus)")).to_have_text(re.compile("^by mean"))
    press(page, "Tab")
    assert title(page, ".card:has(:focus)") == names(page)[2]


def test_the_overlay_lays_labels_over_the_image(page: Page) -> None:
    opacity = "(part) => getComputedStyle(part).opacity"
    page.locator("#overlay").focus()
    press(page, "Home")
    assert page.locator(".made canvas").first.evaluate(opacity) == "0"
    press(page, "End")
    assert page.locator(".labels:not(.made) img:not(.under)").first.evaluate(opacity) == "1"


def test_nothing_from_the_data_became_an_element_or_ran(page: Page) -> None:
    assert page.locator("script").count() == 2
    assert page.locator(".card b[onload], main img:not([src^='data:'])").count() == 0
    assert page.locator(".split h3").evaluate("(title) => title.firstChild.textContent") == HOSTILE
    assert page.locator("#logs a").first.get_attribute("href") == "logs/x%20y%23%3Cb%3E.log"


def test_everything_to_operate_or_look_at_has_a_name(page: Page) -> None:
    parts = page.locator("input, select, button, [role=button], img:not(.under)")
    unnamed = """(parts) => parts.filter((part) =>
        !part.labels?.length && !part.textContent && !part.alt && !part.ariaLabel
        && !part.querySelector('[alt]:not([alt=""]), [aria-label]')).map((part) => part.outerHTML.slice(0, 200))"""
    assert parts.evaluate_all(unnamed) == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_what_is_compared_stands_side_by_side(browser: Browser, html: Path, width: int) -> None:
    places = """(card) => [...card.querySelectorAll("figure")].map((figure) => {
        const box = figure.getBoundingClientRect();
        return [figure.querySelector("figcaption span").textContent, box.left, box.top, box.right];
    })"""
    with opened(browser, html, width=width, height=12_000) as (page, _):
        expect(page.locator(".made b:empty")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for card in page.locator(".card").all():
            found = card.evaluate(places)
            names = [name for name, *_ in found]
            boxes = {name: box for name, *box in found}
            mask, made, stored = (names.index(name) for name in ("Mask", "θ 0.30", "by mean"))
            assert (made, stored) == (mask + 1, mask + 2), "the seeds follow the mask"
            assert boxes["Mask"][1] == boxes["θ 0.30"][1], "and stand in its row"
            assert boxes["Mask"][0] == boxes["Image"][0], "which begins below the image"
            assert boxes["Mask"][1] > max(boxes[name][1] for name in names[:mask])
            assert all(0 <= left < right <= width for left, _, right in boxes.values())


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_fits_the_width_and_follows_the_theme(browser: Browser, html: Path, width: int, dark: bool) -> None:
    own, other = ("rgb(18, 22, 27)", "rgb(255, 255, 255)") if dark else ("rgb(255, 255, 255)", "rgb(18, 22, 27)")
    color = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, html, width=width, height=800, dark=dark) as (page, heard):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(color) == own
        for name in ("light",) if dark else ("light", "dark"):
            page.locator("#theme").click()
            assert page.locator("html").get_attribute("data-theme") == name
        assert page.evaluate(color) == other
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            assert shot.getpixel((2, 2))[:3] == ((255, 255, 255) if dark else (18, 22, 27))
    assert heard.complaints == []


def test_the_policy_lets_no_other_script_run(browser: Browser, html: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    extra = "<script>window.ran = 1</script><img src='https://example.invalid/x'></main>"
    spoilt.write_text(html.read_text().replace("</main>", extra))
    with opened(browser, spoilt) as (page, heard):
        assert page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in said for said in heard.complaints) >= 2


def contrast(one: Any, other: Any) -> float:
    def light(color: Any) -> float:
        part = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_lines_stand_out(browser: Browser, html: Path, dark: bool) -> None:
    script = """(() => { const probe = document.body.appendChild(document.createElement("i")); return Object.fromEntries(
        ["paper", "card", "ink", "muted", "accent", "alarm", "s0", "s1", "s2", "s3", "s4", "s5"].map((name) => {
            probe.style.color = `var(--${name})`;
            return [name, getComputedStyle(probe).color.match(/[0-9]+/g).map(Number)]; })); })()"""
    with opened(browser, html, dark=dark) as (page, _):
        colors = page.evaluate(script)
    for name, color in colors.items():
        if name not in ("paper", "card"):
            assert contrast(color, colors["paper"]) >= 4.5, name
            assert contrast(color, colors["card"]) >= 4.5, name
