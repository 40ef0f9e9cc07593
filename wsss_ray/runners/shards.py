"""Per-image stages on Ray Data: rows are shard numbers, operators are the workers of `stages.py`.

Neighbouring stages of the same data form one pipeline: while the network localizes shard k + 1, the CPUs make the seeds of
shard k. Artifacts go to the store and not through the object store, so that memory stays flat however many images there are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from wsss_ray.job import Execution
from wsss_ray.plan import Stage
from wsss_ray.progress import Display
from wsss_ray.records import commit_shards, missing_shards
from wsss_ray.runners.cluster import Resources
from wsss_ray.stages import data_split, needs_model, worker_class
from wsss_ray.store import RunStore


class ShardOperator:
    """A stage's worker as a Ray Data operator: makes its shard and notes in the row how many images and when."""

    def __init__(self, store: RunStore, stage: Stage, device: str) -> None:
        self.stage = stage
        self.worker = worker_class(stage)(store, stage, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the shard that the row names."""
        began = time.time()
        images = self.worker(int(row["shard"]))
        key = self.stage.id
        return row | {f"{key}.images": images, f"{key}.began": began, f"{key}.ended": time.time()}


def run_shards(store: RunStore, stages: Sequence[Stage], run: Execution, have: Resources, display: Display) -> None:
    """Make and commit per-image stages that share their shards, in one pipeline. Raises StageError, or Ray's own errors."""
    todo = sorted({shard for stage in stages for shard in missing_shards(store, stage)})
    split = data_split(stages[0])
    began = {stage.id: time.time() for stage in stages}
    ended = dict(began)
    meters = {
        stage.id: display.meter(stage.name, split.num_images, "images", already=_already(store, stage)) for stage in stages
    }
    if todo:
        dataset = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        gpus = have.gpus if run.gpu is not False else 0
        for stage in stages:
            on_gpu = needs_model(stage) and gpus > 0
            most = gpus if on_gpu else max(1, int(have.cpus))
            pool = min(run.image_workers or most, len(todo), gpus if on_gpu else len(todo))
            dataset = dataset.map(
                ShardOperator,
                fn_constructor_kwargs={"store": store, "stage": stage, "device": "cuda" if on_gpu else "cpu"},
                compute=ActorPoolStrategy(size=pool),
                num_cpus=min(1.0, max(0.05, round(have.cpus / (pool * len(stages)), 2) - 0.01)),
                num_gpus=1 if on_gpu else 0,
            )
        first = dict.fromkeys(began, float("inf"))
        for row in dataset.iter_rows():
            for stage in stages:
                first[stage.id] = min(first[stage.id], row[f"{stage.id}.began"])
                ended[stage.id] = max(ended[stage.id], row[f"{stage.id}.ended"])
                meters[stage.id].add(row[f"{stage.id}.images"])
        began = first
    for place, stage in enumerate(stages):
        commit_shards(
            store,
            stage,
            started=began[stage.id],
            finished=ended[stage.id],
            max_bad_fraction=run.max_bad_fraction,
            readers=stages[place + 1 :],
        )


def _already(store: RunStore, stage: Stage) -> int:
    """Images of shards that an earlier attempt made."""
    return min(len(store.shards(stage)) * data_split(stage).source.shard_size, data_split(stage).num_images)
