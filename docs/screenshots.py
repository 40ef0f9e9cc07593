"""Draw the pictures of docs/report.md from a report, by a headless Chromium. Run from the root of a clone.

PYTHONPATH=. python docs/screenshots.py runs/runs/demo/report.html
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import Browser, chromium

DOCS = Path(__file__).parent


def show(browser: Browser, selector: str, *, above: int = 16) -> None:
    """Scroll until an element stands at the top."""
    browser.js(f"scrollTo(0, document.querySelector({selector!r}).getBoundingClientRect().top + scrollY - {above})")
    browser.frame()
    browser.frame()


def draw(browser: Browser, report: Path, theta: float) -> None:
    """The three pictures; the second in dark."""
    browser.open(report, width=1280, height=760)
    show(browser, "body", above=0)
    browser.picture(DOCS / "report.png")
    browser.open(report, width=1280, height=1010, dark=True)
    browser.js(f"const s = document.getElementById('theta'); s.value = {theta}; s.dispatchEvent(new Event('input'))")
    left_out = ".legend, .tools, .legend + .note, .split > .note, #images h2"
    browser.js(f"document.querySelectorAll({left_out!r}).forEach((part) => part.remove())")
    show(browser, "#threshold", above=8)
    browser.picture(DOCS / "report-theta.webp", quality=82)
    with tempfile.TemporaryDirectory() as folder:
        shots = []
        browser.open(report, width=360, height=720)
        for i, selector in enumerate(("body", "#threshold", ".split")):
            show(browser, selector, above=0 if selector != ".split" else 70)
            browser.picture(Path(folder) / f"{i}.png")
            shots.append(Image.open(Path(folder) / f"{i}.png").convert("RGB"))
        sheet = Image.new("RGB", (3 * 360 + 2 * 24, 720), (200, 204, 208))
        for i, shot in enumerate(shots):
            sheet.paste(shot, (i * 384, 0))
        sheet.save(DOCS / "report-phone.webp", quality=82, method=6)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--theta", type=float, default=0.35)
    options = parser.parse_args()
    program = chromium()
    if program is None:
        parser.error("no Chromium found; install one or set CHROMIUM")
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, Path(profile))
        try:
            draw(browser, options.report.absolute(), options.theta)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
