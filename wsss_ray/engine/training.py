"""Run one training stage on one worker: network, batches, checkpoints, metrics. No Ray: the runner places the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import torch
from torch import nn

from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.plan import Stage
from wsss_ray.core.values import Batch
from wsss_ray.data.source import DataSplit
from wsss_ray.engine.checkpoints import latest_step, load_checkpoint, take_checkpoint
from wsss_ray.engine.loader import ShardedImages, micro_batches
from wsss_ray.engine.loop import fit, is_distributed
from wsss_ray.engine.networks import build_model, freeze_trunk, save_model, start_from, use_bfloat16
from wsss_ray.engine.online_labels import Labels, OnlineBatches, gather, label_makers
from wsss_ray.engine.training_log import MetricsLog, steps_between_lines
from wsss_ray.engine.validation import Validation, Validator
from wsss_ray.storage.finished import FileDigest
from wsss_ray.storage.store import RunStore


class TrainingError(ValueError):
    """Raised on all workers alike if a training cannot be done. Trying again does not help."""


def run_training(
    store: RunStore,
    stage: Stage,
    *,
    device: torch.device,
    rank: int,
    world: int,
    micro_batch: int,
    loader_workers: int,
    label_workers: int,
    checkpoint_every: int,
    log_every: int | None,
    validation: Validation | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda net: net,
) -> dict[str, Any]:
    """Train a stage from its last checkpoint to its end.

    Rank 0 writes checkpoints and metrics.jsonl in a thread while the training goes on, and at the end the weights.

    Args:
        store: The store of the stage.
        stage: The train stage.
        device: Where this worker trains.
        rank: Number of this worker, from 0.
        world: Number of workers.
        micro_batch: Most images in one forward and backward pass.
        loader_workers: Processes that decode images; 0 uses as many threads as torch.
        label_workers: Processes that make online labels; 0 makes them in this process.
        checkpoint_every: Steps between two checkpoints.
        log_every: Steps between two lines of metrics.jsonl; None chooses them by the length of the training.
        validation: Scores a segmenter during the training; None for no scores.
        wrap: Makes the network distributed.

    Returns:
        The metrics of the stage on rank 0, an empty dictionary on other ranks. `sample_s` is the processor time of one sample, if
        threads make them; `files` has the digests of the checkpoints and weights that were written.

    Raises:
        TrainingError: if the training cannot start, on all workers alike.
        FloatingPointError: if a loss is not finite, on all workers alike.
    """
    learner = stage.component
    assert isinstance(learner, Learner)
    ready, problem = None, None
    try:
        ready = _prepare(store, stage, device, world)
        first = _first_step(store, stage) if rank == 0 else 0
    except (ValueError, FileNotFoundError, DamagedFile) as error:
        problem, first = str(error), 0
    start = _agree_on_start(problem, first)
    assert ready is not None
    images, net, optimizer = ready
    total = learner.total_steps(len(images))
    made: Labels = {}
    if start:
        saved = load_checkpoint(store, _stage_with_checkpoint(store, stage, start), start, str(device))
        net.load_state_dict(saved.net)
        optimizer.load_state_dict(saved.optimizer)
        made = {step: label_BHW[rank::world] for step, label_BHW in saved.labels.items()}
    written: dict[str, FileDigest] = {}
    log = MetricsLog(store, stage, start, every=log_every or steps_between_lines(total)) if rank == 0 else None
    validator = Validator(validation, store, stage, rank=rank, world=world) if validation is not None else None
    loaded = micro_batches(
        images,
        batch_size=learner.batch_size,
        start=start,
        stop=total,
        rank=rank,
        world=world,
        micro=micro_batch,
        workers=loader_workers,
        threads=torch.get_num_threads(),
        pin=device.type == "cuda",
    )
    wrapped = wrap(net)
    with ExitStack() as stack:
        writer, online = stack.enter_context(BackgroundWriter()), None
        # Closed by the stack: if the garbage collector closed the batches, an interrupt would be lost.
        batches: Iterator[list[Batch]] = stack.enter_context(closing(loaded))
        if isinstance(learner, OnlineSegmenter):
            makers = stack.enter_context(label_makers(learner, label_workers))
            batches = online = OnlineBatches(net, learner, batches, makers, start=start, device=device, made=made)
        for step in fit(wrapped, learner, optimizer, batches, start=start, total=total, num_images=len(images), device=device):
            keep = step.step % checkpoint_every == 0 or step.step == total
            labels = gather(online.pending()) if online is not None and keep else {}
            miou = validator.miou(net, device, step=step.step, total=total) if validator is not None else None
            if log is None:
                continue
            log.add(step, learner.batch_size, flush=keep, miou=miou)
            if keep:
                checkpoint = take_checkpoint(store, stage, net, optimizer, step.step, labels=labels, written=written)
                writer.begin(log.take(), checkpoint)
            elif log.due() and not writer.busy():
                writer.begin(log.take())
    if log is not None:
        files = [*written.values(), save_model(store, stage, net)]  # the log is small, and read when the stage is committed
        each = images.seconds / max(1, images.made)
        return {"final_loss": log.loss, "steps": total, "images": len(images), "sample_s": each, "files": files}
    return {}


def _first_step(store: RunStore, stage: Stage) -> int:
    """Return the step of the stage's last checkpoint, else of the last one of the stage that it resumes, else 0."""
    before, own = stage.optional("resume"), latest_step(store, stage)
    if before is None or own:
        return own
    first = latest_step(store, before)
    if not first:
        raise ValueError(f"{store.stage_path(before)}: has no checkpoint to go on from. Delete this folder to train it again.")
    return first


