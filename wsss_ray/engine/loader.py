"""From shards to training batches: random access by (shard, row), the same global batches for any number of workers.

Step t of a training sees elements t*B to t*B + B - 1 of an endless stream: the data in a new order each epoch, the order drawn
from (job seed, epoch). Worker r of W takes every W-th of them, in micro-batches. All randomness of one image in one epoch comes
from one key, drawn from (job seed, epoch, image id). Batches are made ahead of the steps: in a thread of the worker, which costs
nothing to start, or in processes, which a GPU needs that is faster than one processor decodes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from wsss_ray.core.contracts import IGNORE, Augment, Batch, OnlineSegmenter
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import epoch_order, random_key
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.storage.shards import list_shards, open_shard, shard_path
from wsss_ray.storage.store import RunStore

_OPEN_FILES = 64
_READERS = 16
_STEPS_AHEAD = 2
_MOST_PROCESSES = 8

T = TypeVar("T")

Sample = tuple[str, int, torch.Tensor, torch.Tensor, torch.Tensor, bool, torch.Tensor]
"""Image id, key, image_CHW, tags_K, seeds_EHW, strong, valid_HW."""


@dataclass(frozen=True)
class Element:
    """One element of the stream: image `index` as seen in `epoch`."""

    epoch: int
    index: int


def global_batch(num_images: int, batch_size: int, seed: int, step: int) -> list[Element]:
    """The elements of one step, over all workers."""
    places = range(step * batch_size, (step + 1) * batch_size)
    epochs = [place // num_images for place in places]
    return [
        Element(epoch, int(epoch_order(num_images, seed, epoch)[place % num_images]))
        for place, epoch in zip(places, epochs, strict=True)
    ]


class ShardedImages(Dataset[Sample]):
    """Images, tags and label maps of the shards of a train stage's inputs; one sample per `Element`."""

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
        online = isinstance(stage.component, OnlineSegmenter)  # its images without a mask have labels made as it trains
        if self.strong is not None and not self.seeds and not online:  # full supervision: no mask, nothing to teach
            kept = [(image_id, place) for image_id, place in zip(self.ids, self.places, strict=True) if image_id in masked]
            self.ids, self.places = [image_id for image_id, _ in kept], [place for _, place in kept]
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}

    def __getitem__(self, element: Element) -> Sample:
        image_id = self.ids[element.index]
        source, shard, row = self.places[element.index]
        key = random_key(self.seed, element.epoch, image_id)
        strong = image_id in self.masked
        record = self._row(source, shard, row, "images", ["image", "tags", *(["mask"] if strong else [])])
        image_HWC = decode_rgb(record["image"])
        seeds_EHW = self._labels(record, shard, row, strong, image_HWC.shape[:2])
        inside = np.zeros((1, *image_HWC.shape[:2]), np.uint8)  # padding turns it into IGNORE, as it does with any label
        image_HWC, maps = self.augment(image_HWC, np.concatenate([seeds_EHW, inside]), np.random.default_rng(key))
        seeds, valid_HW = torch.from_numpy(maps[:-1].copy()), torch.from_numpy(maps[-1] != IGNORE)
        tags_K = torch.zeros(self.num_classes)
        tags_K[record["tags"]] = 1.0
        image_CHW = torch.from_numpy(image_HWC.astype(np.float32, order="C")).permute(2, 0, 1)
        return image_id, key, image_CHW, tags_K, seeds, strong, valid_HW

    def _labels(self, record: dict[str, Any], shard: int, row: int, strong: bool, size: Sequence[int]) -> np.ndarray:
        count = max(len(self.seeds), 1 if self.strong is not None else 0)
        if strong:
            return np.repeat(decode_gray(record["mask"])[None], count, axis=0)
        maps = [self._row(stage, shard, row, "seeds", ["seed"])["seed"] for stage in self.seeds]
        missing = np.full(tuple(size), IGNORE, np.uint8)
        return np.stack([missing if png is None else decode_gray(png) for png in maps] or [missing] * count) if count else (
            np.zeros((0, *size), np.uint8)
        )

    def _row(self, stage: Stage, shard: int, row: int, schema: str, columns: list[str]) -> dict[str, Any]:
        path = shard_path(self.store, stage, shard)
        if path not in self._open:
            self._open[path] = open_shard(self.store, stage, shard, schema)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        record: dict[str, Any] = self._open[path].read_row_group(row, columns=columns, use_threads=False).to_pylist()[0]
        return record


def image_places(store: RunStore, stage: Stage, present: list[str] | None = None) -> dict[str, tuple[Stage, int, int]]:
    """Where each image of an ingest stage lies; with `present`, only images that have those columns. Reads footers only."""
    shards = list_shards(store, stage)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
        listed = list(pool.map(lambda shard: _listed(store, stage, shard, present or []), shards))
    return {
        image_id: (stage, shard, row)
        for shard, rows in zip(shards, listed, strict=True)
        for row, image_id in enumerate(rows)
        if image_id is not None
    }


def _listed(store: RunStore, stage: Stage, shard: int, present: list[str]) -> list[str | None]:
    """The image id of each row of a shard; None where a column of `present` is null.

    A row is its own row group, so that the footer's statistics say both: an id is its column's minimum and maximum there, and
    whether there is a mask is known without reading the masks. A shard that has no such statistics is read.
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
    """Samples to a batch."""
    ids, keys, images, tags, seeds, strong, valid = zip(*samples, strict=True)
    return Batch(
        ids=ids,
        keys_B=keys,
        image_BCHW=torch.stack(images),
        tags_BK=torch.stack(tags),
        seeds_BEHW=torch.stack(seeds),
        strong_B=torch.tensor(strong),
        valid_BHW=torch.stack(valid),
    )


class _Micros:
    """The micro-batches of one worker from step `start` to `stop`, one after another, for torch's DataLoader."""

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
    """Processes that decode where `run.loader_workers` is null: the CPUs that a GPU's worker and `others` leave, at most 8.

    None beside a step that the CPUs make themselves: there a thread is enough, and a process costs some 300 MB and seconds.
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
    pin: bool = False,
) -> Generator[list[Batch], None, None]:
    """For each step from `start` to `stop`, this worker's share of the global batch as a list of micro-batches.

    Made ahead by `workers` processes, or by a thread (0); with `pin` in memory that a GPU reads by itself.
    """
    steps = _steps(images, batch_size, start, stop, rank, world, micro, workers, pin)
    return steps if workers else _ahead(steps, _STEPS_AHEAD)


def _ahead(source: Iterator[T], count: int) -> Generator[T, None, None]:
    """The same items, up to `count` of them made in a thread while one is used. What fails there is raised where it is due."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        made = deque(pool.submit(next, source, None) for _ in range(count))
        while (item := made.popleft().result()) is not None:
            made.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _steps(
    images: ShardedImages, batch_size: int, start: int, stop: int, rank: int, world: int, micro: int, workers: int, pin: bool
) -> Generator[list[Batch], None, None]:
    sampler = _Micros(len(images), batch_size, images.seed, start, stop, rank, world, micro)
    loader = DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
    batches = iter(loader)
    for _ in range(start, stop):
        yield [next(batches) for _ in range(sampler.per_step())]
