"""The listing of a split beside its shards while they are made: one process lists the data, the workers read their part of it.

Without it every worker would list all files, hold them all, and ask a shared file system for each of them.

    STORE/stages/<stage id>/listing/part-00000.parquet      of several shards each; gone when the stage is done
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit, Item, ListingDigest, looked_up_once
from wsss_ray.storage.shards import read_shard, write_shard
from wsss_ray.storage.store import RunStore

FOLDER = "listing"
_ITEMS = 8192  # of a file, as near as whole shards come to it
_COLUMNS = ("image_id", "tags", "path", "mask", "size", "annotation")


class StoredListing:
    """The items of an ingest stage's shards. Raises ValueError if what is listed here is not what was planned."""

    def __init__(self, store: RunStore, stage: Stage) -> None:
        assert isinstance(stage.component, DataSplit)
        self.store, self.stage, self.split = store, stage, stage.component
        self._part: tuple[int, list[Item]] = (-1, [])

    @property
    def _shards(self) -> int:
        """Shards of one file."""
        return max(1, _ITEMS // self.split.source.shard_size)

    def shard(self, shard: int) -> list[Item]:
        """The items of one shard: from the store, or by listing all here, where nobody has done so for us."""
        part, place = divmod(shard, self._shards)
        if part != self._part[0]:
            try:
                rows = read_shard(self.store, self.stage, part, "listing", folder=FOLDER)
            except FileNotFoundError:
                return self.split.shard_items(self._all, shard)
            self._part = part, [_item(row) for row in rows]
        return self.split.shard_items(self._part[1], place)

    def write(self) -> None:
        """List the data and write it down for the workers."""
        self.remove()  # of an attempt that died; its files may have lain elsewhere
        items = self._listed()
        for part in range(-(-self.split.num_shards // self._shards)):
            rows = [{name: getattr(item, name) for name in _COLUMNS} for item in islice(items, self._shards * self._size)]
            write_shard(self.store, self.stage, part, "listing", rows, folder=FOLDER)
        _exhaust(items)

    def remove(self) -> None:
        """It has served."""
        self.store.delete_folder(self.store.stage_path(self.stage, FOLDER))

    def by_shard(self) -> Iterator[tuple[int, list[Item]]]:
        """List the data here, shard after shard."""
        items = self._listed()
        for shard in range(self.split.num_shards):
            yield shard, list(islice(items, self._size))
        _exhaust(items)

    @property
    def _size(self) -> int:
        return self.split.source.shard_size

    @cached_property
    def _all(self) -> list[Item]:
        return list(self._listed())

    def _listed(self) -> Iterator[Item]:
        split, digest, count = self.split, ListingDigest(), 0
        with looked_up_once():
            for item in split.source.listed(split.split):
                digest.add(item)
                count += 1
                yield item
        if digest.hexdigest() != split.listing:
            raise ValueError(
                f"data: {split.split}: {count} images are listed here, {split.num_images} were planned, or their tags or "
                "sizes differ; every machine must see the same files. If they were changed meanwhile, submit again"
            )


def _exhaust(items: Iterator[Item]) -> None:
    """Run into the check at the end, past what is more than was planned."""
    deque(items, maxlen=0)


def _item(row: dict[str, Any]) -> Item:
    return Item(**row | {"tags": tuple(row["tags"])})
