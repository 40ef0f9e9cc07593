"""Run per-image stages on Ray Data: rows are shard numbers, operators are the workers of `engine/workers.py`.

Neighbouring stages of the same data form one pipeline of at most two operators: first the stages that run a network, on GPUs,
then all others, on CPUs. While the GPUs localize shard k + 1, the CPUs compute the seeds of shard k. Without GPUs, one operator
runs all stages of a shard, so that every core has one worker whatever each stage costs. Artifacts go to the run store and not
through Ray's object store, so memory does not grow with the number of images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from wsss_ray.config.resources import Resources, equal_share
from wsss_ray.config.run import Execution
from wsss_ray.core.plan import Stage
from wsss_ray.engine.listing import StoredListing
from wsss_ray.engine.records import commit_shards, missing_shards
from wsss_ray.engine.shard_worker import data_split, needs_model
from wsss_ray.engine.workers import worker_class
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.causes import WorkerError
from wsss_ray.runners.cluster import name_in_log
from wsss_ray.storage.begun import Begun
from wsss_ray.storage.finished import FileDigest
from wsss_ray.storage.shards import present_shards
from wsss_ray.storage.store import RunStore

_NAMED = 6  # stages in the name of a log, at most: names of files have limits


class ShardOperator:
    """The workers of several stages as a Ray Data operator. It writes shards, and adds image counts and times to the row.

    Args:
        store: The store of the stages.
        stages: The stages.
        device: The device of their networks.
        batch: Images in a batch of a network; see `ShardWorker`.
        gpu_share: The share of a GPU that the operator may use.
    """

    def __init__(
        self, store: RunStore, stages: Sequence[Stage], device: str, batch: int | None = None, gpu_share: float = 1.0
    ) -> None:
        name_in_log(stages)
        self.workers = [worker_class(stage)(store, stage, device, batch=batch, gpu_share=gpu_share) for stage in stages]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write the row's shard for each stage."""
        for worker in self.workers:
            began, key = time.time(), worker.stage.id
            try:
                images = worker(int(row["shard"]))
            except Exception as error:
                image = f", image {worker.image}" if worker.image is not None else ""
                raise WorkerError.of(error, f"stage {worker.stage.name}, shard {row['shard']}{image}") from error
            files = json.dumps([asdict(one) for one in worker.written])  # a column of text, whatever the number of files
            row |= {f"{key}.images": images, f"{key}.files": files, f"{key}.began": began, f"{key}.ended": time.time()}
        return row


def run_shards(store: RunStore, stages: Sequence[Stage], run: Execution, have: Resources, display: Display) -> None:
    """Run and commit stages of the same shards in one pipeline. Raises StageError, or Ray's own errors."""
    begun: dict[str, Begun] = {}
    for stage in stages:
        sources = [source.id for _, source in stage.inputs]
        begun[stage.id] = Begun(store, stage, sources, anew=any(one in begun and begun[one].anew for one in sources))
        for line in begun[stage.id].lines:
            display.say(f"{stage.name:<16} {line}")
    todo = sorted({shard for stage in stages for shard in missing_shards(store, stage)})
    split = data_split(stages[0])
    began = {stage.id: time.time() for stage in stages}
    ended = dict(began)
    made: dict[str, dict[int, int]] = {stage.id: {} for stage in stages}
    chain = ", ".join(
        stage.name for stage in stages
    )  # a row has passed all of them, so that one meter is all that there is to say
    meter = display.meter(chain, split.num_images, "images", already=min(_already(store, stage) for stage in stages))
    if todo:
        if stages[0].kind == "ingest":
            StoredListing(store, stages[0]).write()
        scaling = ray.data.DataContext.get_current().autoscaling_config
        scaling.actor_pool_util_upscaling_threshold = min(1.75, float(run.in_flight))  # else pools with one shard each never grow
        dataset = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        operators = operators_of(stages, on_gpus=have.gpus > 0 and run.gpu is not False)
        for part in operators:
            workers = _pool(part, run, have, shards=len(todo))[1]
            names = ", ".join(stage.name for stage in part.stages)
            display.announce(f"{names}: starting {workers} {'worker' if workers == 1 else 'workers'}")
            dataset = _with_operator(dataset, store, part, run, have, shards=len(todo), operators=len(operators))
        dataset.set_name("+".join([stage.id for stage in stages][:_NAMED]))  # which names the file of its log
        first = dict.fromkeys(began, float("inf"))
        for row in dataset.iter_rows():
            for stage in stages:
                first[stage.id] = min(first[stage.id], row[f"{stage.id}.began"])
                ended[stage.id] = max(ended[stage.id], row[f"{stage.id}.ended"])
                made[stage.id][row["shard"]] = row[f"{stage.id}.images"]
                begun[stage.id].add([FileDigest(**one) for one in json.loads(row[f"{stage.id}.files"])])
            meter.add(max(row[f"{stage.id}.images"] for stage in stages))
        began = first
    for place, stage in enumerate(stages):
        commit_shards(
            store,
            stage,
            started=began[stage.id],
            finished=ended[stage.id],
            max_bad_fraction=run.max_bad_fraction,
            readers=stages[place + 1 :],
            made=made[stage.id],
            known=begun[stage.id].known,
        )
    meter.end()


