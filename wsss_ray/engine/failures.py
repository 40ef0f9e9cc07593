"""Record failed stages: `failure.json` in a stage's folder says why it failed, until the stage is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from wsss_ray.core.errors import DamagedFile
from wsss_ray.engine.records import StageError
from wsss_ray.storage.documents import FAILURE
from wsss_ray.storage.store import Identified, RunStore


class Failures:
    """The stages that failed in one attempt. The trials of a sweep share stages, and do not try a failed one again.

    Args:
        store: The store of the stages.
        attempt: The name of the attempt. Failures that another attempt noted do not count.

    Example:
        >>> failures = Failures(store, attempt="pets-1")
        >>> failures.note(StageError("stage seed: the disk is full", [stage.id]))
        >>> failures.of(stage.id)
        'stage seed: the disk is full'
    """

    def __init__(self, store: RunStore, attempt: str) -> None:
        self.store, self.attempt = store, attempt

    def of(self, stage_id: str) -> str | None:
        """Return why a stage failed in this attempt; None if it did not."""
        found = failure_of(self.store, stage_id) or {}
        return found["error"] if found.get("attempt") == self.attempt else None

    def note(self, error: StageError) -> None:
        """Write the reason of an error for each of its stages. A store that cannot be written is ignored."""
        about = {
            "error": error.what.splitlines()[0],
            "logs": error.logs,
            "attempt": self.attempt,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a store that fails must not hide the error
            for stage_id in error.stages:
                self.store.write_json(_path(self.store, stage_id), about)

    def forget(self, stages: Iterable[Identified]) -> None:
        """Delete the failures that earlier attempts noted for stages that are tried now."""
        for stage in stages:
            if failure_of(self.store, stage.id) is not None and self.of(stage.id) is None:
                with suppress(FileNotFoundError):  # another submit was faster
                    self.store.delete(_path(self.store, stage.id))


def failure_of(store: RunStore, stage_id: str) -> dict[str, Any] | None:
    """Read why a stage failed when it was last tried.

    Args:
        store: The store of the stage.
        stage_id: The id of the stage.

    Returns:
        `error` (one line), `logs`, `attempt` and `time` (ISO 8601); None if the stage has no noted failure.

    Example:
        >>> failure_of(store, stage.id)["error"]
        'stage seed: the disk is full'
    """
    try:
        found: dict[str, Any] = store.read_json(_path(store, stage_id), FAILURE)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        found = {"error": str(error), "logs": None, "attempt": None, "time": ""}
    return found


def _path(store: RunStore, stage_id: str) -> str:
    return store.path("stages", stage_id, "failure.json")
