"""Drive a Chromium of this machine by Playwright; no browser is ever downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "no Chromium found; install one or set CHROMIUM"
_PATIENCE_MS = 90_000  # a shared machine of two cores


def chromium() -> str | None:
    """Return the path of a Chromium, from $CHROMIUM or by its usual names."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def launched(program: str) -> Iterator[Browser]:
    """Start a headless browser. Playwright adds --no-sandbox, which root needs, and switches background networking off."""
    expect.set_options(timeout=_PATIENCE_MS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=["--disable-gpu"], timeout=_PATIENCE_MS) as browser,
    ):
        yield browser


class Heard:
    """Collect what a page asks for, and what the console, the policy and uncaught exceptions say."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[tuple[Page, Heard]]:
    """Load a file into a page with a storage of its own. All that the page said is heard once it is closed."""
    with browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light") as page:
        page.set_default_timeout(_PATIENCE_MS)
        heard = Heard(page)
        page.goto(path.as_uri())
        yield page, heard


def draw_twice(page: Page) -> None:
    """Let the page draw two frames."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
