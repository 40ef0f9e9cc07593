"""Tell how long the rest of a job takes, from what `check` expected of its stages and from how long the finished ones took.

`check` keeps the expected seconds of each stage in `STORE/checks/<run>.json`, by stage id. A stage that a changed job has in
common with the one that was checked is known, others are not. Of a job with unknown stages nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.documents import CHECK
from wsss_ray.storage.store import Identified, RunStore

if TYPE_CHECKING:
    from wsss_ray.reporting.status import StageStatus

_ENOUGH_S = 10.0  # expected seconds of finished stages from which their pace tells something


@dataclass
class Remaining:
    """The time that is left of a job.

    Attributes:
        expected: Seconds by stage id, as `check` expected them.
        took: Seconds that stages have taken of which it was known how long they should take.
        planned: Seconds that they should have taken.

    Example:
        >>> rest = Remaining({"seed-1": 40.0, "train-2": 100.0})
        >>> rest.ended([seeds], seconds=80.0)
        >>> rest.of([segmenter])
        200.0
    """

    expected: Mapping[str, float]
    took: float = 0.0
    planned: float = 0.0

    def ended(self, stages: Iterable[Identified], *, seconds: float) -> None:
        """Note that stages that ran together are done, after some seconds."""
        planned = self._sum(stages)
        if planned is not None:
            self.took, self.planned = self.took + seconds, self.planned + planned

    def of(self, stages: Iterable[Identified]) -> float | None:
        """Return the seconds of stages that are not done, at the pace of those that are; None if one is not known."""
        planned = self._sum(stages)
        pace = self.took / self.planned if self.planned >= _ENOUGH_S else 1.0
        return None if planned is None else pace * planned

    def _sum(self, stages: Iterable[Identified]) -> float | None:
        found = [self.expected.get(stage.id) for stage in stages]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None


def keep_expected(store: RunStore, run: str, expected: Mapping[str, float]) -> None:
    """Write what `check` expected of the stages of a job, in seconds by stage id. Raises OSError if it cannot be written."""
    stages = {stage_id: round(seconds, 3) for stage_id, seconds in expected.items()}
    store.write_json(expected_path(store, run), {"stages": stages, "made": time.time()})


def expected_of(store: RunStore, run: str) -> dict[str, float]:
    """Read what `check` expected of the stages of a job, in seconds by stage id. Nothing if it was not checked.

    A damaged file counts as none, because the next `check` replaces it and no result depends on it.
    """
    try:
        found: dict[str, float] = store.read_json(expected_path(store, run), CHECK)["stages"]
    except (FileNotFoundError, DamagedFile):
        return {}
    return found


def left_of(stages: Iterable[StageStatus], expected: Mapping[str, float]) -> float | None:
    """Add up the seconds left of a run: measured ones of a running training, expected ones of other stages.

    Args:
        stages: The stages of the run.
        expected: Seconds by stage id; see `expected_of`.

    Returns:
        The seconds; None if a stage is not known.
    """
    left = [stage for stage in stages if stage.state != "done"]
    if not any(stage.kind == "train" for stage in left):  # then nothing is left to read features
        left = [stage for stage in left if stage.kind != "features" or stage.state == "running"]
    total = 0.0
    for stage in left:
        if stage.kind == "train" and stage.left_s is not None:
            total += stage.left_s
        elif stage.id in expected:
            total += expected[stage.id] * (1 - min(stage.made, stage.work) / stage.work if stage.work else 1)
        else:
            return None
    return total


def expected_path(store: RunStore, run: str) -> str:
    """Return the path of what `check` expected.

    Example:
        >>> expected_path(RunStore("/nfs/runs"), "pets")
        '/nfs/runs/checks/pets.json'
    """
    return store.path("checks", f"{run}.json")
