"""Try a job on a few of its images: in this process, without Ray, with the run's own code and a temporary store.

The model that two training steps give is useless. But the trial finds what would end the long run: missing weights, too little
memory, unreadable images, a loss that is not finite. It also times every image and every step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.error import URLError

import pyarrow.parquet as pq
import torch

from wsss_ray.config.job import JobConfig
from wsss_ray.core.contracts import Learner
from wsss_ray.core.counted import counted
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.data.stages import stages_of
from wsss_ray.engine.checkpoints import latest_path
from wsss_ray.engine.notes import WithoutMask, without_mask
from wsss_ray.engine.records import StageError, commit_shards, make_record, missing_shards
from wsss_ray.engine.shard_worker import data_split, needs_model
from wsss_ray.engine.training import run_training
from wsss_ray.engine.training_log import read_log
from wsss_ray.engine.workers import worker_class
from wsss_ray.preflight.lower import what_to_lower
from wsss_ray.preflight.memory import Peak, at_most, ran_out
from wsss_ray.preflight.sample import TIMED, FewImages, short_plan
from wsss_ray.storage.finished import WEIGHTS
from wsss_ray.storage.shards import count_rows, list_shards, read_shard, shard_path
from wsss_ray.storage.store import RunStore

_SHARD = 2  # images: the first shard includes compilation and loading the network, so that only the others are timed
_LEAST_WORK = 0.2  # share of a shard's time that is work, even if a busy disk makes the commit look longer than that
_ROW_GROUP = 200  # bytes of a row group in a Parquet footer, roughly


class CheckError(ValueError):
    """A problem that would end the run: one line that names the stage, and the field to change if there is one."""


@dataclass(frozen=True)
class Failed:
    """An image that a stage failed on: its path or id, and the reason."""

    stage: str
    what: str
    reason: str


@dataclass(frozen=True)
class Measure:
    """Times and sizes of one stage, measured on the sample.

    Attributes:
        stage: The stage of the shortened plan.
        seconds: Seconds per image, or per training step.
        waiting: The part of `seconds` in which a step waits for images or labels.
        loading: Processor seconds in which all images of a step are decoded and cut.
        start: Seconds outside the images or steps, such as those to load the network.
        resident: Peak of main memory in bytes.
        on_gpu: Peak of GPU memory in bytes.
        num_bytes: Bytes of one image's artifacts, or of one checkpoint.
        kept: Bytes of the trained model.
        failed: The images that the stage failed on.
        bare: The images that are packed without a mask, because theirs cannot be used.
    """

    stage: Stage
    seconds: float
    waiting: float
    loading: float
    start: float
    resident: int
    on_gpu: int
    num_bytes: float
    kept: float = 0.0
    failed: tuple[Failed, ...] = ()
    bare: WithoutMask = field(default_factory=WithoutMask)


def try_job(
    job: JobConfig,
    plan: Plan,
    *,
    images: int,
    workers: int,
    threads: int,
    gpu: bool,
    memory: float | None,
    until: Callable[[Plan], Plan] = lambda plan: plan,
    begin: Callable[[Stage], None] = lambda stage: None,
) -> list[Measure]:
    """Run every stage of a job on a few images of each split, in the order of the plan.

    Args:
        job: The job, with absolute paths to its data.
        plan: The whole plan of the job. It gives the lengths of the trainings.
        images: The number of images to take from each split.
        workers: The number of workers that share a training's batch. The trial runs the share of one worker.
        threads: The number of threads of one training worker.
        gpu: True runs networks on this machine's GPU.
        memory: Bytes that the process may allocate in addition to those it has now. None sets no limit.
        until: Cuts the trial's plan at the stage where `plan` was cut.
        begin: Called with each stage before it runs.

    Returns:
        One measure per stage, in the order of the plan.

    Raises:
        CheckError: at the first problem that would end the run.
    """
    counts = {stage.component.split: stage.component.num_images for stage in plan if isinstance(stage.component, DataSplit)}
    source = FewImages.of(job.data, most=images, shard_size=_SHARD, counts=counts)
    planned = {stage.name: stage for stage in plan}
    sizes = {name: data_split(stage).num_images for name, stage in planned.items() if stage.kind == "train"}
    short = short_plan(until(job.plan(stages_of(source))), num_images=sizes, workers=workers)
    found = []
    with tempfile.TemporaryDirectory(prefix="wsss-ray-check-") as folder, _as_before(), at_most(memory):
        store = RunStore(folder)
        for stage in short:
            begin(stage)
            try:
                if stage.kind == "train":
                    found.append(_try_training(store, stage, job.run.micro_batch, threads, gpu=gpu))
                else:
                    found.append(_try_shards(store, stage, job.run.image_batch, gpu=gpu and needs_model(stage)))
            except (KeyboardInterrupt, CheckError):
                raise
            except Exception as error:
                raise CheckError(f"stage {stage.name}: {_cause(job, stage, planned[stage.name], error)}") from error
            short_of_memory = next((one for one in found[-1].failed if ran_out(one.reason)), None)
            if short_of_memory is not None:
                raise CheckError(f"stage {stage.name}: {_out_of_memory(job, stage, planned[stage.name])}")
            store.delete_folder(store.stage_path(stage, "checkpoints"))  # gigabytes, for a large network and Adam
    return found


@contextmanager
def _as_before() -> Iterator[None]:
    """Restore torch's number of threads and its random state at the end."""
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _try_shards(store: RunStore, stage: Stage, batch: int | None, *, gpu: bool) -> Measure:
    peak, began = Peak(gpu=gpu), time.time()
    torch.set_num_threads(1)  # as in an actor, of which there is one for each core
    worker = worker_class(stage)(store, stage, "cuda" if gpu else "cpu", batch=batch if gpu else 1)
    commit = _commit_seconds(store)
    times: list[tuple[float, int]] = []
    for shard in missing_shards(store, stage):
        start = time.perf_counter()
        images = worker(shard)
        failed = _errors(store, stage, [shard]) if stage.kind == "ingest" else []  # other stages write rows of nulls
        took = time.perf_counter() - start
        times.append((max(took - commit, _LEAST_WORK * took), images + len(failed)))
    try:
        commit_shards(store, stage, started=began, finished=time.time(), max_bad_fraction=1.0)
    except StageError as error:
        raise CheckError(error.what) from error
    errors = _errors(store, stage, list_shards(store, stage, "errors"))
    if stage.kind == "ingest" and sum(count_rows(store, stage, shard) for shard in list_shards(store, stage)) == 0:
        raise CheckError(
            f"stage {stage.name}: none of {counted(len(errors), 'image')} can be used; {errors[0].what}: {errors[0].reason}"
        )
    timed = times[1:] or times
    each = sum(seconds for seconds, _ in timed) / max(1, sum(images for _, images in timed))
    start = max(0.0, times[0][0] - each * times[0][1])
    size = _artifact_bytes(store, stage)
    sizes = (peak.resident(), peak.on_gpu(), size)
    return Measure(stage, each, 0.0, 0.0, start, *sizes, failed=tuple(errors), bare=without_mask(store, stage))


