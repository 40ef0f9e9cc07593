"""The job that the faults strike: every stage long enough to be struck in the middle, the whole of it half a minute by hand."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.storage.store import RunStore

TRIALS = [{"name": "as it is"}, {"name": "theta 0.6", "set": {"method.seed_rule.theta": 0.6}}]
CHECKPOINT_EVERY = 4


def slow_job() -> dict[str, Any]:
    """The tiny job with more images, steps and iterations: 80 shards and 40, trainings of 60 to 150 steps."""
    job = tiny_job(
        data={"kind": "shapes", "train": 320, "held_out": 160, "size": 96, "shard_size": 4},
        run={"cpus_per_worker": 1, "image_workers": 2, "checkpoint_every": CHECKPOINT_EVERY, "log_every": 2},
    )
    method = job["method"]
    method["classifier"]["steps"] = 100
    method["segmenter"]["steps"] = 60
    method["retrain"]["steps"] = 150
    method["localizer"]["selections"] = 64
    method["metric"]["crf"] = {"iterations": 3}
    return job


@dataclass(frozen=True)
class Undisturbed:
    """The job and the trials of its sweep, made in this process one shard after another."""

    store: RunStore
    plans: tuple[Plan, ...]

    @classmethod
    def made(cls, folder: Path) -> Undisturbed:
        base, high = slow_job(), slow_job()
        high["method"]["seed_rule"]["theta"] = 0.6
        found = cls(RunStore(str(folder)), (job_of(base).plan(), job_of(high).plan()))
        for plan in found.plans:
            run_plan(found.store, plan)
        return found

    def stages(self, names: Iterable[str], *, sweep: bool) -> list[Stage]:
        """The stages of these names, of the job or of all trials of the sweep."""
        found = {stage.id: stage for plan in self._plans(sweep) for stage in (stage_named(plan, name) for name in names)}
        return list(found.values())

    def copy_without(self, missing: Iterable[Stage], target: Path) -> RunStore:
        """A store where only the `missing` stages are still to be made."""
        left_out = {stage.id for stage in missing}
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            Path(self.store.uri) / "stages",
            target / "stages",
            ignore=lambda folder, names: left_out & set(names) if folder.endswith("stages") else set(),
        )
        return RunStore(str(target))

    def differences(self, store: RunStore, *, sweep: bool) -> Iterator[str]:
        """What a store holds other than this one: bytes, tensors, files too many or too few."""
        for stage in {stage.id: stage for plan in self._plans(sweep) for stage in plan}.values():
            ours, theirs = _files(store, stage), _files(self.store, stage)
            for name in sorted(ours | theirs):
                path = f"{stage.name}/{name}"
                if name not in ours:
                    yield f"{path} is missing"
                elif name not in theirs:
                    yield f"{path} should not be there"
                elif name.endswith(".pt"):
                    pair = [torch.load(io.BytesIO(_read(one, stage, name)), weights_only=True) for one in (store, self.store)]
                    if not _equal(*pair):
                        yield f"{path} has other tensors"
                elif name.endswith((".parquet", ".safetensors")) and _read(store, stage, name) != _read(self.store, stage, name):
                    yield f"{path} has other bytes"

    def _plans(self, sweep: bool) -> tuple[Plan, ...]:
        return self.plans if sweep else self.plans[:1]


def write_job(path: Path, *, sweep: bool) -> None:
    """The job file, with its sweep or without."""
    block = {"sweep": {"trials": TRIALS}} if sweep else {}
    path.write_text(yaml.safe_dump(slow_job() | block))


def leftovers(store: RunStore) -> list[str]:
    """Temporary files, and files outside of stages and runs."""
    root = Path(store.uri)
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return [str(path) for path in files if ".tmp-" in path.name or path.parts[0] not in ("stages", "runs")]


def _files(store: RunStore, stage: Stage) -> set[str]:
    folder = Path(store.stage_path(stage))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _read(store: RunStore, stage: Stage, name: str) -> bytes:
    return store.read(store.stage_path(stage, name))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
