"""Show progress and runs inside a notebook, as HTML. IPython is used if it is there and is not needed otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

from wsss_ray.reporting.progress import Display, Meter
from wsss_ray.reporting.status import RunStatus

Show = Callable[[str], Callable[[str], None]]
"""Show some HTML, and return a function that replaces it."""

_EVERY_S = 0.5
_LINES = 12  # lines of text that stay above the bars
_EMBED_BYTES = 8 << 20  # a larger report would make the notebook itself too large


def display_here() -> Display:
    """Return the display that suits this process: bars in a notebook, bars on a terminal, or plain lines.

    Example:
        >>> display = display_here()
    """
    show = _ipython()
    return NotebookDisplay(show) if show is not None else Display()


class NotebookDisplay(Display):
    """Show the progress of a job as one block of HTML that changes while the job runs.

    Args:
        show: Shows HTML in the notebook.

    Example:
        >>> display = NotebookDisplay(show)
        >>> with display.meters():
        ...     display.meter("seeds", 48, "images").add(16)
    """

    is_live = True

    def __init__(self, show: Show) -> None:
        super().__init__()
        self._update = show("")
        self._lines: list[str] = []
        self._meters: list[NotebookMeter] = []
        self._drawn = 0.0

    def say(self, text: str) -> None:
        """Show one line above the bars."""
        self._lines = [*self._lines, text][-_LINES:]
        self.draw(at_once=True)

    @contextmanager
    def meters(self) -> Iterator[None]:
        """Show the bars of all meters, also after the block."""
        try:
            yield
        finally:
            self.draw(at_once=True)

    def meter(self, label: str, total: int, unit: str, already: int = 0) -> Meter:
        """Start the progress of a stage. See `Display.meter`."""
        found = NotebookMeter(self, label, total, unit, already)
        self._meters.append(found)
        self.draw(at_once=True)
        return found

    def draw(self, *, at_once: bool = False) -> None:
        """Show the present state, unless it was shown a moment ago."""
        if at_once or time.monotonic() - self._drawn > _EVERY_S:
            self._drawn = time.monotonic()
            rows = [[meter.label, *bar(meter.done, meter.total, meter.unit), meter.text] for meter in self._meters]
            lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines)
            self._update(f'<div style="font-family:monospace">{lines}{_table(rows)}</div>')


class NotebookMeter(Meter):
    """The progress of one stage, drawn by its `NotebookDisplay`."""

    display: NotebookDisplay
    text = ""
    """Rate, note and time left, HTML-escaped."""

    def to(self, done: int, note: str = "", loss: float | None = None) -> None:
        """Set the number of completed items. See `Meter.to`."""
        self.done = done
        self._pace.at(time.monotonic(), done)
        self.text = escape(self._text(note))
        self.display.draw()

    def end(self) -> None:
        """Complete the bar. Failed images were never counted, so its total becomes what is done."""
        self.total, self.text = self.done, ""
        self.display.draw(at_once=True)


def bar(done: int, total: int | None, unit: str) -> tuple[str, str]:
    """Return the HTML of a bar, and its numbers.

    Example:
        >>> bar(16, 48, "images")
        ('<progress max="48" value="16"></progress>', '16/48 images')
    """
    most = max(total or 0, done, 1)
    filled = f'<progress max="{most}" value="{done if total else 0}"></progress>'
    return filled, f"{done}/{'-' if total is None else total} {unit}"


def status_html(status: RunStatus) -> str:
    """Return a table of a run's stages with a bar for each.

    Example:
        >>> "<progress" in status_html(run_status(RunStore("runs"), "pets"))
        True
    """
    rows = [
        [stage.name, *bar(stage.made, stage.work, stage.unit), f"{stage.state}{': ' if stage.error else ''}{stage.error or ''}"]
        for stage in status.stages
    ]
    for row in rows:
        row[3] = escape(row[3])
    head = f"<b>{escape(status.name)}</b>: {status.state}, {status.done} of {len(status.stages)} stages done"
    return f"<div>{head}</div>{_table(rows)}"


def report_html(report: bytes, path: str) -> str:
    """Return a frame that shows a report, or a link if the report is too large to be kept in a notebook.

    The frame may run the report's own scripts, but has no access to the notebook.

    Example:
        >>> report_html(b"<p>fine</p>", "runs/runs/pets/report.html")[:7]
        '<iframe'
    """
    if len(report) > _EMBED_BYTES:
        size = f"{len(report) / 1e6:.0f} MB"
        return f'<a href="{escape(path, quote=True)}" target="_blank">{escape(path)}</a> ({size}, too large for the notebook)'
    source = escape(report.decode(errors="replace"), quote=True)
    return f'<iframe sandbox="allow-scripts" style="width:100%;height:720px;border:0" srcdoc="{source}"></iframe>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already, but for the first, which is a name."""
    lines = [f"<tr><td>{escape(row[0])}</td>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _ipython() -> Show | None:
    """Return how the notebook that runs this process shows HTML; None outside of a notebook."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

    def show(text: str) -> Callable[[str], None]:
        handle = display(HTML(text), display_id=True)
        return lambda new: handle.update(HTML(new))

    return show