def _commit_seconds(store: RunStore) -> float:
    """Time one commit of a file. In the whole job, many images share the cost of one commit."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        store.write(store.path("written"), b"x")
        times.append(time.perf_counter() - start)
    return min(times)


def _errors(store: RunStore, stage: Stage, shards: Sequence[int]) -> list[Failed]:
    there = set(list_shards(store, stage, "errors"))
    rows = [row for shard in shards if shard in there for row in read_shard(store, stage, shard, "errors", folder="errors")]
    return [Failed(stage.name, row["path"] or row["image_id"], row["reason"]) for row in rows]


def _artifact_bytes(store: RunStore, stage: Stage) -> float:
    """Return the bytes that the artifact of one image takes in a large shard."""
    size = rows = 0
    for shard in list_shards(store, stage):
        metadata = pq.read_metadata(shard_path(store, stage, shard))
        groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
        size += sum(_ROW_GROUP + sum(group.column(k).total_compressed_size for k in range(group.num_columns)) for group in groups)
        rows += metadata.num_rows
    return size / max(1, rows)


def _try_training(store: RunStore, stage: Stage, micro_batch: int, threads: int, *, gpu: bool) -> Measure:
    learner = stage.component
    assert isinstance(learner, Learner)
    torch.set_num_threads(threads)
    peak, began, start = Peak(gpu=gpu), time.time(), time.perf_counter()
    outcome = run_training(
        store,
        stage,
        device=torch.device("cuda" if gpu else "cpu"),
        rank=0,
        world=1,
        micro_batch=micro_batch,
        loader_workers=0,
        label_workers=0,
        checkpoint_every=1 << 30,  # only at the last step
        log_every=1,
    )
    took = time.perf_counter() - start
    counts = {"images": outcome["images"], "steps": outcome["steps"], "errors": 0}
    store.commit(stage, make_record(stage, started=began, finished=time.time(), counts=counts, metrics={}))
    lines = read_log(store, stage.id)
    line = lines[TIMED - 1]
    seconds = learner.batch_size / line["images_per_s"] if line["images_per_s"] else took / len(lines)
    steps = sum(learner.batch_size / one["images_per_s"] for one in lines if one["images_per_s"])
    last = latest_path(store, stage)
    assert last is not None
    there = store.sizes(store.stage_path(stage))
    sizes = [there[last.removeprefix(f"{store.stage_path(stage)}/")], there[WEIGHTS]]
    return Measure(
        stage,
        seconds,
        seconds * line["wait_share"],
        learner.batch_size * outcome["sample_s"],
        max(0.0, took - steps),
        peak.resident(),
        peak.on_gpu(),
        float(sizes[0]),
        float(sizes[1]),
    )


def _cause(job: JobConfig, stage: Stage, planned: Stage, error: Exception) -> str:
    """Describe an error in one line."""
    if ran_out(error):
        return _out_of_memory(job, stage, planned)
    if isinstance(error, URLError):
        mend = "set `weights` of its trunk to a file, or run it once with network access"
        return f"its weights cannot be downloaded ({error.reason}); {mend}"
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | OSError | FloatingPointError) else f"{type(error).__name__}: {text}"


def _out_of_memory(job: JobConfig, stage: Stage, planned: Stage) -> str:
    """Say that memory ran out, and name the fields to lower. `planned` is the stage before it was shortened."""
    part = stage.component
    if not isinstance(part, Learner):
        return f"memory runs out with one image; lower {what_to_lower(job, planned)}"
    held = min(job.run.micro_batch, part.batch_size)
    return f"memory runs out with {counted(held, 'image')} at a time; lower {what_to_lower(job, planned, at_a_time=held)}"
