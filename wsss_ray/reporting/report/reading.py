"""Reading single rows of shards: what a page shows of a large store, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from wsss_ray.core.plan import Stage
from wsss_ray.storage.store import RunStore

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spaced, the first always."""
    return list(items) if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def read_rows(
    store: RunStore, stage: Stage, shard: int, schema: str, places: Sequence[int], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of a shard at some places; no others are read where each is a row group of its own."""
    file = store.open_shard(stage, shard, schema)
    try:
        if file.num_row_groups == file.metadata.num_rows:
            rows: list[dict[str, Any]] = file.read_row_groups(list(places), columns=columns).to_pylist() if places else []
            return rows
        table = file.read(columns=columns)
        return [row for place in places for row in table.slice(place, 1).to_pylist()]  # `take` would import pandas
    finally:
        file.close()
