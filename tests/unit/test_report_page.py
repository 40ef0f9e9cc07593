"""The report in a real browser: what its slider, filters and keys do, and that it asks nobody for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, chromium
from tests.report_set import IMAGES, RULES, SIZE, fill, maps_of, saliency_of
from tests.unit.test_report import CLASSES, HOSTILE, JOB, draw
from wsss_ray.core.contracts import IGNORE
from wsss_ray.core.plan import Stage
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.reporting import report
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.thresholds import Rule
from wsss_ray.storage.store import RunStore

COLOR = np.array([1 << 16, 1 << 8, 1])  # a colour as one number


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = RunStore(str(folder))
    path = folder / "report.html"
    path.write_bytes(report.build(store, "a", fill(store), JOB))
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium found; install one or set CHROMIUM")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser, page: Path) -> Iterator[Browser]:
    """The page, tall enough that every picture is in view; silent until the end of the test, and asking for itself alone."""
    started.open(page, width=1280, height=6000)
    started.js("localStorage.clear()")
    started.wait("[...document.querySelectorAll('.made b')].every((b) => b.textContent)")
    yield started
    assert started.complaints() == []
    assert started.requests() == [page.as_uri()]


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


def drawn(browser: Browser) -> dict[int, np.ndarray]:
    """The label maps on the page's canvases, by image."""
    browser.frame()
    script = """[...document.querySelectorAll(".card")].map((card) => {
        const canvas = card.querySelector("canvas"), copy = new OffscreenCanvas(canvas.width, canvas.height);
        const context = copy.getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        let text = "";
        for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
        return [card.querySelector("h4").firstChild.textContent, btoa(text), canvas.height];
    })"""
    table = np.full(1 << 24, 254, np.uint8)  # no label
    table[pictures.palette(len(CLASSES) + 1) @ COLOR] = range(len(CLASSES) + 1)
    table[np.array(pictures.HATCH) @ COLOR] = IGNORE
    found = {}
    for name, text, height in browser.js(script):
        rgb = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, -1, 3)
        found[int(name[-2:])] = table[rgb @ COLOR]
    return found


def check(browser: Browser, name: str, theta: float) -> dict[int, np.ndarray]:
    found = drawn(browser)
    assert sorted(found) == list(range(IMAGES))
    for index, label in found.items():
        np.testing.assert_array_equal(label, expected(name, index, theta), err_msg=f"{name} {index} at {theta}")
    return found


def choose(browser: Browser, field: str, value: str, event: str = "change") -> None:
    part = f"document.getElementById({field!r})"
    browser.js(f"{part}.value = {value!r}; {part}.dispatchEvent(new Event({event!r}))")


def slide(browser: Browser, theta: float) -> None:
    choose(browser, "theta", str(theta), "input")


def test_the_slider_moves_the_seeds_as_ops_does(browser: Browser) -> None:
    first = check(browser, "mean", 0.3)
    browser.js("document.getElementById('theta').focus()")
    browser.key("ArrowRight", 25)
    assert browser.js("document.getElementById('theta-value').value") == "0.55"
    assert browser.js("document.getElementById('theta-too').value") == "0.55"
    later = check(browser, "mean", 0.55)
    assert all((later[i] == IGNORE).sum() > (first[i] == IGNORE).sum() for i in first)
    for key, theta in (("Home", 0.0), ("End", 1.0)):
        browser.key(key)
        check(browser, "mean", theta)
    browser.js("document.getElementById('theta-back').click()")
    check(browser, "mean", 0.3)


@pytest.mark.parametrize("name", ["power", "peak", "salient", "share", "plugged"])
def test_each_rule_has_its_own_seeds_and_curve(browser: Browser, name: str) -> None:
    own = {"power": 0.45, "peak": 0.5, "salient": 0.25, "share": 0.4, "plugged": 0.6}[name]
    choose(browser, "rule", str(list(RULES).index(name)))
    check(browser, name, own)
    slide(browser, 0.21)
    check(browser, name, 0.21)
    assert browser.js("[...document.querySelectorAll('.panel')].map((panel) => panel.hidden)").count(False) == 1