@dataclass(frozen=True)
class Operator:
    """Stages of a pipeline that the same actors run."""

    stages: tuple[Stage, ...]
    on_gpu: bool


def operators_of(stages: Sequence[Stage], *, on_gpus: bool) -> list[Operator]:
    """Split a pipeline into operators. Stages that run a network come first, and read none of the others."""
    network = tuple(stage for stage in stages if on_gpus and needs_model(stage))
    rest = tuple(stage for stage in stages if stage not in network)
    return [Operator(part, on_gpu) for part, on_gpu in ((network, True), (rest, False)) if part]


def _with_operator(
    dataset: ray.data.Dataset,
    store: RunStore,
    part: Operator,
    run: Execution,
    have: Resources,
    *,
    shards: int,
    operators: int,
) -> ray.data.Dataset:
    """Append the actors of an operator to the pipeline.

    On a cluster that grows, the pool grows too, up to one actor per shard; the pool of a trial stays within its share. On CPUs,
    each operator of a pipeline may have one actor per CPU, which claims a part of a CPU, because actors that wait for shards need
    none.
    """
    each = run.gpus_per_image_worker if part.on_gpu else 1.0
    fewest, first, most = _pool(part, run, have, shards=shards)
    return dataset.map(
        ShardOperator,
        fn_constructor_kwargs={
            "store": store,
            "stages": part.stages,
            "device": "cuda" if part.on_gpu else "cpu",
            "batch": run.image_batch if part.on_gpu else 1,
            "gpu_share": each if part.on_gpu else 1.0,
        },
        compute=ActorPoolStrategy(
            min_size=fewest,
            max_size=most,
            initial_size=first,
            max_tasks_in_flight_per_actor=run.in_flight,
        ),
        num_cpus=equal_share(have.cpus, _fitting(part, run, have) * operators),
        num_gpus=each if part.on_gpu else 0,
    )


def _fitting(part: Operator, run: Execution, have: Resources) -> int:
    """Return how many actors of an operator fit at a time."""
    return max(1, int(have.gpus / run.gpus_per_image_worker if part.on_gpu else have.cpus))


def _pool(part: Operator, run: Execution, have: Resources, *, shards: int) -> tuple[int, int, int]:
    """Return the fewest actors of an operator, those that it starts with, and the most."""
    fit = _fitting(part, run, have)
    fewest, most = run.image_worker_range or (1, shards if have.grows and have.at_once == 1 else fit)
    most = min(most, shards)
    fewest = min(fewest, most)
    return fewest, max(fewest, min(fit, most)), most


def _already(store: RunStore, stage: Stage) -> int:
    """Count the images of shards that an earlier attempt has written."""
    return min(len(present_shards(store, stage)) * data_split(stage).source.shard_size, data_split(stage).num_images)
