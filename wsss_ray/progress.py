"""What a person sees while a job runs: a bar per stage on a terminal, a few plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_PLAIN_EVERY_S = 20.0


class Meter:
    """Progress of one stage in images or steps."""

    def __init__(self, display: Display, label: str, total: int, unit: str, already: int) -> None:
        self.display, self.label, self.total, self.unit = display, label, total, unit
        self.done = already
        self._first: tuple[float, int] | None = None  # rates count from the first sign of life, not from the start of workers
        self._spoke = time.monotonic()
        self._bar = display.bars.add_task(label, total=total, completed=already, note="") if display.bars else None

    def to(self, done: int, note: str = "", loss: float | None = None) -> None:
        """So many are done by now; a training's loss is for those who steer by it."""
        self.done = done
        now = time.monotonic()
        began, before = self._first = self._first or (now, done)
        rate = (done - before) / (now - began) if now > began else 0.0
        pace = f"{rate:.1f} {self.unit}/s" if rate >= 0.1 else f"{60 * rate:.1f} {self.unit}/min"
        text = f"{pace} {note}".strip() if rate else note
        if self._bar is not None and self.display.bars:
            self.display.bars.update(self._bar, completed=done, note=text)
        elif now - self._spoke > _PLAIN_EVERY_S:
            self._spoke = now
            left = f", {(self.total - done) / rate:.0f} s left" if rate > 0 else ""
            self.display.say(f"{self.label}: {done}/{self.total} {self.unit}{', ' if text else ''}{text}{left}")

    def add(self, count: int, note: str = "") -> None:
        """So many more are done."""
        self.to(self.done + count, note)


class Display:
    """Bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.bars: RichProgress | None = None

    def say(self, text: str) -> None:
        """One line for the user."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def meters(self) -> Iterator[None]:
        """While stages run."""
        if not self.console.is_terminal:
            yield
            return
        columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        with RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console) as bars:
            self.bars = bars
            try:
                yield
            finally:
                self.bars = None

    def meter(self, label: str, total: int, unit: str, already: int = 0) -> Meter:
        """A new stage's progress."""
        return Meter(self, label, total, unit, already)
