"""What any method does on a device: its trainings, maps, predictions, labels and scores, held against those of the CPU.

`tests/contract/test_devices.py` runs this on the stand-in (`tests/stand_in.py`), `tests/contract/test_gpu.py` on CUDA.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from tests.local import job_of, run_plan
from tests.stand_in import Tally, Watch
from tests.tiny import tiny_job_of
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.codecs import decode_gray, decode_maps
from wsss_ray.engine.loader import ShardedImages, micro_batches
from wsss_ray.engine.loop import fit
from wsss_ray.engine.networks import build_model
from wsss_ray.engine.online_labels import LabelMakers, OnlineBatches
from wsss_ray.engine.shard_worker import needs_model
from wsss_ray.engine.training import run_training
from wsss_ray.engine.workers import worker_class
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore

SCHEMAS = {"localize": "maps", "seed": "seeds", "classify": "tag_scores", "evaluate": "scores"}


@dataclass(frozen=True)
class Limit:
    """The most tensors that one step or image may copy from the host, and the most times that it may let the host wait.

    `each` of either is allowed for every image of a batch besides.
    """

    uploads: int
    waits: int
    each: tuple[int, int] = (0, 0)

    def check(self, tally: Tally, what: str, *, images: int = 1) -> None:
        uploads, waits = self.uploads + images * self.each[0], self.waits + images * self.each[1]
        if tally.uploads > uploads or tally.waits > waits:
            raise AssertionError(
                f"{what}: {tally.uploads} tensors made on the host, {tally.waits} waits; at most {uploads} and {waits}.\n{tally}"
            )


STEP = Limit(uploads=2, waits=1)
"""The keys of two layers of dropout go to the device, the losses come back. Nothing depends on the number of images."""

STEPS = {
    "dsrg_segmenter": Limit(uploads=4, waits=6),  # its CRF and its growing run on the host: five tensors there, two back
    "rrm_segmenter": Limit(uploads=1, waits=4, each=(1, 3)),  # evidence of three tensors; a lattice per image
}
LOCALIZE = Limit(uploads=4, waits=2)
"""An image at two scales and its tags; the maximum and the mean of the maps."""

LABEL = Limit(uploads=8, waits=8)
"""An image at two scales; the CRF's image, probabilities and labels; its two lattices."""


TAGS = Limit(uploads=1, waits=1)
"""An image goes to the device, its scores come back."""


def plan_of(name: str) -> Plan:
    """The plan of a method's small version."""
    return job_of(tiny_job_of(name)).plan()


@cache
def made(name: str, folder: str) -> tuple[RunStore, Plan]:
    """Every stage of a method's small version, made on the CPU."""
    store, plan = RunStore(f"{folder}/{name}"), plan_of(name)
    run_plan(store, plan)
    return store, plan


def batches_of(store: RunStore, stage: Stage, *, size: int, steps: int, learner: Learner) -> Any:
    """The first batches of a training, one micro-batch each."""
    images = ShardedImages(store, stage, learner.augment, 3)
    return micro_batches(images, batch_size=size, start=0, stop=steps, rank=0, world=1, micro=size, workers=0)


def train(
    store: RunStore,
    stage: Stage,
    device: torch.device,
    *,
    steps: int,
    size: int = 8,
    learner: Learner | None = None,
    watch: Watch | None = None,
) -> tuple[list[dict[str, float]], list[Tally]]:
    """Train some steps of batches of `size` images. Returns each step's losses, and its crossings if there is a watch."""
    learner = (learner or stage.component).model_copy(update={"batch_size": size})  # type: ignore[union-attr]
    net = build_model(stage).to(device)
    optimizer = learner.optimizer.build(learner.param_groups(net))
    batches = batches_of(store, stage, size=size, steps=steps, learner=learner)
    if isinstance(learner, OnlineSegmenter):
        makers = LabelMakers(learner, None)
        batches = OnlineBatches(net, learner, batches, makers, start=0, device=device, made={})
    terms, tallies = [], []
    if watch is not None:
        watch.take()
    for step in fit(net, learner, optimizer, batches, start=0, total=steps, num_images=24, device=device):
        terms.append(step.terms)
        if watch is not None:
            tallies.append(watch.take())
    return terms, tallies


def check_losses(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]], what: str, *, relative: float) -> float:
    """Raise if two trainings differ by more than this in a term of a step. Returns the largest relative difference."""
    far = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys(), what
        far = max(far, *(abs(mine[term] - other[term]) / max(abs(other[term]), 1e-6) for term in mine))
    assert far <= relative, f"{what}: losses differ by {far:.1e} of their values, at most {relative:.0e}: {ours} and {theirs}"
    return far


def check_trainings(name: str, folder: str, watched: bool, device: str, relative: float) -> None:
    """Train every network of a method on a device: the losses are those of the CPU, and crossings stay below their limits."""
    store, plan = made(name, folder)
    for stage in (stage for stage in plan if stage.kind == "train"):
        kind, what = stage.component.kind(), f"{name}, {stage.name}"  # type: ignore[union-attr]
        theirs, _ = train(store, stage, torch.device("cpu"), steps=3)
        if not watched:
            ours, _ = train(store, stage, torch.device(device), steps=3)
            check_losses(ours, theirs, what, relative=relative)
            continue
        with Watch() as watch:
            ours, tallies = train(store, stage, torch.device(device), steps=3, watch=watch)
            _, of_four = train(store, stage, torch.device(device), steps=2, size=4, watch=watch)
        check_losses(ours, theirs, what, relative=relative)
        for size, tally in ((8, tallies[1]), (4, of_four[1])):  # the first step may fill what later ones keep
            STEPS.get(kind, STEP).check(tally, f"{what}, a step of {size} images", images=size)