def _stage_with_checkpoint(store: RunStore, stage: Stage, start: int) -> Stage:
    """Return the stage that has the checkpoint of step `start`. A stage's own ones are later than all of the stage it resumes."""
    before = stage.optional("resume")
    return before if before is not None and latest_step(store, before) >= start else stage


def _prepare(
    store: RunStore, stage: Stage, device: torch.device, world: int
) -> tuple[ShardedImages, nn.Module, torch.optim.Optimizer]:
    """Make images, network and optimiser for the start. Raises ValueError or FileNotFoundError on what a user can correct."""
    learner, split = stage.component, stage.input("data").component
    assert isinstance(learner, Learner)
    assert isinstance(split, DataSplit)
    images = ShardedImages(store, stage, learner.augment, len(split.classes))
    if learner.batch_size < world:
        raise ValueError(f"batch_size is {learner.batch_size}, less than the {world} workers; set run.workers lower")
    if not len(images):
        raise ValueError("there is no image to train on; give readable images, with masks if the method needs them")
    net = build_model(stage)
    init = stage.optional("init")
    if init is not None:
        start_from(net, store, init)
    net.to(device)
    frozen = freeze_trunk(net, learner, threads=torch.get_num_threads())
    if learner.precision == "bfloat16":
        use_bfloat16(net, device)
    if frozen is not None:
        images.salt = frozen.salt
    return images, net, learner.optimizer.build(learner.param_groups(net))


def _agree_on_start(problem: str | None, start: int) -> int:
    """Return rank 0's first step to all workers. If one worker has a problem, raise TrainingError on all of them.

    Otherwise a worker whose file is missing would leave the others waiting for its gradients.
    """
    found: list[tuple[str | None, int] | None] = [(problem, start)]
    if is_distributed():
        found *= torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, (problem, start))
    problems = [one[0] for one in found if one is not None and one[0] is not None]
    if problems:
        raise TrainingError(problems[0])
    assert found[0] is not None
    return found[0][1]


class BackgroundWriter:
    """Write to the store in a thread, in order, while the training goes on.

    The error of a write is raised when the next writes begin, or at the end of the block: at most one checkpoint later.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._last: Future[None] | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self._wait()

    def busy(self) -> bool:
        """Return True if a write is still running."""
        return self._last is not None and not self._last.done()

    def begin(self, *writes: Callable[[], None]) -> None:
        """Wait for earlier writes and raise their error; then start these, one after another."""
        self._wait()

        def work() -> None:
            for write in writes:
                write()

        self._last = self._pool.submit(work)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
