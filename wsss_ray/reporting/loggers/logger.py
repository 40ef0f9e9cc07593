"""The interface of a logger, and the values that it gets.

The fields of a logger are its settings in a job file. Import its library in `open`, so that other jobs do not need it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from wsss_ray.core.component import Component
from wsss_ray.storage.store import RunStore

RunState = Literal["finished", "failed", "stopped"]
"""The end of a run. A run is stopped by the user, or by the scheduler of a sweep."""


@dataclass(frozen=True)
class StepFigures:
    """The figures of a stage at a step.

    Attributes:
        stage: name of the stage.
        stage_id: id of the stage.
        step: step of a training; for any other stage, the number of shards so far.
        time: seconds since the epoch.
        figures: values by name, such as `loss` or `iou/cat`.
    """

    stage: str
    stage_id: str
    step: int
    time: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run, as a logger sees it.

    Attributes:
        store: store of the run.
        name: name of the run in the store.
        job: the job with all defaults filled in.
        tags: versions, the commit and the stage ids.
        before: id that this logger gave the run in an earlier attempt; None in the first.
    """

    store: RunStore
    name: str
    job: Mapping[str, Any]
    tags: Mapping[str, str]
    before: str | None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the job by their dotted paths.

        Example:
            >>> Run(store, "pets", {"run": {"seed": 1}}, tags={}, before=None).fields()
            {'run.seed': 1}
        """
        return flatten(self.job, ".")


class Sink(ABC):
    """One run in one logger. It is called on a thread of its own.

    An exception ends neither the run nor the logging. After one in `write`, the same rows come again later.

    Example:
        class PrintedRun(Sink):
            def __init__(self, run: Run) -> None:
                self.id = run.before or run.name

            def write(self, rows: Sequence[StepFigures]) -> None:
                for row in rows:
                    print(row.stage, row.step, row.figures)

            def close(self, state: RunState, report: str | None) -> None:
                print(state)
    """

    id: str
    """The id of the run in the tracker. If it differs from `Run.before`, the sink gets all figures from the first step on."""

    @abstractmethod
    def write(self, rows: Sequence[StepFigures]) -> None:
        """Log these rows, in order. After an exception the same rows come again."""

    @abstractmethod
    def close(self, state: RunState, report: str | None) -> None:
        """End the run. No rows follow.

        Args:
            state: how the run ended.
            report: the HTML of its report; None if it has none.
        """


class Logger(Component):
    """A tracker that keeps or shows figures. A job file may name it by its kind alone: `loggers: [tensorboard, mlflow]`.

    Example:
        class Printed(Logger):
            def open(self, run: Run) -> Sink:
                return PrintedRun(run)
    """

    needs: ClassVar[str | None] = None
    """The module that the logger imports, installed by the extra `wsss-ray[KIND]`; None if it needs none."""

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """Read the kind of a logger that has no settings. See `Component.from_text`."""
        return {"kind": text}

    def check(self) -> None:
        """Check that this machine can log, before anything starts. Contact no server.

        Raises:
            ValueError: if it cannot. The message says what to do.
        """
        if self.needs is not None and find_spec(self.needs) is None:
            raise ValueError(f"run.loggers: {self.kind()} is not installed; pip install 'wsss-ray[{self.kind()}]'")

    @abstractmethod
    def open(self, run: Run) -> Sink:
        """Start the run in the tracker, or continue it if `run.before` is set. It is called on the thread of the sink.

        An exception does not end the run: the logger is opened again later.
        """


def plain(name: str, *, also: str = "") -> str:
    """Replace every character by `_` that is not a letter, a digit, `_`, `-`, `.` or in `also`.

    Example:
        >>> plain("iou/dog & bone", also="/ ")
        'iou/dog _ bone'
    """
    return re.sub(rf"[^\w.{re.escape(also)}-]", "_", name, flags=re.ASCII)


def flatten(nested: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Return the values of a nested mapping by their joined names. An empty mapping inside it stays a value.

    Example:
        >>> flatten({"loss": 0.5, "terms": {"seed": 0.5}}, "/")
        {'loss': 0.5, 'terms/seed': 0.5}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        inner = flatten(value, separator) if isinstance(value, Mapping) and value else {}
        flat |= {f"{name}{separator}{path}": part for path, part in inner.items()} if inner else {str(name): value}
    return flat
