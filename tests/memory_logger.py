"""A logger of a user's own: it keeps its rows in this process, and fails or hangs when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures

ROWS: dict[str, list[StepFigures]] = {}
RUNS: list[Run] = []
CLOSED: list[tuple[RunState, str | None]] = []
GO_ON = threading.Event()


def forget() -> None:
    """Begin anew."""
    ROWS.clear()
    RUNS.clear()
    CLOSED.clear()
    GO_ON.clear()


class Memory(Logger):
    """`fails`: so many writes of each opening go wrong. `hangs`: until `GO_ON`."""

    fails: int = 0
    hangs: bool = False

    def open(self, run: Run) -> Sink:
        RUNS.append(run)
        return Kept(self, run.before or f"number {len(RUNS)}")


class Kept(Sink):
    def __init__(self, logger: Memory, name: str) -> None:
        self.id, self.logger, self.left = name, logger, logger.fails

    def write(self, rows: Sequence[StepFigures]) -> None:
        if self.logger.hangs:
            assert GO_ON.wait(30)
        if self.left:
            self.left -= 1
            raise ConnectionError("the server\nis away")
        ROWS.setdefault(self.id, []).extend(rows)

    def close(self, state: RunState, report: str | None) -> None:
        CLOSED.append((state, report))


class Absent(Memory):
    """Needs what is not there."""

    needs = "there_is_no_such_module"