def test_figures_are_those_of_the_seeds_at_theta(browser: Browser) -> None:
    slide(browser, 0.62)
    drawn(browser)
    total = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
    for index in range(IMAGES):
        mask = pictures.shrink_labels(draw(index, SIZE)[1])
        matrix = confusion(mask, expected("mean", index, 0.62), len(CLASSES) + 1)
        card = f"[...document.querySelectorAll('.card')].find((c) => c.innerText.startsWith('weak_{index:02d}'))"
        assert browser.js(f"{card}.querySelector('.made b').textContent") == f"{scores(matrix).miou:.3f}"
        total += matrix
    cells = "[...document.querySelectorAll('.panel:not([hidden]) [data-figure]')]"
    shown = dict(browser.js(f"{cells}.map((cell) => [cell.dataset.figure, cell.textContent])"))
    assert shown["theta"] == "0.62"
    assert shown["miou"] == f"{scores(total).miou:.3f}"
    assert shown["coverage"] == f"{scores(total).coverage:.3f}"
    assert browser.js("document.querySelector('.panel:not([hidden]) .now').getAttribute('x1')") == "62%"


def test_the_threshold_has_the_name_of_its_field(browser: Browser) -> None:
    choose(browser, "rule", str(list(RULES).index("share")))
    browser.frame()
    assert browser.js("document.querySelector('label[for=theta]').textContent") == "Threshold share 0.40"
    assert browser.js("document.querySelector('.made figcaption').textContent").startswith("share 0.40")
    choose(browser, "rule", str(list(RULES).index("plugged")))
    assert browser.js("document.querySelector('label[for=theta]').textContent") == "Threshold \N{GREEK SMALL LETTER THETA} 0.60"


def test_a_rule_without_a_recipe_has_its_curve_and_no_pictures(browser: Browser) -> None:
    choose(browser, "rule", str(list(RULES).index("called")))
    slide(browser, 0.62)
    browser.frame()
    assert browser.js("document.querySelectorAll('.made').length") == 0
    total = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
    for index in range(IMAGES):
        total += confusion(pictures.shrink_labels(draw(index, SIZE)[1]), expected("called", index, 0.62), len(CLASSES) + 1)
    panel = "document.querySelector('.panel:not([hidden])')"
    shown = dict(browser.js(f"[...{panel}.querySelectorAll('[data-figure]')].map((c) => [c.dataset.figure, c.textContent])"))
    assert shown["miou"] == f"{scores(total).miou:.3f}"
    assert shown["coverage"] == f"{scores(total).coverage:.3f}"
    assert "The pictures do not follow the slider: called_seeds gives no recipe" in browser.js(f"{panel}.textContent")
    choose(browser, "rule", "0")
    check(browser, "mean", 0.3)


def names(browser: Browser) -> list[str]:
    return browser.js("[...document.querySelectorAll('.card:not([hidden]) h4')].map((h) => h.firstChild.textContent)")


def test_filter_and_order(browser: Browser) -> None:
    worst_first = names(browser)
    assert len(worst_first) == IMAGES
    choose(browser, "order", "all down")
    assert names(browser) == worst_first[::-1]
    choose(browser, "order", "data")
    assert names(browser) == [f"weak_{i:02d}" for i in range(IMAGES)]
    choose(browser, "class", "1")
    assert names(browser) == [f"weak_{i:02d}" for i in range(IMAGES) if 0 in maps_of(i).classes]
    assert browser.js("document.querySelector('.count').textContent") == "4 of 6 shown"
    options = browser.js("[...document.getElementById('class').options].map((o) => o.textContent)")
    assert options == ["all (6)", *(f"{name} (4)" for name in CLASSES)]


