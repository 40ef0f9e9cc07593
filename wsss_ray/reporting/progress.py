"""What a person sees while a job runs: a bar per stage on a terminal, a few plain lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

_PLAIN_EVERY_S = 20.0


class Pace:
    """How fast work goes, by what was done at which times, in seconds of any one clock; `began` is when it was set going.

    What comes in one burst with the first, as from workers that began together, tells no rate; it is counted from there.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self._settles = math.inf
        self._first: tuple[float, float] | None = None
        self._last = (began, 0.0)

    def at(self, now: float, done: float) -> None:
        """So much was done by then. Times rise."""
        if self._first is None:
            self._settles = now + (now - self.began) / 2
        if self._first is None or now <= self._settles:
            self._first = now, done
        self._last = now, done

    @property
    def rate(self) -> float | None:
        """Per second; None while nobody can tell."""
        (began, before), (now, done) = self._first or self._last, self._last
        return (done - before) / (now - began) if now > began and done > before else None


def pace(rate: float, unit: str) -> str:
    """A rate per second in words, per minute or hour where that gives a figure."""
    for seconds, name in ((1, "s"), (60, "min")):
        if rate * seconds >= 0.1:
            return f"{rate * seconds:.1f} {unit}/{name}"
    return f"{rate * 3600:.1f} {unit}/h"


def span(seconds: float) -> str:
    """A time span as h:mm:ss."""
    return str(timedelta(seconds=round(max(0.0, seconds))))


class Meter:
    """Progress of one stage in images or steps."""

    def __init__(self, display: Display, label: str, total: int, unit: str, already: int) -> None:
        self.display, self.label, self.total, self.unit = display, label, total, unit
        self.done = already
        self._spoke = time.monotonic()
        self._bar = display.bars.add_task(label, total=total, completed=already, note="") if display.bars else None
        self.begin()

    def begin(self) -> None:
        """Rates count what is done from now on."""
        self._pace = Pace(time.monotonic())

    def to(self, done: int, note: str = "", loss: float | None = None) -> None:
        """So many are done by now; a training's loss is for those who steer by it."""
        self.done = done
        self._pace.at(time.monotonic(), done)
        if self._bar is not None and self.display.bars:
            self.display.bars.update(self._bar, completed=done, note=self._text(note))
        else:
            self.speak(note)

    def end(self) -> None:
        """There is no more to do, though images that failed were never counted."""
        if self._bar is not None and self.display.bars:
            self.display.bars.update(self._bar, total=self.done, completed=self.done, note="")

    def speak(self, note: str) -> None:
        """A line, if the last is long enough ago."""
        if time.monotonic() - self._spoke > _PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            text = self._text(note)
            self.display.say(f"{self.label}: {self.done}/{self.total} {self.unit}{', ' if text else ''}{text}")

    def _text(self, note: str) -> str:
        """Pace, note, and time left."""
        rate, left = self._pace.rate, self.total - self.done
        parts = [pace(rate, self.unit) if rate else "", note, f"{span(left / rate)} left" if rate and left > 0 else ""]
        return ", ".join(filter(None, parts))

    def add(self, count: int, note: str = "") -> None:
        """So many more are done."""
        self.to(self.done + count, note)


class Display:
    """Bars on a terminal, lines elsewhere. `stopped`: whoever watches has ended the work, which then fails in some way."""

    stopped = False

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
        columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with RichProgress(*columns, TextColumn("{task.fields[note]}"), console=self.console) as bars:
            self.bars = bars
            try:
                yield
            finally:
                self.bars = None

    def meter(self, label: str, total: int, unit: str, already: int = 0) -> Meter:
        """A new stage's progress."""
        return Meter(self, label, total, unit, already)
