"""Find files of a data set that have changed since they were packed, although their names, tags and sizes are the same.

A file is compared with the packed image if its modification time or its change time (ctime) is later than the ingest. Tools such
as `rsync -t` and `tar` set an old modification time; only the system sets the change time. A data set that was copied after its
ingest has new change times, so `unchanged.json` in the stage's folder notes up to which time the files were compared.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.plan import Stage
from wsss_ray.data.lookup import file_state
from wsss_ray.data.source import Item
from wsss_ray.engine.packing import IngestWorker
from wsss_ray.engine.records import StageError
from wsss_ray.engine.workers import worker_class
from wsss_ray.storage.documents import UNCHANGED
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.shards import first_written, list_shards, read_shard
from wsss_ray.storage.store import RunStore

NOTE = "unchanged.json"
_TICK_S = 2.0  # two changes within it may leave one time


def check_unchanged(store: RunStore, stage: Stage) -> None:
    """Check that the files of a finished ingest stage have not changed since they were packed.

    Only files newer than the start of the ingest, or than its oldest shard, are read. If the plan saw no newer file, the data is
    not listed again.

    Args:
        store: The store of the stage.
        stage: The stage. One that is not done, or that packs no images, passes.

    Raises:
        StageError: if a file has new content, but the same name, tags and size.
        ValueError: if the data is listed again and its listing differs from the planned one.

    Example:
        >>> for stage in plan:
        ...     if stage.kind == "ingest":
        ...         check_unchanged(store, stage)
    """
    record, worker = Finished(store).record(stage), worker_class(stage)(store, stage)
    if record is None or type(worker) is not IngestWorker:
        return
    # The record has the start of the last attempt; an earlier one may have written shards. File times may be whole seconds.
    began = min(datetime.fromisoformat(record["started"]).timestamp(), first_written(store, stage) - 1)
    compared, newest = _compared(store, stage), worker.split.newest
    if newest is not None and (newest < began or newest <= compared):
        return
    made, latest = set(list_shards(store, stage)), 0.0
    for shard, items in worker.listing.by_shard():
        times = {item.image_id: _changed_at(item) for item in items} if shard in made else {}
        latest = max(latest, *times.values(), 0.0)
        newer = {item.image_id: item for item in items if times.get(item.image_id, 0.0) > compared}
        newer = {image_id: item for image_id, item in newer.items() if times[image_id] >= began}
        rows = read_shard(store, stage, shard, worker.schema) if newer else []
        for row in rows:
            item = newer.get(row["image_id"])
            if item is not None and not _is_same(row, {"image_id": item.image_id} | worker.row(item)):
                raise StageError(
                    f"stage {stage.name}: {item.path} or its mask has changed since it was packed; restore the file, or "
                    "raise data.version to make all that depends on it again"
                )
    if compared < latest < time.time() - _TICK_S:
        with suppress(OSError):  # a store that cannot be written costs a comparison at the next submit
            store.write_json(store.stage_path(stage, NOTE), {"newest": latest})


def _is_same(packed: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return True if an image is as it was packed. A store of an older version may lack columns; these tell nothing."""
    return all(packed[column] == now.get(column) for column in packed)


def _compared(store: RunStore, stage: Stage) -> float:
    """Return up to which time the files have been compared, in seconds since the epoch; 0 if they were not."""
    with suppress(FileNotFoundError, DamagedFile):  # then they are compared again
        return float(store.read_json(store.stage_path(stage, NOTE), UNCHANGED)["newest"])
    return 0.0


def _changed_at(item: Item) -> float:
    """Return when an item's files changed last, in seconds since the epoch; 0 for an item without files."""
    states = (file_state(path) for path in (item.path, item.mask) if path)
    return item.changed or max((state[1] for state in states if state is not None), default=0.0)
