"""Draw the pictures of docs/report.md from a report and a comparison, by a headless Chromium. Run from the root of a clone.

PYTHONPATH=. python docs/screenshots.py runs/runs/demo/report.html --comparison compare.html
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser import MISSING, chromium, draw_twice, launched, opened

DOCS = Path(__file__).parent


def show(page: Page, selector: str, *, above: int = 16) -> None:
    """Scroll until an element stands at the top."""
    scroll = "([selector, above]) => scrollTo(0, document.querySelector(selector).getBoundingClientRect().top + scrollY - above)"
    page.evaluate(scroll, [selector, above])
    draw_twice(page)
    draw_twice(page)


def shot(page: Page) -> Image.Image:
    """Return what is in view."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def draw(browser: Browser, report: Path, theta: float) -> None:
    """Draw the three pictures; the second in dark."""
    with opened(browser, report, height=760) as (page, _):
        show(page, "body", above=0)
        page.screenshot(path=DOCS / "report.png")
    with opened(browser, report, height=1010, dark=True) as (page, _):
        move = "(slider, theta) => { slider.value = theta; slider.dispatchEvent(new Event('input')); }"
        page.locator("#theta").evaluate(move, theta)  # `fill` would leave the focus, and its ring, on the slider
        page.locator("#order").select_option("all down")
        left_out = page.locator(".legend, .tools, .legend + .note, .split > .note, #images h2, #threshold > .note")
        left_out.evaluate_all("(parts) => parts.forEach((part) => part.remove())")
        show(page, "#threshold", above=8)
        shot(page).save(DOCS / "report-theta.webp", quality=82, method=6)
    sheet = Image.new("RGB", (3 * 360 + 2 * 24, 720), (200, 204, 208))
    with opened(browser, report, width=360, height=720) as (page, _):
        for i, selector in enumerate(("body", "#threshold", ".split")):
            show(page, selector, above=0 if selector != ".split" else 70)
            sheet.paste(shot(page), (i * 384, 0))
    sheet.save(DOCS / "report-phone.webp", quality=82, method=6)


def draw_comparison(browser: Browser, comparison: Path) -> None:
    """Draw some training images of a comparison."""
    with opened(browser, comparison, height=640) as (page, _):
        page.locator("#order").select_option("all down")
        page.locator(".tools").evaluate("(tools) => tools.remove()")
        show(page, ".split:last-child", above=0)
        shot(page).save(DOCS / "report-compare.webp", quality=82, method=6)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--theta", type=float, default=0.35)
    parser.add_argument("--comparison", type=Path, help="page of `wsss-ray compare --report`")
    options = parser.parse_args()
    program = chromium()
    if program is None:
        parser.error(MISSING)
    with launched(program) as browser:
        draw(browser, options.report.absolute(), options.theta)
        if options.comparison is not None:
            draw_comparison(browser, options.comparison.absolute())


if __name__ == "__main__":
    main()
