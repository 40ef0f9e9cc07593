"""Choose the images of a gallery: those with the lowest scores, and others that represent the rest."""

from __future__ import annotations

from collections.abc import Sequence

from wsss_ray.core.plan import Stage
from wsss_ray.ops.confusion import dense, scores
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report.markup import average, whole
from wsss_ray.storage.shards import count_rows, read_table, readable_shards
from wsss_ray.storage.store import RunStore

Place = tuple[int, int]
"""The place of an image: its shard and its row there."""
_RANKED = 2_000  # images ranked by their scores, at most: those of the first shards that hold so many


def choose(store: RunStore, data: Stage, scored: Sequence[Stage], count: int, labels: int) -> tuple[list[Place], str]:
    """Choose at most `count` images of a split.

    Half of them have the lowest mIoU, the mean over the stages in `scored`. The others are evenly spaced among the rest. Without
    scores, all are evenly spaced in the first shards that hold enough images.

    Args:
        store: store of the run.
        data: stage of the split.
        scored: evaluate stages that read the split.
        count: number of images.
        labels: number of labels, with background.

    Returns:
        The places, and words that say how they were chosen.

    Example:
        >>> choose(store, stage.input("data"), [stage], count=2, labels=3)
        ([(0, 2), (0, 5)], 'the 1 with the lowest IoU and 1 evenly spaced among the first 8')
    """
    there = {stage.id: set(readable_shards(store, stage)) for stage in scored}
    pool: list[Place] = []
    ious: dict[Place, float] = {}
    for shard in readable_shards(store, data) if count > 0 else ():
        pool += [(shard, place) for place in range(count_rows(store, data, shard))]
        found = [_ious(store, stage, shard, labels) for stage in scored if shard in there[stage.id]]
        for place, several in enumerate(zip(*found, strict=True)):
            if (iou := average(several)) is not None:
                ious[shard, place] = iou
        if len(pool) >= (max(count, _RANKED) if any(there.values()) else count):
            break
    if len(pool) <= count or not ious:
        return evenly_spaced(pool, count), f"evenly spaced among the first {whole(len(pool))}"
    worst = set(sorted(ious, key=ious.__getitem__)[: (count + 1) // 2])
    others = evenly_spaced([place for place in pool if place not in worst], count - len(worst))
    words = f"the {whole(len(worst))} with the lowest IoU and {whole(len(others))} evenly spaced"
    return sorted([*worst, *others]), f"{words} among the first {whole(len(pool))}"


def _ious(store: RunStore, stage: Stage, shard: int, labels: int) -> list[float]:
    """Return the mIoU of every image of a shard; NaN if there is nothing to score."""
    table = read_table(store, stage, shard, "scores", ["cells", "counts"])
    rows = zip(table["cells"].to_pylist(), table["counts"].to_pylist(), strict=True)
    return [scores(dense(cells, counts, labels)).miou for cells, counts in rows]
