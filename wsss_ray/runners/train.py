"""Run training stages on Ray Train: one worker per process, gradients averaged by DDP, our own checkpoints in the store.

Checkpoints do not go through Ray Train. Its report is not durable when it returns, and a run that is submitted again after its
driver died must find checkpoints by stage id alone. A worker that dies is replaced, and all workers continue from the last
committed step.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

import ray.train
import torch
from ray import ActorID, PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from ray.util.placement_group import PlacementGroup, remove_placement_group

from wsss_ray.config.resources import Resources, TrainingShare, training_share, workers_that_fit
from wsss_ray.config.run import Execution
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.plan import Stage
from wsss_ray.engine.loader import automatic_processes
from wsss_ray.engine.records import StageError, make_record
from wsss_ray.engine.training import TrainingError, run_training
from wsss_ray.engine.training_log import LogTail
from wsss_ray.engine.validation import Validation
from wsss_ray.reporting.progress import Display, Meter
from wsss_ray.reporting.words import percent
from wsss_ray.runners.causes import WorkerError, own_log
from wsss_ray.runners.cluster import in_a_thread, name_in_log, resources
from wsss_ray.storage.begun import Begun
from wsss_ray.storage.store import RunStore

_PATIENCE_S = 600.0
_PARALLEL = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""Options of DDP. Buffers (means, fixed batch norms) are equal on all workers already; gradients need no second copy."""