def test_keys_go_through_the_pictures_and_enlarge_them(browser: Browser) -> None:
    focus = "document.activeElement"
    browser.js("document.getElementById('overlay').focus()")
    browser.key("Tab")
    assert browser.js(f"{focus}.matches('.card .pic') && {focus}.querySelector('img').alt") == f"Image {names(browser)[0]}"
    browser.key("ArrowRight", 3)
    assert browser.js(f"{focus}.closest('figure').matches('.made')")
    browser.key("ArrowDown")
    assert browser.js(f"{focus}.closest('.card').querySelector('h4').firstChild.textContent") == names(browser)[1]
    browser.key("Enter")
    assert browser.js("document.querySelector('dialog').open")
    assert browser.js("document.querySelector('dialog p').textContent").startswith(f"{names(browser)[1]} · θ 0.30")
    browser.frame()
    assert browser.js("document.querySelector('dialog canvas').getBoundingClientRect().width") > 900
    browser.key("ArrowRight")
    assert "by mean" in browser.js("document.querySelector('dialog p').textContent")
    browser.key("Escape")
    assert not browser.js("document.querySelector('dialog').open")
    browser.wait(f"{focus}.closest('figure')?.textContent.startsWith('by mean')")
    browser.key("Tab")
    assert browser.js(f"{focus}.closest('.card').querySelector('h4').firstChild.textContent") == names(browser)[2]


def test_the_overlay_lays_labels_over_the_image(browser: Browser) -> None:
    browser.js("document.getElementById('overlay').focus()")
    browser.key("Home")
    assert browser.js("getComputedStyle(document.querySelector('.made canvas')).opacity") == "0"
    browser.key("End")
    assert browser.js("getComputedStyle(document.querySelector('.labels:not(.made) img:not(.under)')).opacity") == "1"


def test_nothing_from_the_data_became_an_element_or_ran(browser: Browser) -> None:
    assert browser.js("document.querySelectorAll('script').length") == 2
    assert browser.js("document.querySelectorAll('.card b[onload], main img:not([src^=\"data:\"])').length") == 0
    assert browser.js("document.querySelector('.split h3').firstChild.textContent") == HOSTILE
    assert browser.js("document.querySelector('#logs a').getAttribute('href')") == "logs/x%20y%23%3Cb%3E.log"


def test_everything_to_operate_or_look_at_has_a_name(browser: Browser) -> None:
    unnamed = """[...document.querySelectorAll("input, select, button, [role=button], img:not(.under)")].filter((part) =>
        !part.labels?.length && !part.textContent && !part.alt && !part.ariaLabel
        && !part.querySelector('[alt]:not([alt=""]), [aria-label]')).map((part) => part.outerHTML.slice(0, 200))"""
    assert browser.js(unnamed) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_fits_the_width_and_follows_the_theme(started: Browser, page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    started.open(page, width=width, height=800, dark=dark)
    started.js("localStorage.clear()")
    assert started.js("document.documentElement.scrollWidth") == width
    color = "getComputedStyle(document.body).backgroundColor"
    assert started.js(color) == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    other = "light" if dark else "dark"
    started.wait(f"document.getElementById('theme').click() || document.documentElement.dataset.theme === '{other}'")
    assert started.js(color) == ("rgb(255, 255, 255)" if dark else "rgb(18, 22, 27)")
    started.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.getpixel((2, 2))[:3] == ((255, 255, 255) if dark else (18, 22, 27))
    assert started.complaints() == []


def test_the_policy_lets_no_other_script_run(started: Browser, page: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    extra = "<script>window.ran = 1</script><img src='https://example.invalid/x'></main>"
    spoilt.write_text(page.read_text().replace("</main>", extra))
    started.open(spoilt)
    assert started.js("window.ran") is None
    assert len(started.complaints()) >= 2


def contrast(one: Any, other: Any) -> float:
    def light(color: Any) -> float:
        part = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_lines_stand_out(started: Browser, page: Path, dark: bool) -> None:
    started.open(page, dark=dark)
    started.js("localStorage.clear()")
    script = """(() => { const probe = document.body.appendChild(document.createElement("i")); return Object.fromEntries(
        ["paper", "card", "ink", "muted", "accent", "alarm", "s0", "s1", "s2", "s3", "s4", "s5"].map((name) => {
            probe.style.color = `var(--${name})`;
            return [name, getComputedStyle(probe).color.match(/[0-9]+/g).map(Number)]; })); })()"""
    colors = started.js(script)
    for name, color in colors.items():
        if name not in ("paper", "card"):
            assert contrast(color, colors["paper"]) >= 4.5, name
            assert contrast(color, colors["card"]) >= 4.5, name
