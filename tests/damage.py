"""Damage to files of a store, and what mends it in this process, as a submit does."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.local import run_stage
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.runners.execute import pending
from wsss_ray.storage.begun import Begun
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.wholeness import reopen


def copy_of(store: RunStore, folder: Path) -> RunStore:
    """A copy of a store, to be damaged."""
    shutil.copytree(store.uri, folder)
    return RunStore(str(folder))


def part(store: RunStore, stage: Stage, name: str = "shards/part-00000.parquet") -> Path:
    return Path(store.stage_path(stage), name)


def flipped(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies of some bytes, each with another single bit flipped."""
    for bit in random.Random(seed).sample(range(8 * len(data)), min(count, 8 * len(data))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def torn(data: bytes) -> list[bytes]:
    """The bytes cut at ten places, among them all, one and the last."""
    size = len(data)
    return [data[:end] for end in (0, 1, 4, size // 7, size // 3, size // 2, 2 * size // 3, size - 100, size - 8, size - 1)]


def files_of(store: RunStore) -> dict[str, bytes]:
    """The bytes of all artifacts, by path."""
    found = {}
    for path in Path(store.path("stages")).rglob("*"):
        if path.suffix in (".parquet", ".pt", ".safetensors"):
            found[path.relative_to(store.uri).as_posix()] = path.read_bytes()
    return found


def mend(store: RunStore, plan: Plan) -> tuple[list[str], list[str]]:
    """Make what is not done, as a submit does. Return what was said about damage, and the names of the stages that were made."""
    said, made = list[str](), list[str]()
    while groups := pending(plan, store):
        for stage in groups[0]:
            said += reopen(store, stage, Finished(store).state(stage.id))
            said += Begun(store, stage, [source.id for _, source in stage.inputs]).lines
            run_stage(store, stage)
            made.append(stage.name)
    return said, made
