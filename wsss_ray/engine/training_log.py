"""Write and read the log of a training: `metrics.jsonl` in its stage's folder, a row every few steps.

    {"step": 20, "epoch": 0.25, "time": 1790000000.0, "loss": 0.41, "terms": {...}, "lr": 0.01, "images_per_s": 88.0, ...}

The training replaces the whole file each time it adds rows. A row of a step may be there without a loss: it holds a score.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsss_ray.storage.finished import LOG
from wsss_ray.storage.store import Identified, RunStore
from wsss_ray.storage.tail import LineTail
from wsss_ray.storage.wholeness import whole_lines

if TYPE_CHECKING:  # it imports torch, and readers must start fast
    from wsss_ray.engine.loop import Step

_LAST = 16_384  # bytes that `last_rows` reads
_EVERY = 20  # steps between two lines, at most
_LINES = 100  # lines of a training, at least, if it has so many steps

Row = dict[str, Any]


def log_path(store: RunStore, stage_id: str) -> str:
    """Return the path of the log of a training.

    Args:
        store: The store of the training.
        stage_id: The id of the train stage.

    Example:
        >>> log_path(RunStore("/nfs/runs"), "train-0123456789abcdef")
        '/nfs/runs/stages/train-0123456789abcdef/metrics.jsonl'
    """
    return store.path("stages", stage_id, LOG)


def read_log(store: RunStore, stage_id: str) -> list[Row]:
    """Read the rows of the log of a training.

    Args:
        store: The store of the training.
        stage_id: The id of the train stage.

    Returns:
        The rows, by step; none if there is no log.

    Example:
        >>> [(row["step"], row["loss"]) for row in read_log(store, stage.id)]
        [(20, 0.41), (40, 0.36)]
    """
    path = log_path(store, stage_id)
    return parse_log(store.read(path)) if store.exists(path) else []


def parse_log(data: bytes) -> list[Row]:
    """Parse the rows of a log by step. The last row of a repeated step counts. Torn lines are skipped."""
    rows: dict[int, Row] = {}
    for line in data.decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("time", 0), int | float):
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def last_rows(store: RunStore, stage_id: str, count: int) -> list[Row]:
    """Read rows from the end of a log, without the rest of the file.

    Args:
        store: The store of the training.
        stage_id: The id of the train stage.
        count: The most rows to return. There may be fewer: only the last 16 KiB are read.

    Returns:
        The rows, by step; none if there is no log.

    Example:
        >>> last_rows(store, stage.id, 1)[0]["step"]
        40
    """
    path = log_path(store, stage_id)
    if not store.exists(path):
        return []
    with store.open(path) as file:
        file.seek(max(0, file.size() - _LAST))
        text: bytes = file.read()
    return parse_log(text if len(text) < _LAST else text.partition(b"\n")[2])[-count:]


def steps_between_lines(total: int) -> int:
    """Return the steps between two lines of the log of a training: 20, and fewer in a short one, so that its curve has points.

    Args:
        total: Number of steps of the training.

    Example:
        >>> steps_between_lines(100_000), steps_between_lines(600), steps_between_lines(40)
        (20, 6, 1)
    """
    return max(1, min(_EVERY, total // _LINES))


class LogTail:
    """Read the new rows of a log while its training goes on.

    Args:
        store: The store of the training.
        stage_id: The id of the train stage.

    Example:
        >>> tail = LogTail(store, stage.id)
        >>> [row["step"] for row in tail.rows()]
        [20, 40]
        >>> tail.rows()
        []
    """

    def __init__(self, store: RunStore, stage_id: str) -> None:
        self._tail = LineTail(store, log_path(store, stage_id))

    def rows(self) -> list[Row]:
        """Return the rows added since the last call, or all if the log was written anew.

        Raises:
            OSError: if the log cannot be read.
        """
        return [json.loads(line) for line in whole_lines(b"".join(self._tail.lines())).splitlines()]


class MetricsLog:
    """Write the log of a training, one line every `every` steps. Each write replaces the whole file.

    Lines of an earlier attempt after step `start` are dropped. The time between two writes is at least one second, and at least
    100 times the duration of the last write, so a long file on a slow store takes at most 1 % of the time.

    Args:
        store: The store of the training.
        stage: The train stage.
        start: Number of steps that are done already.
        every: Steps from one line to the next.

    Example:
        >>> log = MetricsLog(store, stage, start=0, every=20)
        >>> log.add(step, batch_size=16, flush=True)
        >>> log.take()()  # writes the lines now
    """

    def __init__(self, store: RunStore, stage: Identified, start: int, *, every: int) -> None:
        self.store, self.path, self.every = store, log_path(store, stage.id), every
        text = store.read(self.path) if store.exists(self.path) else b""
        lines = [line for line in whole_lines(text).splitlines(keepends=True) if json.loads(line)["step"] <= start]
        logged = [loss for line in reversed(lines) if (loss := json.loads(line).get("loss")) is not None]
        self.loss: float | None = logged[0] if logged else None
        self._text = bytearray(b"".join(lines))
        self._written = len(self._text)
        self._since: list[Step] = []
        self._next = time.monotonic()

    def add(self, step: Step, batch_size: int, *, flush: bool, miou: float | None = None) -> None:
        """Note a step. Every `every` steps, and at a checkpoint, add a line with the mean losses since the last one.

        Args:
            step: The result of the step.
            batch_size: Number of images in the global batch.
            flush: Add a line even if none is due.
            miou: A score on validation images. It goes into that line. If no line is due, it gets a line of its own, which
                changes no mean.
        """
        self._since.append(step)
        when = {"step": step.step, "epoch": round(step.epoch, 4), "time": round(time.time(), 3)}
        score = {} if miou is None else {"val_miou": miou}
        if step.step % self.every and not flush:
            self._text += json.dumps(when | score).encode() + b"\n" if score else b""
            return
        count, seconds = len(self._since), sum(s.seconds for s in self._since)
        names = sorted({name for s in self._since for name in s.terms})
        self.loss = sum(s.loss for s in self._since) / count
        line = {
            **when,
            "loss": self.loss,
            "terms": {name: sum(s.terms.get(name, 0.0) for s in self._since) / count for name in names},
            "lr": step.lr,
            "images_per_s": round(count * batch_size / seconds, 2),
            "wait_share": round(sum(s.waited for s in self._since) / seconds, 4),
            **score,
        }
        self._text += json.dumps(line).encode() + b"\n"
        self._since = []

    def due(self) -> bool:
        """Return True if there are lines to write, and the time between two writes has passed."""
        return len(self._text) > self._written and time.monotonic() > self._next

    def take(self) -> Callable[[], None]:
        """Copy the present lines.

        Returns:
            A function that writes the copy. It raises OSError if the file cannot be written.
        """
        lines, self._written = bytes(self._text), len(self._text)

        def commit() -> None:
            began = time.monotonic()
            self.store.write(self.path, lines)
            ended = time.monotonic()
            self._next = ended + max(1.0, 100 * (ended - began))

        return commit
