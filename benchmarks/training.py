"""A training stage through Ray Train against the same steps in a plain torch loop, and how long the loader lets it wait.

The plain loop is written as published code is: network, loader, optimiser, loss; no DDP, no checkpoints, no files, nothing
deterministic. It gets the same network, the same loader object and as many threads. Both run in processes of one priority, in
turns, and note the clock and their processor time at each step's loss. Two figures per case: processor time of a whole worker
process per step, the median, which a busy machine changes little; and the clock, the fastest fifth of the steps.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.measure import Row, Timing, in_turns
from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.component import NotIdentity
from wsss_ray.core.contracts import Learner
from wsss_ray.core.plan import Stage
from wsss_ray.core.values import Batch
from wsss_ray.engine.loader import ShardedImages, image_places, micro_batches
from wsss_ray.engine.networks import build_model
from wsss_ray.methods.ficklenet import StochasticClassifier
from wsss_ray.reporting.progress import Display
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore

WARM = 16
SMALL = {"trunk": {"kind": "small_net"}, "augment": {"kind": "random_crop", "size": 64}, "batch_size": 32, "kernel_size": 5}
VGG = {"trunk": {"kind": "vgg16", "weights": "none"}, "augment": {"kind": "random_crop", "size": 161}, "batch_size": 4}


class WatchedClassifier(StochasticClassifier):
    """FickleNet's classifier; every loss adds a line to `notes`: the clock and the processor time of the process, in seconds."""

    notes: Annotated[str, NotIdentity()]

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See `Learner.loss`."""
        with open(self.notes, "a", encoding="utf-8") as file:
            file.write(f"{time.perf_counter()} {time.process_time()}\n")
        return super().loss(net, batch)


def rows(full: bool) -> Iterator[Row]:
    """The demo's classifier, and with `full` a VGG16 too."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's workers are nicer than the plain loop otherwise
    cases: list[tuple[str, dict[str, Any], int, int]] = [("small_net, 32 images of 64 px", SMALL, 240 if full else 80, 64)]
    cases += [("VGG16, 4 images of 161 px", VGG, 48, 200)] if full else []
    for name, classifier, steps, size in cases:
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                job = tiny_job(data={"kind": "shapes", "size": size, "train": 320, "shard_size": 32})
                job["method"]["classifier"] |= classifier | {"steps": steps}
                yield from compared(name, job, Path(folder), threads=threads, rounds=5 if full else 2)
    with tempfile.TemporaryDirectory() as folder:
        yield listed(RunStore(folder), images=4000 if full else 1000)


def compared(name: str, job: dict[str, Any], folder: Path, *, threads: int, rounds: int) -> Iterator[Row]:
    """Seconds per step of both, and the share of them that the stage waits for images."""
    from wsss_ray.runners.cluster import ray_session
    from wsss_ray.runners.train import run_train

    store, notes = RunStore(str(folder / "store")), folder / "notes.txt"
    job["method"]["classifier"] |= {"kind": "watched_classifier", "notes": str(notes)}
    loaded = job_of(job | {"run": {"cpus_per_worker": threads}})
    plan = loaded.plan()
    run_plan(store, plan, last="images-weak")
    stage = stage_named(plan, "classifier")
    ours, bare, waited = Steps(notes), Steps(notes), []
    display = Display(Console(file=io.StringIO()))
    with ray_session() as have, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        for _ in range(rounds):
            alone.submit(plain_loop, store, stage, threads).result()
            bare.read()
            store.delete_folder(store.stage_path(stage))
            run_train(store, stage, loaded.run, have, display)
            ours.read()
            text = store.read(store.stage_path(stage, "metrics.jsonl")).decode()
            waited += [json.loads(line)["wait_share"] for line in text.splitlines() if json.loads(line)["step"] > WARM]
    what = f"{name}, {threads} threads: a step through Ray Train against plain torch"
    for clock, mine, theirs in (("processor time", ours.computing, bare.computing), ("clock", ours.fastest, bare.fastest)):
        yield Row("6", f"{what}, {clock}", str(mine), str(theirs), mine.median / theirs.median, bound=1.05)
    share = statistics.median(waited)
    yield Row("6", f"{name}, {threads} threads: share of a step that waits for images", f"{share:.2%}", "-", share, bound=0.05)


class Steps:
    """What a `WatchedClassifier` has noted of several trainings, from loss to loss, without the first steps of each."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.clock: list[float] = []
        self.processor: list[float] = []

    def read(self) -> None:
        """Take the notes of one training and remove them."""
        lines = [[float(value) for value in line.split()] for line in self.notes.read_text(encoding="utf-8").splitlines()]
        self.notes.unlink()
        for before, after in zip(lines[WARM:], lines[WARM + 1 :], strict=False):
            self.clock.append(after[0] - before[0])
            self.processor.append(after[1] - before[1])

    @property
    def computing(self) -> Timing:
        """Processor time; of the middle half, so that the spread shown is that of a usual step."""
        quarter = len(self.processor) // 4
        return Timing(tuple(sorted(self.processor)[quarter : len(self.processor) - quarter]))

    @property
    def fastest(self) -> Timing:
        """The fastest fifth by the clock."""
        return Timing(tuple(sorted(self.clock)[: max(1, len(self.clock) // 5)]))


def plain_loop(store: RunStore, stage: Stage, threads: int) -> None:
    """Train as published code does."""
    torch.set_num_threads(threads)
    learner = stage.component
    assert isinstance(learner, Learner)
    images = ShardedImages(store, stage, learner.augment, 3)
    size, steps = learner.batch_size, learner.total_steps(len(images))
    loader = micro_batches(images, batch_size=size, start=0, stop=steps, rank=0, world=1, micro=size, workers=0)
    net = build_model(stage).train()
    optimizer = learner.optimizer.build(learner.param_groups(net))
    for step, (batch,) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learner.schedule.factor(step, steps, 1.0)
        loss = torch.stack([term_B.mean() for term_B in learner.loss(net, batch).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            loss.item()  # a plain loop prints it


def listed(store: RunStore, *, images: int) -> Row:
    """How long a training takes to know which images there are and which have masks."""
    job = tiny_job(data={"kind": "shapes", "size": 16, "train": images, "shard_size": 64})
    plan = job_of(job).plan()
    run_plan(store, plan, last="images-weak")
    stage = stage_named(plan, "images-weak")

    def read() -> list[str]:
        found = [read_shard(store, stage, shard, "images", columns=["image_id", "mask"]) for shard in list_shards(store, stage)]
        return [row["image_id"] for rows in found for row in rows if row["mask"] is not None]

    assert list(image_places(store, stage, ["mask"])) == read()
    times = in_turns({"footers": lambda: image_places(store, stage, ["mask"]), "columns": read}, rounds=3)
    ratio = times["footers"].median / times["columns"].median
    what = f"listing {images} images with masks as a training starts, against reading two columns shard by shard"
    return Row("6", what, str(times["footers"]), str(times["columns"]), ratio)
