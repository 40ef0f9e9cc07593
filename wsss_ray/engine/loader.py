"""Make training batches from shards by random access to (shard, row). Any number of workers gives the same global batches.

Step t of a training uses elements t*B to t*B + B - 1 of an endless stream. The stream holds the data in a new order each epoch,
drawn from (job seed, epoch). Worker r of W takes every W-th element of a step, in micro-batches. All randomness of one image in
one epoch comes from one key, drawn from (job seed, epoch, image id).

Batches are made ahead of the steps. Threads of the worker make them, which cost nothing to start; or several processes do, for a
GPU that is faster than a few CPU cores decode.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wsss_ray.core.contracts import Augment, OnlineSegmenter
from wsss_ray.core.errors import is_machine_failure
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import epoch_order, random_key
from wsss_ray.core.values import IGNORE, Batch
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.engine.batches import reason_of
from wsss_ray.engine.known_features import KnownFeatures
from wsss_ray.nets.frozen import view_key
from wsss_ray.storage.open_shards import OpenShards
from wsss_ray.storage.shards import list_shards, open_shard
from wsss_ray.storage.store import RunStore

_READERS = 16
_STEPS_AHEAD = 2
_MOST_PROCESSES = 8

T = TypeVar("T")

Sample = tuple[str, int, torch.Tensor, torch.Tensor, torch.Tensor, bool, torch.Tensor, torch.Tensor | None]
"""Image id, key, image_CHW, tags_K, seeds_EHW, strong, valid_HW, features_CHW of a frozen trunk if they are known."""


@dataclass(frozen=True)
class Element:
    """One element of the stream: image `index` as seen in `epoch`."""

    epoch: int
    index: int


def global_batch(num_images: int, batch_size: int, seed: int, step: int) -> list[Element]:
    """Return the elements of one step, over all workers."""
    places = range(step * batch_size, (step + 1) * batch_size)
    epochs = [place // num_images for place in places]
    return [
        Element(epoch, int(epoch_order(num_images, seed, epoch)[place % num_images]))
        for place, epoch in zip(places, epochs, strict=True)
    ]


class ShardedImages(Dataset[Sample]):
    """The images, tags and label maps that a train stage reads, as a dataset with one sample per `Element`.

    With the `salt` of the network's frozen trunk, samples come with their features if a stage has computed them.
    """

    def __init__(self, store: RunStore, stage: Stage, augment: Augment, num_classes: int) -> None:
        assert stage.seed is not None
        self.store, self.augment, self.num_classes, self.seed = store, augment, num_classes, stage.seed
        self.data, self.seeds, self.strong = stage.input("data"), stage.all("seeds"), stage.optional("strong")
        self.places: list[tuple[Stage, int, int]] = []  # (ingest stage, shard, row)
        self.ids: list[str] = []
        masked = set(image_places(store, self.strong, ["mask"])) if self.strong else set()
        for image_id, place in image_places(store, self.data).items():
            self.ids.append(image_id)
            self.places.append(place)
        if self.strong is not None and self.strong.id != self.data.id:
            known = {image_id: index for index, image_id in enumerate(self.ids)}
            for image_id, place in image_places(store, self.strong).items():
                if image_id in known:
                    self.places[known[image_id]] = place
                else:
                    self.ids.append(image_id)
                    self.places.append(place)
        self.masked = masked
        online = isinstance(stage.component, OnlineSegmenter)  # labels of images without a mask are made during training
        if self.strong is not None and not self.seeds and not online:  # full supervision needs a mask
            kept = [(image_id, place) for image_id, place in zip(self.ids, self.places, strict=True) if image_id in masked]
            self.ids, self.places = [image_id for image_id, _ in kept], [place for _, place in kept]
        self._images, self._seeds = OpenShards(store, "images"), OpenShards(store, "seeds")
        self.features, self.salt = KnownFeatures(store, stage.features), b""
        self.seconds, self.made = 0.0, 0  # processor time and number of the samples that this process made, roughly

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, element: Element) -> Sample:
        began = time.thread_time()
        try:
            return self._sample(element)
        except Exception as error:
            if is_machine_failure(error):
                raise
            raise ValueError(f"image {self.ids[element.index]}: {reason_of(error)}") from error
        finally:
            self.seconds, self.made = self.seconds + time.thread_time() - began, self.made + 1

    def _sample(self, element: Element) -> Sample:
        image_id = self.ids[element.index]
        source, shard, row = self.places[element.index]
        key = random_key(self.seed, element.epoch, image_id)
        strong = image_id in self.masked
        record = self._images.row(source, shard, row, ["image", "tags", *(["mask"] if strong else [])])
        image_HWC = decode_rgb(record["image"])
        seeds_EHW = self._labels(record, shard, row, strong, image_HWC.shape[:2])
        inside = np.zeros((1, *image_HWC.shape[:2]), np.uint8)  # padding turns it into IGNORE, as it does with any label
        image_HWC, maps = self.augment(image_HWC, np.concatenate([seeds_EHW, inside]), np.random.default_rng(key))
        seeds, valid_HW = torch.from_numpy(maps[:-1].copy()), torch.from_numpy(maps[-1] != IGNORE)
        tags_K = torch.zeros(self.num_classes)
        tags_K[record["tags"]] = 1.0
        image_CHW = torch.from_numpy(image_HWC.astype(np.float32, order="C")).permute(2, 0, 1)
        known = self.features.find(source, shard, row, view_key(self.salt, image_HWC)) if self.features else None
        return image_id, key, image_CHW, tags_K, seeds, strong, valid_HW, known

    def _labels(self, record: dict[str, Any], shard: int, row: int, strong: bool, size: Sequence[int]) -> np.ndarray:
        count = max(len(self.seeds), 1 if self.strong is not None else 0)
        if strong:
            return np.repeat(decode_gray(record["mask"])[None], count, axis=0)
        maps = [self._seeds.row(stage, shard, row, ["seed"])["seed"] for stage in self.seeds]
        missing = np.full(tuple(size), IGNORE, np.uint8)
        return (
            np.stack([missing if png is None else decode_gray(png) for png in maps] or [missing] * count)
            if count
            else (np.zeros((0, *size), np.uint8))
        )


def image_places(store: RunStore, stage: Stage, present: list[str] | None = None) -> dict[str, tuple[Stage, int, int]]:
    """Map the id of each image of an ingest stage to its (stage, shard, row), reading only footers.

    With `present`, only images are returned for which none of these columns is null.
    """
    shards = list_shards(store, stage)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
        listed = list(pool.map(lambda shard: _image_ids(store, stage, shard, present or []), shards))
    return {
        image_id: (stage, shard, row)
        for shard, rows in zip(shards, listed, strict=True)
        for row, image_id in enumerate(rows)
        if image_id is not None
    }


def _image_ids(store: RunStore, stage: Stage, shard: int, present: list[str]) -> list[str | None]:
    """Return the image id of each row of a shard; None for a row in which a column of `present` is null.

    Each row is a row group of its own, so the statistics in the footer are enough: the id is the minimum and maximum of its
    column, and the number of nulls tells whether there is a mask. A shard without such statistics is read.
    """
    file = open_shard(store, stage, shard, "images")
    try:
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        leaves = {groups[0].column(leaf).path_in_schema: leaf for leaf in range(groups[0].num_columns)} if groups else {}
        found: list[str | None] = []
        for group in groups:
            name, *others = (group.column(leaves[column]).statistics for column in ("image_id", *present))
            known = all(one is not None and one.has_null_count for one in (name, *others)) and name.has_min_max
            if group.num_rows != 1 or not known or name.min != name.max:
                break
            found.append(None if any(one.null_count for one in others) else name.min)
        if len(found) == len(groups):
            return found
        rows = file.read(columns=["image_id", *present]).to_pylist()
        return [None if any(row[column] is None for column in present) else row["image_id"] for row in rows]
    finally:
        file.close()


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a batch."""
    ids, keys, images, tags, seeds, strong, valid, known = zip(*samples, strict=True)
    return Batch(
        ids=ids,
        keys_B=keys,
        image_BCHW=torch.stack(images),
        tags_BK=torch.stack(tags),
        seeds_BEHW=torch.stack(seeds),
        strong_B=torch.tensor(strong),
        valid_BHW=torch.stack(valid),
        features_BCHW=None if any(features_CHW is None for features_CHW in known) else torch.stack(known),
    )


