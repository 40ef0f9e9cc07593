"""Which images a gallery shows: those that a stage has scored lowest, and others that stand for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wsss_ray.core.plan import Stage
from wsss_ray.ops.confusion import dense, scores
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report.markup import whole
from wsss_ray.storage.shards import count_rows, list_shards, read_table
from wsss_ray.storage.store import RunStore

Place = tuple[int, int]
"""Of an image: its shard, and its row there."""
_RANKED = 2_000  # images that are ranked by their scores, at most: the first shards that hold as many


def choose(store: RunStore, data: Stage, scored: Sequence[Stage], count: int, labels: int) -> tuple[list[Place], str]:
    """At most `count` images of a split, and in words which these are.

    `scored` are evaluate stages that read the split, and `labels` how many labels they know. Half of the images are those with
    the lowest mIoU, the mean over these stages; the others are evenly spaced among the rest. Without scores all are evenly
    spaced in the first shards that hold enough.
    """
    there = {stage.id: set(list_shards(store, stage)) for stage in scored}
    pool: list[Place] = []
    ious: dict[Place, float] = {}
    for shard in list_shards(store, data) if count > 0 else ():
        pool += [(shard, place) for place in range(count_rows(store, data, shard))]
        found = [_ious(store, stage, shard, labels) for stage in scored if shard in there[stage.id]]
        for place, several in enumerate(zip(*found, strict=True)):
            known = [iou for iou in several if math.isfinite(iou)]
            if known:
                ious[shard, place] = sum(known) / len(known)
        if len(pool) >= (max(count, _RANKED) if any(there.values()) else count):
            break
    if len(pool) <= count or not ious:
        return evenly_spaced(pool, count), f"evenly spaced among the first {whole(len(pool))}"
    worst = set(sorted(ious, key=ious.__getitem__)[: (count + 1) // 2])
    others = evenly_spaced([place for place in pool if place not in worst], count - len(worst))
    text = f"the {whole(len(worst))} of lowest IoU and {whole(len(others))} evenly spaced, among the first {whole(len(pool))}"
    return sorted([*worst, *others]), text


def _ious(store: RunStore, stage: Stage, shard: int, labels: int) -> list[float]:
    """The mIoU of every image of a shard; NaN where there is nothing to score."""
    table = read_table(store, stage, shard, "scores", ["cells", "counts"])
    rows = zip(table["cells"].to_pylist(), table["counts"].to_pylist(), strict=True)
    return [scores(dense(cells, counts, labels)).miou for cells, counts in rows]