def check_rows(name: str, folder: str, watched: bool, device: str, near: float, equal: float) -> None:
    """Make the first shard of every stage that runs a network on a device, and hold it against that of the CPU.

    Maps are within `near`; a share `equal` of the pixels of labels and predictions is the same, and so is the score's.
    """
    store, plan = made(name, folder)
    for stage in (stage for stage in plan if stage.kind in SCHEMAS and needs_model(stage)):
        worker = worker_class(stage)(store, stage, device)
        limit = {"localize": LOCALIZE, "classify": TAGS}.get(stage.kind, LABEL)
        with Watch() if watched else nullcontext() as watch:
            _ = worker.model
            if watch is not None:
                watch.take()
            theirs = read_shard(store, stage, 0, SCHEMAS[stage.kind])
            for (image_id, _, make), other in zip(worker.images(0), theirs, strict=True):
                row, what = {"image_id": image_id} | make(), f"{name}, {stage.name}, {image_id}"
                if watch is not None:
                    limit.check(watch.take(), what)
                check_row(row, other, what, near=near, equal=equal)


def check_row(row: dict[str, Any], other: dict[str, Any], what: str, *, near: float, equal: float) -> None:
    """Hold a row of maps, seeds, scores of tags or scores against another."""
    assert row.keys() == other.keys(), what
    if "peak" in row:
        ours, theirs = decode_maps(row), decode_maps(other)
        assert ours.classes == theirs.classes, what
        np.testing.assert_allclose(ours.peak_CHW, theirs.peak_CHW, atol=near, err_msg=what)
        np.testing.assert_allclose(ours.mean_CHW, theirs.mean_CHW, atol=near, err_msg=what)
        return
    if "scores" in row:
        assert row["tags"] == other["tags"], what
        np.testing.assert_allclose(row["scores"], other["scores"], atol=near, err_msg=what)
        return
    picture = "seed" if "seed" in row else "prediction"
    same = float(np.mean(decode_gray(row[picture]) == decode_gray(other[picture])))
    assert same >= equal, f"{what}: {same:.2%} of the labels are those of the CPU, at least {equal:.2%}"
    if "cells" in row:
        ours, theirs = (dict(zip(one["cells"], one["counts"], strict=True)) for one in (row, other))
        moved = sum(abs(ours.get(cell, 0) - theirs.get(cell, 0)) for cell in {*ours, *theirs})
        assert moved <= 2 * (1 - equal) * sum(theirs.values()), f"{what}: {moved} pixels are scored otherwise"


def check_losses_fall(name: str, folder: str, watched: bool, device: str, steps: int) -> None:
    """Train every network of a method on one batch again and again: the sum of its losses falls."""
    store, plan = made(name, folder)
    for stage in (stage for stage in plan if stage.kind == "train"):
        learner = stage.component
        assert isinstance(learner, Learner)
        (micros,) = batches_of(store, stage, size=8, steps=1, learner=learner)
        if isinstance(learner, OnlineSegmenter):  # labels that do not change
            seeds = torch.randint(0, 4, (8, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
            micros = [replace(micros[0], seeds_BEHW=seeds)]
        batches = itertools.repeat(micros)
        steady = learner.model_copy(update={"batch_size": 8})
        with Watch() if watched else nullcontext():
            net = build_model(stage).to(device)
            optimizer = learner.optimizer.build(learner.param_groups(net))
            found = fit(net, steady, optimizer, batches, start=0, total=steps, num_images=24, device=torch.device(device))
            curve = [step.loss for step in found]
        assert np.mean(curve[-3:]) < np.mean(curve[:3]), f"{name}, {stage.name}, on {device}: {curve}"


def check_equal_bytes(name: str, folder: str, device: str) -> None:
    """Train every network of a method twice on a device, as workers do: weights and losses have the same bytes."""
    store, plan = made(name, folder)
    for stage in (stage for stage in plan if stage.kind == "train"):
        results = []
        for attempt in ("first", "second"):
            copy = RunStore(f"{folder}/{name}-{stage.id}-{attempt}")
            shutil.copytree(store.path(), copy.path())
            copy.delete_folder(copy.stage_path(stage))
            settings = {"micro_batch": 4, "loader_workers": 0, "label_workers": 0, "checkpoint_every": 4, "log_every": 1}
            run_training(copy, stage, device=torch.device(device), rank=0, world=1, **settings)  # type: ignore[arg-type]
            lines = copy.read(copy.stage_path(stage, "metrics.jsonl")).splitlines()
            weights = copy.read(copy.stage_path(stage, "model.safetensors"))
            results.append((weights, [json.loads(line)["terms"] for line in lines]))
            shutil.rmtree(copy.path())
        assert results[0] == results[1], f"{name}, {stage.name}: two trainings on {device} differ"


@contextmanager
def deterministic() -> Iterator[None]:
    """Choose the operations that repeat bit by bit, as the workers of a training do (`runners/train.py`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
