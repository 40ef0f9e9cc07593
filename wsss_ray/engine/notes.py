"""Count the training images that were packed without a mask because theirs cannot be used. They keep their tags.

STORE/stages/<stage id>/notes/part-00000.parquet      image id, mask file (null if it is drawn), reason; only where there are any
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.core.counted import counted
from wsss_ray.core.plan import Stage
from wsss_ray.engine.batches import Row
from wsss_ray.engine.shard_worker import NOTES, data_split
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore

_MOST = 0.5  # share of the mask files: beyond it, the files do not belong to these images or classes


@dataclass(frozen=True)
class WithoutMask:
    """The images of an ingest stage that have no mask because theirs cannot be used.

    Attributes:
        count: The number of these images.
        shards: The shards that hold them.
        first: The first one, as (image or mask file, reason); None if there is none.
        problem: Why the stage cannot be used: too many mask files are wrong. None if it can.
    """

    count: int = 0
    shards: tuple[int, ...] = ()
    first: tuple[str, str] | None = None
    problem: str | None = None


def without_mask(store: RunStore, stage: Stage) -> WithoutMask:
    """Count the images of an ingest stage whose masks cannot be used. Other stages have none.

    Shapes in annotations come along with the tags, so any number of them may be wrong. A folder of masks is named by the user to
    be scored on: if half of the files or more are wrong, it is a mistake.
    """
    shards = list_shards(store, stage, NOTES) if stage.kind == "ingest" else []
    rows: list[Row] = [row for shard in shards for row in read_shard(store, stage, shard, "errors", folder=NOTES)]
    if not rows:
        return WithoutMask()
    what, reason = rows[0]["path"] or rows[0]["image_id"], rows[0]["reason"]
    files, masks = sum(row["path"] is not None for row in rows), data_split(stage).num_masks
    problem = None
    if files and files >= _MOST * masks:
        mend = "correct them, or set the field with their folder to null to go without scores"
        problem = f"stage {stage.name}: {files} of {counted(masks, 'mask')} cannot be used, such as {what}: {reason}; {mend}"
    return WithoutMask(len(rows), tuple(shards), (what, reason), problem)