class _MicroBatchSampler:
    """Sample the micro-batches of one worker from step `start` to `stop`, for torch's DataLoader."""

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int, stop: int, rank: int, world: int, micro: int):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.start, self.stop, self.rank, self.world, self.micro = start, stop, rank, world, micro

    def per_step(self) -> int:
        return -(-len(range(self.rank, self.batch_size, self.world)) // self.micro)

    def __iter__(self) -> Iterator[list[Element]]:
        for step in range(self.start, self.stop):
            mine = global_batch(self.num_images, self.batch_size, self.seed, step)[self.rank :: self.world]
            for first in range(0, len(mine), self.micro):
                yield mine[first : first + self.micro]


def automatic_processes(cpus: float, *, gpu: bool, others: int) -> int:
    """Choose the number of decoding processes if `run.loader_workers` is null.

    A worker with a GPU gets the CPUs that it and `others` leave free, at most 8. A worker without a GPU gets 0: threads are
    enough for it, and a process costs about 300 MB and a few seconds.
    """
    return max(0, min(_MOST_PROCESSES, int(cpus) - 1 - others)) if gpu else 0


def micro_batches(
    images: ShardedImages,
    *,
    batch_size: int,
    start: int,
    stop: int,
    rank: int,
    world: int,
    micro: int,
    workers: int,
    threads: int = 1,
    pin: bool = False,
) -> Generator[list[Batch], None, None]:
    """Yield, for each step from `start` to `stop`, this worker's share of the global batch as a list of micro-batches.

    Args:
        images: The dataset of the train stage.
        batch_size: Images per step, over all workers.
        start: First step.
        stop: Step before which to stop.
        rank: Number of this worker, from 0.
        world: Number of workers.
        micro: Most images in one micro-batch.
        workers: Processes that make batches ahead; 0 uses threads.
        threads: Threads that make the samples of a batch, if there are no processes.
        pin: Put batches in pinned memory, which a GPU reads directly.
    """
    sampler = _MicroBatchSampler(len(images), batch_size, images.seed, start, stop, rank, world, micro)
    if workers:
        made = _by_processes(images, sampler, workers, pin)
    else:
        made = _prefetched(_by_threads(images, sampler, threads, pin), _STEPS_AHEAD)
    return _with_progress(made, start, stop)


def _with_progress(source: Generator[list[Batch], None, None], start: int, stop: int) -> Generator[list[Batch], None, None]:
    """Tell every batch which share of the training is done before its step."""
    with closing(source):
        for step, micros in enumerate(source, start):
            yield [replace(micro, progress=step / stop) for micro in micros]


def _prefetched(source: Generator[T, None, None], count: int) -> Generator[T, None, None]:
    """Yield the items of `source`; a thread makes up to `count` of them ahead. Its errors are raised when their item is due."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        made = deque(pool.submit(next, source, None) for _ in range(count))
        while (item := made.popleft().result()) is not None:
            made.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()


def _by_threads(
    images: ShardedImages, sampler: _MicroBatchSampler, threads: int, pin: bool
) -> Generator[list[Batch], None, None]:
    with ThreadPoolExecutor(threads, thread_name_prefix="samples") as pool:
        micros = (collate(list(pool.map(images.__getitem__, elements))) for elements in sampler)
        for _ in range(sampler.start, sampler.stop):
            step = list(islice(micros, sampler.per_step()))
            yield [micro.pin_memory() for micro in step] if pin else step


def _by_processes(
    images: ShardedImages, sampler: _MicroBatchSampler, workers: int, pin: bool
) -> Generator[list[Batch], None, None]:
    loader = DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="forkserver",
        prefetch_factor=4,
        pin_memory=pin,
    )
    batches = iter(loader)
    for _ in range(sampler.start, sampler.stop):
        yield [next(batches) for _ in range(sampler.per_step())]
