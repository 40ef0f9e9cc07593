"""How far the runs of a store are, from what lies in it: nothing else needs to be reachable, and no process is asked."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from wsss_ray.claims import is_dead
from wsss_ray.store import RunStore


@dataclass(frozen=True)
class RunStatus:
    """One run. `now` is the first stage that is not done, `made` and `work` how far it is in shards or steps."""

    name: str
    done: int
    total: int
    now: str | None = None
    made: int = 0
    work: int = 0
    unit: str = ""
    holder: str | None = None  # the attempt that is making it
    silent_s: float | None = None  # since its last sign of life
    dead: bool = False  # its process is known to be no more

    @property
    def state(self) -> str:
        """In words: done, running, or interrupted."""
        if self.now is None:
            return "done"
        return "interrupted" if self.holder is None or self.dead else "running"


def run_status(store: RunStore, name: str) -> RunStatus | None:
    """The status of a run; None if it was submitted this moment, or killed in it."""
    path = store.run_path(name, "run.json")
    if not store.exists(path):
        return None
    stages: list[dict[str, Any]] = store.read_json(path)["stages"]
    missing = [stage for stage in stages if not store.exists(store.path("stages", stage["id"], "record.json"))]
    done = len(stages) - len(missing)
    if not missing:
        return RunStatus(name, done, len(stages))
    now, claim = missing[0], None
    for stage in missing:
        claim = _claim(store, stage["id"])
        if claim is not None:
            now = stage
            break
    made, unit = _made(store, now)
    holder, silent = claim if claim is not None else (None, None)
    return RunStatus(
        name=name,
        done=done,
        total=len(stages),
        now=now["name"],
        made=made,
        work=now.get("work", 0),
        unit=unit,
        holder=holder["attempt"] if holder else None,
        silent_s=silent,
        dead=holder is not None and is_dead(holder),
    )


def sweep_status(store: RunStore, name: str) -> tuple[int, int] | None:
    """Trials of a sweep that have ended, and those there are as far as is known; None if it is no sweep."""
    path = store.run_path(name, "sweep.json")
    if not store.exists(path):
        return None
    ended = len(store.names(store.run_path(name, "trials")))
    return ended, max(ended, store.read_json(path)["total"])


def _made(store: RunStore, stage: dict[str, Any]) -> tuple[int, str]:
    """Steps of a training by its log, shards of any other stage."""
    if stage["kind"] != "train":
        names = store.names(store.path("stages", stage["id"], "shards"))
        return sum(name.startswith("part-") for name in names), "shards"
    lines = _lines(store, stage)
    return (json.loads(lines[-1])["step"] if lines else 0), "steps"


def quality(store: RunStore, stage: dict[str, Any]) -> list[str]:
    """A line on the mIoU of a training on validation images, the last and the best; none where it was not measured."""
    scored = [(row["val_miou"], row["step"]) for row in map(json.loads, _lines(store, stage)) if "val_miou" in row]
    if not scored:
        return []
    (last, at), (best, where) = scored[-1], max(scored)
    return [f"{stage['name']}: mIoU on validation images {last:.3f} after step {at}, best {best:.3f} after step {where}"]


def _lines(store: RunStore, stage: dict[str, Any]) -> list[bytes]:
    """The log of a training so far."""
    path = store.path("stages", stage["id"], "metrics.jsonl")
    return store.read(path).splitlines() if store.exists(path) else []


def _claim(store: RunStore, stage_id: str) -> tuple[dict[str, Any], float] | None:
    """Who makes a stage, and the seconds since the last beat by the clocks of the file system and of this machine."""
    path = store.path("claims", f"{stage_id}.json")
    info = store.fs.get_file_info(path)
    if not info.is_file:
        return None
    try:
        return store.read_json(path), max(0.0, time.time() - info.mtime.timestamp())
    except FileNotFoundError:
        return None
