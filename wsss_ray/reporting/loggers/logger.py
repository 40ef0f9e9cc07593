"""The role of a logger, and what it is told. Its fields are its settings in a job file; its library is imported when it opens."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from wsss_ray.core.component import Component
from wsss_ray.storage.store import RunStore

RunState = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class StepFigures:
    """Figures of a stage at a step (of any stage but a training: after so many shards). `time` is in seconds since the epoch."""

    stage: str
    stage_id: str
    step: int
    time: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run as a logger is told of it: its store, its name there, the job with every default, and tags.

    `before` is the id under which this logger has had it so far, if it has.
    """

    store: RunStore
    name: str
    job: Mapping[str, Any]
    tags: Mapping[str, str]
    before: str | None

    def fields(self) -> dict[str, Any]:
        """The job's fields by their dotted paths."""
        return dict(_flat("", self.job))


class Sink(ABC):
    """One run in one logger, on a thread of its own. What it raises ends neither the run nor the logging: it is called again."""

    id: str
    """The run's name there. An id that is not `Run.before` gets all figures from the first on."""

    @abstractmethod
    def write(self, rows: Sequence[StepFigures]) -> None:
        """Take these rows, in order. After an error the same rows come again."""

    @abstractmethod
    def close(self, state: RunState, report: str | None) -> None:
        """All is said; `report` is the text of the run's HTML report, if it has one."""


class Logger(Component):
    """Something that keeps or shows figures. In a job file also by its kind alone: `loggers: [tensorboard, mlflow]`."""

    needs: ClassVar[str | None] = None
    """The module that an extra of the same name as the logger installs."""

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """See `Component.from_text`: the kind."""
        return {"kind": text}

    def check(self) -> None:
        """Raise ValueError with the mend if nothing can be logged from here; asked before anything starts. Asks no server."""
        if self.needs is not None and find_spec(self.needs) is None:
            raise ValueError(f"run.loggers: {self.kind()} is not installed; pip install 'wsss-ray[{self.kind()}]'")

    @abstractmethod
    def open(self, run: Run) -> Sink:
        """Go on with a run, or begin it."""


def plain(name: str, *, also: str = "") -> str:
    """A name with letters, digits, `_`, `-`, `.` and the characters of `also`; others become `_`."""
    return re.sub(rf"[^\w.{re.escape(also)}-]", "_", name, flags=re.ASCII)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(f"{path}.{name}" if path else str(name), part)
    else:
        yield path, value