def run_train(
    store: RunStore, stage: Stage, run: Execution, have: Resources, display: Display, *, validation: Validation | None = None
) -> None:
    """Train and commit one stage. Raises StageError with the cause, or Ray's own errors."""
    learner = stage.component
    assert isinstance(learner, Learner)
    record = store.record(stage.input("data"))
    assert record is not None
    try:
        share = training_share(run, have)
    except ValueError as error:
        raise StageError(f"stage {stage.name}: {error}", [stage.id]) from error
    fewest, most = share.workers[0], max(share.workers[0], min(share.workers[1], learner.batch_size))
    makers, decoders = run.label_workers if isinstance(learner, OnlineSegmenter) else 0, run.loader_workers
    config = {
        "store": store,
        "stage": stage,
        "threads": max(1, int(share.cpus) - makers),
        "micro_batch": run.micro_batch,
        "loader_workers": automatic_processes(share.cpus, gpu=share.gpu, others=makers) if decoders is None else decoders,
        "label_workers": run.label_workers,
        "checkpoint_every": run.checkpoint_every,
        "log_every": run.log_every,
        "validation": validation,
    }
    limit = 2 + math.ceil(run.wait_s / 120) + (run.max_failures if fewest < most else 0)  # waits of two minutes for machines
    scratch, attempt = store.path("ray-train", stage.id), f"{stage.id}-{time.time_ns()}"  # Ray Train logs it
    store.delete_folder(scratch)  # left by killed attempts; we hold the claim
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if share.gpu else "gloo", timeout_s=1800),
        scaling_config=ScalingConfig(
            num_workers=most if fewest == most else (fewest, most),
            use_gpu=share.gpu,
            resources_per_worker={"CPU": share.cpus, **({"GPU": 1} if share.gpu else {})},
        ),
        run_config=RunConfig(
            name=attempt,
            storage_path=scratch,
            storage_filesystem=store.fs,
            failure_config=FailureConfig(max_failures=run.max_failures, controller_failure_limit=limit),
        ),
    )
    for line in Begun(store, stage, [source.id for _, source in stage.inputs]).lines:
        display.say(f"{stage.name:<16} {line}")
    total = learner.total_steps(record["counts"]["images"])
    started = time.time()
    many = "1 worker" if most == 1 else f"{most} workers" if fewest == most else f"{fewest} to {most} workers"
    display.announce(f"{stage.name}: starting {many}, building the network, loading the weights")
    try:
        with _StepWatch(store, stage, display.meter(stage.name, total, "steps")):
            result = in_a_thread(trainer.fit, check=_Machines(share, patience=max(_PATIENCE_S, run.wait_s)))
    finally:
        with suppress(OSError):  # a failing store must not hide the cause
            store.delete_folder(scratch)
    outcome = result.return_value or {}
    if "error" in outcome:
        raise StageError(f"stage {stage.name}: {outcome['error']}", logs=outcome["log"])
    metrics: dict[str, Any] = {"final_loss": outcome["final_loss"]}
    counts = {"images": outcome["images"], "steps": outcome["steps"], "errors": 0}
    execution = {
        "workers": outcome["workers"],  # at the end, if workers may join and leave
        "cpus_per_worker": share.cpus,
        "gpu": share.gpu,
        "micro_batch": run.micro_batch,
    }
    store.commit(
        stage,
        make_record(stage, started=started, finished=time.time(), counts=counts, metrics=metrics, execution=execution),
        {one.name: one for one in outcome["files"]},
    )


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one worker. Return errors that all workers share, so that Ray Train does not retry."""
    context = ray.train.get_context()
    name_in_log([config["stage"]])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA need it
    torch.set_num_threads(config["threads"])
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # NaN into all that is then written
    try:
        metrics = run_training(
            config["store"],
            config["stage"],
            device=get_device(),
            rank=context.get_world_rank(),
            world=context.get_world_size(),
            micro_batch=config["micro_batch"],
            loader_workers=config["loader_workers"],
            label_workers=config["label_workers"],
            checkpoint_every=config["checkpoint_every"],
            log_every=config["log_every"],
            validation=config["validation"],
            wrap=partial(prepare_model, parallel_strategy_kwargs=_PARALLEL),
        )
        return metrics | {"workers": context.get_world_size()}
    except (TrainingError, FloatingPointError) as error:
        return {"error": str(error), "log": own_log()}
    except Exception as error:
        raise WorkerError.of(error, f"stage {config['stage'].name}") from error


def free_dead_groups() -> None:
    """Free the placement groups of this job's trainings whose processes were killed from outside.

    Ray frees the placement group of a dead actor only at the end of the job, and Ray Train's own cleaner needs a dashboard.
    """
    mine = ray.get_runtime_context().get_job_id()
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        gone = group.state == PlacementGroupTableData.REMOVED or group.is_detached
        left = group.creator_actor_dead and not ActorID(group.creator_actor_id).is_nil()  # also true of a driver's group
        if left and group.creator_job_id.hex() == mine and not gone:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


class _Machines:
    """End a training whose machines are gone too long. With a range of workers, Ray Train itself would wait for ever."""

    def __init__(self, share: TrainingShare, *, patience: float) -> None:
        self.share, self.patience = share, patience
        self._enough = time.monotonic()

    def __call__(self) -> None:
        """Check the cluster. Raises ValueError if there have been too few machines for longer than `patience` seconds."""
        now = time.monotonic()
        there = workers_that_fit(resources(), self.share.cpus, self.share.gpu)
        if there >= self.share.workers[0]:
            self._enough = now
        elif now - self._enough > self.patience:
            raise ValueError(
                f"only {there} of {self.share.workers[0]} workers have fitted on the cluster for {self.patience:.0f} s. "
                "Add machines and submit again."
            )


class _StepWatch(threading.Thread):
    """A thread that reads metrics.jsonl during a training, for the progress display."""

    def __init__(self, store: RunStore, stage: Stage, meter: Meter) -> None:
        super().__init__(daemon=True)
        self.tail, self.meter = LogTail(store, stage.id), meter
        self.finished = threading.Event()
        self._step, self._miou = -1, ""

    def __enter__(self) -> _StepWatch:
        self.look()  # skip the lines of an earlier attempt, which must not count for the rate
        self.meter.begin()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finished.set()
        self.join()
        self.look()
        self.meter.end()

    def run(self) -> None:
        """Read new lines once a second until the training ends."""
        while not self.finished.wait(1.0):
            self.look()

    def look(self) -> None:
        """Show the lines that are new since the last look."""
        try:
            lines = self.tail.rows()
        except OSError:  # the store may fail for a moment
            return
        for line in lines:
            self._miou = f", mIoU {line['val_miou']:.3f}" if "val_miou" in line else self._miou
            if line["step"] > self._step and "loss" in line:
                note = f"loss {line['loss']:.4f}{self._miou}, waiting {percent(line['wait_share'])}"
                self.meter.to(line["step"], note, loss=line["loss"])
        self._step = lines[-1]["step"] if lines else self._step
