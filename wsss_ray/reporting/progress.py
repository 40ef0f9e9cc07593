"""Show the progress of a job: one bar per stage on a terminal, a few plain lines in a log."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from wsss_ray.reporting.words import pace, roughly, span

_FIRST_S, _PLAIN_EVERY_S = 4.0, 20.0  # from one plain line to the next: at the start, and later
_LATER = 12  # the time between two lines is this part of the time that has passed, within these limits
_TICK_S = 0.5


class Pace:
    """Measure the rate of some work from how much was done at which times.

    Workers that start together finish their first items in one burst, which tells no rate. The rate counts from the end of it.

    Args:
        began: time at which the work started, in seconds. All times are of the same clock.

    Example:
        >>> pace = Pace(0.0)
        >>> for seconds, done in ((10.0, 1), (20.0, 2), (30.0, 3)):
        ...     pace.at(seconds, done)
        >>> pace.rate
        0.1
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self._settles = math.inf
        self._first: tuple[float, float] | None = None
        self._last = (began, 0.0)

    def at(self, now: float, done: float) -> None:
        """Record that `done` items were done at the time `now`. Times must not decrease."""
        if self._first is None:
            self._settles = now + (now - self.began) / 2
        if self._first is None or now <= self._settles:
            self._first = now, done
        self._last = now, done

    @property
    def rate(self) -> float | None:
        """Return the items per second; None while it cannot be known."""
        (began, before), (now, done) = self._first or self._last, self._last
        return (done - before) / (now - began) if now > began and done > before else None


class Meter:
    """The progress of one stage. `Display.meter` makes it.

    Args:
        display: shows the progress.
        label: name of the stage.
        total: number of items of the whole stage.
        unit: name of the items, such as "images" or "steps".
        already: number of items that an earlier attempt completed.

    Example:
        >>> meter = display.meter("seed", 1000, "images")
        >>> meter.add(16)
        >>> meter.done
        16
    """

    def __init__(self, display: Display, label: str, total: int, unit: str, already: int) -> None:
        self.display, self.label, self.total, self.unit = display, label, total, unit
        self.done = already
        self._born = self._spoke = time.monotonic()
        self._note, self.is_over = "", False
        self._said: tuple[int, str] | None = None
        self._bar = display.bars.add_task(label, total=total, completed=already, note="") if display.bars else None
        display.meters_shown.append(self)
        self.begin()

    def begin(self) -> None:
        """Restart the measurement of the rate: only what is done from now on counts."""
        self._pace = Pace(time.monotonic())

    def to(self, done: int, note: str = "", loss: float | None = None) -> None:
        """Set the number of completed items.

        Args:
            done: number of completed items, with those of earlier attempts.
            note: words to show beside the rate.
            loss: present loss of a training. It is forwarded to the scheduler of a sweep.
        """
        self.done, self._note = done, note
        self._pace.at(time.monotonic(), done)
        if self._bar is not None and self.display.bars:
            self.display.bars.update(self._bar, completed=done, note=self._text(note))
        else:
            self.speak(note)

    def end(self) -> None:
        """Complete the bar. Failed images were never counted, so its total becomes what is done."""
        self.is_over = True
        if self._bar is not None and self.display.bars:
            self.display.bars.update(self._bar, total=self.done, completed=self.done, note="")

    def speak(self, note: str) -> None:
        """Print a line, if the last one is old enough. Without progress since then, it says how long the work has taken."""
        if not _due(self._born, self._spoke):
            return
        self._spoke = time.monotonic()
        still = self._said == (self.done, note)
        self._said = self.done, note
        text = ", ".join(filter(None, (note, f"{span(self._spoke - self._born)} so far"))) if still else self._text(note)
        self.display.say(f"{self.label}: {self.done}/{self.total} {self.unit}{', ' if text else ''}{text}")

    def _text(self, note: str) -> str:
        """Join the rate, the note, the time left and, where it is known, the time left of the whole job."""
        rate, left = self._pace.rate, self.total - self.done
        parts = [pace(rate, self.unit) if rate else "", note]
        if rate and left > 0:
            parts.append(f"{span(left / rate)} left")
            if self.display.later_s:
                parts.append(f"whole job about {roughly(left / rate + self.display.later_s)}")
        return ", ".join(filter(None, parts))

    def tick(self) -> None:
        """Print a line although nothing was added, if the last one is old enough and there is something left to do."""
        if not self.is_over and self.done < self.total:
            self.speak(self._note)

    def add(self, count: int, note: str = "") -> None:
        """Add completed items.

        Args:
            count: number of items completed since the last call.
            note: words to show beside the rate.
        """
        self.to(self.done + count, note)


class Display:
    """Show progress as bars on a terminal, as plain lines elsewhere.

    Args:
        console: where to print; None for the standard output.

    Example:
        >>> display = Display()
        >>> with display.meters():
        ...     meter = display.meter("seed", 1000, "images")
        ...     meter.add(16)
    """

    stopped = False
    """True once the scheduler of a sweep has ended the work. The error that follows is then no failure."""

    is_live = False
    """True where another process or a page shows the progress: nothing is printed only to say that the work goes on."""

    later_s: float | None = None
    """Expected seconds of the stages after those whose meters are shown; None if they are not known."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.bars: RichProgress | None = None
        self.meters_shown: list[Meter] = []

    def say(self, text: str) -> None:
        """Print one line for the user."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def announce(self, text: str) -> None:
        """Print one line that says that a piece of work begins, unless the display is live."""
        if not self.is_live:
            self.say(text)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say that work begins whose progress is not known, and now and then that it goes on.

        Example:
            >>> with display.doing("starting Ray"):
            ...     ray.init()
            starting Ray
            starting Ray: 0:00:05
        """
        self.announce(what)
        with self.still(what):
            yield

    @contextmanager
    def still(self, what: str) -> Iterator[None]:
        """Say, now and then, that work goes on which is usually over at once."""
        born = time.monotonic()
        spoke = [born]

        def tick() -> None:
            if _due(born, spoke[0]):
                spoke[0] = time.monotonic()
                self.say(f"{what}: {span(spoke[0] - born)}")

        with self._ticks(tick):
            yield

    @contextmanager
    def _ticks(self, tick: Callable[[], None]) -> Iterator[None]:
        """Call a function every moment in another thread."""
        if self.is_live:
            yield
            return
        over = threading.Event()

        def run() -> None:
            while not over.wait(_TICK_S):
                tick()

        thread = threading.Thread(target=run, daemon=True, name="progress")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _tick(self) -> None:
        self.meters_shown = [meter for meter in self.meters_shown if not meter.is_over]
        for meter in self.meters_shown:
            meter.tick()

    @contextmanager
    def meters(self) -> Iterator[None]:
        """Show the bars of all meters inside the `with` block."""
        if not self.console.is_terminal:
            with self._ticks(self._tick):
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
        """Start the progress of a stage.

        Args:
            label: name of the stage.
            total: number of items of the whole stage.
            unit: name of the items, such as "images" or "steps".
            already: number of items that an earlier attempt completed.
        """
        return Meter(self, label, total, unit, already)


def _due(born: float, spoke: float) -> bool:
    """Return True if a plain line is due: soon at the start of some work, and more rarely later."""
    now = time.monotonic()
    return now - spoke > min(max(_FIRST_S, (now - born) / _LATER), _PLAIN_EVERY_S)
