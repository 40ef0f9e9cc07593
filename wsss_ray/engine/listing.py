"""Keep the listing of a split in the store while its shards are made: one process lists the data, workers read their part.

Without it, each worker would list all files, hold the listing in memory, and query a shared file system for every file.

    STORE/stages/<stage id>/listing/part-00000.parquet      covers several shards; deleted when the stage is done
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from wsss_ray.core.plan import Stage
from wsss_ray.data.lookup import looked_up_once
from wsss_ray.data.source import DataSplit, Item, ListingDigest
from wsss_ray.storage.shards import read_shard, write_shard
from wsss_ray.storage.store import RunStore

FOLDER = "listing"
_ITEMS = 8192  # per file, rounded down to whole shards
_COLUMNS = ("image_id", "tags", "path", "mask", "size", "annotation")


class StoredListing:
    """The items of an ingest stage, shard by shard.

    `write` and `by_shard` list the data here; so does `shard` if no listing is stored. They raise ValueError if it is not the
    data that was planned.
    """

    def __init__(self, store: RunStore, stage: Stage) -> None:
        assert isinstance(stage.component, DataSplit)
        self.store, self.stage, self.split = store, stage, stage.component
        self._loaded: tuple[int, list[Item]] = (-1, [])  # number and items of the file that was read last

    @property
    def _shards_per_file(self) -> int:
        return max(1, _ITEMS // self.split.source.shard_size)

    def shard(self, shard: int) -> list[Item]:
        """Return the items of one shard from the stored listing. If there is none, list all data here."""
        part, place = divmod(shard, self._shards_per_file)
        if part != self._loaded[0]:
            try:
                rows = read_shard(self.store, self.stage, part, "listing", folder=FOLDER)
            except FileNotFoundError:
                return self.split.shard_items(self._all, shard)
            self._loaded = part, [_item(row) for row in rows]
        return self.split.shard_items(self._loaded[1], place)

    def write(self) -> None:
        """List the data, and store the listing for the workers."""
        self.remove()  # an attempt that died may have left one, with other paths
        items = self._listed()
        for part in range(-(-self.split.num_shards // self._shards_per_file)):
            of_part = islice(items, self._shards_per_file * self._shard_size)
            rows = [{name: getattr(item, name) for name in _COLUMNS} for item in of_part]
            write_shard(self.store, self.stage, part, "listing", rows, folder=FOLDER)
        _exhaust(items)

    def remove(self) -> None:
        """Delete the stored listing. Call it once all shards are written."""
        self.store.delete_folder(self.store.stage_path(self.stage, FOLDER))

    def by_shard(self) -> Iterator[tuple[int, list[Item]]]:
        """List the data here, and yield the number and the items of each shard."""
        items = self._listed()
        for shard in range(self.split.num_shards):
            yield shard, list(islice(items, self._shard_size))
        _exhaust(items)

    @property
    def _shard_size(self) -> int:
        return self.split.source.shard_size

    @cached_property
    def _all(self) -> list[Item]:
        return list(self._listed())

    def _listed(self) -> Iterator[Item]:
        split, digest, count = self.split, ListingDigest(), 0
        with looked_up_once():
            for item in split.source.taken(split.split):
                digest.add(item)
                count += 1
                yield item
        if digest.hexdigest() != split.listing:
            raise ValueError(
                f"data: {split.split}: {count} images are listed here, {split.num_images} were planned, or their tags or "
                "sizes differ; every machine must see the same files. If they were changed meanwhile, submit again"
            )


def _exhaust(items: Iterator[Item]) -> None:
    """Consume the rest, so that the generator reaches its check at the end."""
    deque(items, maxlen=0)


def _item(row: dict[str, Any]) -> Item:
    return Item(**row | {"tags": tuple(row["tags"])})
