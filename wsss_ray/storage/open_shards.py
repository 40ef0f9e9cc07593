"""Keep shards open to read single rows of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from wsss_ray.storage.parquet import damage_named
from wsss_ray.storage.shards import open_shard, shard_path
from wsss_ray.storage.store import Identified, RunStore

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_OPEN_FILES = 64


class OpenShards:
    """Shards of one schema that stay open, so that single rows are read quickly. Each thread, and each copy, opens its own.

    Args:
        store: The store of the shards.
        schema: The schema of the shards, a name of `schemas.ARTIFACTS` whose rows are row groups.

    Example:
        >>> OpenShards(store, "seeds").row(stage, shard=0, row=3, columns=["seed"])["seed"]
    """

    def __init__(self, store: RunStore, schema: str) -> None:
        self.store, self.schema = store, schema
        self._of_thread = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "schema": self.schema}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def row(self, stage: Identified, shard: int, row: int, columns: list[str]) -> dict[str, Any]:
        """Read one row. The errors are those of `open_shard`."""
        file = self._file(stage, shard)
        with damage_named(shard_path(self.store, stage, shard)):
            record: dict[str, Any] = file.read_row_group(row, columns=columns, use_threads=False).to_pylist()[0]
        return record

    def rows(self, stage: Identified, shard: int, columns: list[str]) -> list[dict[str, Any]]:
        """Read all rows of a shard, for small columns. The errors are those of `open_shard`."""
        file = self._file(stage, shard)
        with damage_named(shard_path(self.store, stage, shard)):
            rows: list[dict[str, Any]] = file.read(columns=columns, use_threads=False).to_pylist()
        return rows

    def _file(self, stage: Identified, shard: int) -> pq.ParquetFile:
        opened: OrderedDict[str, pq.ParquetFile] = self._of_thread.__dict__.setdefault("opened", OrderedDict())
        path = shard_path(self.store, stage, shard)
        if path not in opened:
            opened[path] = open_shard(self.store, stage, shard, self.schema)
            if len(opened) > _OPEN_FILES:
                opened.popitem(last=False)[1].close()
        opened.move_to_end(path)
        return opened[path]
