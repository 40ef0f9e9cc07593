"""The page of runs side by side in a real browser: what stands beside what, and that it asks nobody for anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report_set import IMAGES, fill, maps_of
from tests.unit.test_report import CLASSES, HOSTILE, Page
from wsss_ray.core.plan import Stage
from wsss_ray.reporting.report.comparison import ComparedRuns, ComparedSplit, MadeBy, build_comparison
from wsss_ray.storage.finished import StageId
from wsss_ray.storage.store import RunStore

pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
from tests.browser import MISSING, chromium, launched, opened

RUNS = ("first", HOSTILE, "none yet", "elsewhere")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    store = RunStore(str(folder))
    seeds = [stage for stage in fill(store) if stage.kind == "seed"][:2]

    def made(stage: Stage, data: str = "") -> MadeBy:
        return MadeBy(stage.id, stage.kind, stage.name, store, StageId(data or stage.input("data").id))

    tagged = [sum(k in maps_of(i).classes for i in range(IMAGES)) for k in range(len(CLASSES))]
    split = ComparedSplit("Training images", CLASSES, tagged, [*map(made, seeds), None, made(seeds[0], "ingest-of-others")])
    score = {"miou": 0.5, "precision": 0.25, "recall": None, "coverage": 1.0}
    found = ComparedRuns(
        runs=RUNS,
        scores={"seed_quality": [score, score | {"miou": 0.75}, None, None]},
        classes={"seed_quality": {CLASSES[1]: [0.125, None, None, None]}},
        fields={"note": ["</code><img src=x>", "x" * 500, "-", "-"]},
        splits=[split],
    )
    path = folder / "compare.html"
    path.write_bytes(build_comparison(found))
    assert build_comparison(found) == path.read_bytes()
    return path


def test_what_runs_made_has_words_and_no_markup_of_its_own(html: Path) -> None:
    page = Page(html.read_text())
    assert {
        "Seeds against the masks",
        "seed_quality",
        "0.125",
        "0.750",
        "0.250",
        f"first, {HOSTILE}, none yet, elsewhere",
    } <= set(page.texts)
    assert "</code><img src=x>" in page.texts
    (about,) = [text for text in page.texts if text.startswith(f"{IMAGES} images: ")]
    assert about.endswith("No label maps yet: none yet. Other data, so not shown: elsewhere.")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_labels_of_runs_stand_in_one_row_beside_the_mask(html: Path, width: int) -> None:
    program = chromium()
    if program is None:
        pytest.skip(MISSING)
    places = """(card) => [...card.querySelectorAll("figure")].map((figure) => {
        const box = figure.querySelector(".pic").getBoundingClientRect();
        return [figure.querySelector("figcaption span").textContent, box.top, box.right];
    })"""
    with launched(program) as browser, opened(browser, html, width=width, height=3000) as (page, heard):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for found in page.locator(".card").evaluate_all(f"(cards) => cards.map({places})"):
            assert [name for name, *_ in found] == ["Image", "Mask", "first: by mean", f"{HOSTILE}: by power"]
            assert len({top for _, top, _ in found[1:]}) == 1
            assert all(right <= width for _, _, right in found)
        assert page.locator(".card").count() == IMAGES
        page.locator("#order").select_option(label="lowest IoU of first: by mean first")
        assert page.locator(".count").text_content() == f"{IMAGES} of {IMAGES} shown"
    assert heard.complaints == []
    assert [url for url in heard.requests if not url.startswith("data:")] == [html.as_uri()]
