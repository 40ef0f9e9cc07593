"""Read the localization maps of a run as arrays."""

from __future__ import annotations

from collections.abc import Iterator

from wsss_ray.core.values import Maps
from wsss_ray.data.codecs import decode_maps
from wsss_ray.reporting.history import Attempt
from wsss_ray.storage.finished import Finished, StageId
from wsss_ray.storage.shards import digests_of, list_shards, read_shard
from wsss_ray.storage.store import RunStore


def read_maps(store: RunStore, attempt: Attempt, name: str | None = None) -> Iterator[tuple[str, Maps]]:
    """Yield the id and the localization maps of each image that has some, in the order of the data.

    Args:
        store: The store.
        attempt: The attempt.
        name: The name of a localize stage. None takes the last one that is done.

    Raises:
        ValueError: if there is no such stage, it is not done, or a file is damaged.

    Example:
        >>> image_id, maps = next(read_maps(store, attempts(store, "photos")[0]))
    """
    every = {stage["name"]: stage["id"] for stage in attempt.stages if stage["kind"] == "localize"}
    finished = Finished(store)
    done = {stage: found for stage, found in every.items() if finished.is_done(StageId(found))}
    chosen = next(reversed(done), None) if name is None else name
    if chosen not in done:
        why = (
            "no stage of localization maps is done"
            if name is None
            else f"stage {name!r}: " + ("it is not done" if name in every else "the run has no such stage")
        )
        raise ValueError(f"{attempt.title}: {why}; stages with maps: {', '.join(done) or 'none yet'}")
    return _rows(store, StageId(done[chosen]))


def _rows(store: RunStore, stage: StageId) -> Iterator[tuple[str, Maps]]:
    digests = digests_of(store, stage)
    for shard in list_shards(store, stage):
        for row in read_shard(store, stage, shard, "maps", digests=digests):
            if row["peak"] is not None:
                yield row["image_id"], decode_maps(row)
