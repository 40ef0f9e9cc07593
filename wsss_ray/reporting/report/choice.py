"""Choose the images of a gallery over the whole split: the lowest scores, one image at least of every class, and others.

A split may have a million images, so only a few evenly spaced shards are read, of these only tags and scores. If a class is in
none of them, a few more are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from wsss_ray.ops.confusion import dense, scores
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.reporting.report.markup import average, whole
from wsss_ray.storage.shards import count_rows, read_table, readable_shards
from wsss_ray.storage.store import Identified, RunStore

Place = tuple[int, int]
"""The place of an image: its shard and its row there."""
_RANKED = 2_000  # images ranked by their scores, about
_FEWEST = 8  # shards that are read, if there are so many
_SHARDS = 32  # shards that are read, at most


@dataclass(frozen=True)
class Choice:
    """The images of a gallery.

    Attributes:
        places: their places, in order.
        needed: those of them that are there so that every class is.
        words: how they were chosen.
    """

    places: Sequence[Place]
    needed: Collection[Place]
    words: str


def choose(store: RunStore, data: Identified, scored: Sequence[Identified], count: int, tagged: Sequence[int]) -> Choice:
    """Choose at most `count` images of a split.

    Half of them have the lowest mIoU, the mean over the stages in `scored`. Then come images of classes that these lack; if they
    need more room, fewer have the lowest mIoU. The others are evenly spaced. Only shards that are read count.

    Args:
        store: store of the run.
        data: stage of the split.
        scored: evaluate stages that read the split.
        count: number of images.
        tagged: number of images of the split with each class as a tag.

    Example:
        >>> choose(store, stage.input("data"), [stage], count=4, tagged=[4, 3, 3]).words
        'the 2 with the lowest IoU, 1 to show the other classes and 1 evenly spaced, among 10 in all 3 shards'
    """
    tags, ious, shards, of = _read(store, data, scored, count, tagged)
    among = f"among {whole(len(tags))} in {'all ' if shards == of else f'{whole(shards)} of '}{whole(of)} shards"
    if len(tags) <= count:
        return Choice(sorted(tags), (), among)
    ranked = sorted(ious, key=ious.__getitem__)
    worst = ranked[: (count + 1) // 2]
    while True:
        lacking = {k for several in tags.values() for k in several} - {k for place in worst for k in tags[place]}
        needed = _covering(tags, lacking, count)
        if not worst or len(worst) + len(needed) <= count:
            break
        worst = worst[:-1]
    rest = [place for place in sorted(tags) if place not in {*worst, *needed}]
    others = evenly_spaced(rest, count - len(worst) - len(needed))
    parts = [
        f"the {whole(len(worst))} with the lowest IoU" if worst else "",
        f"{whole(len(needed))} to show {'the other' if worst else 'all'} classes" if needed else "",
        f"{whole(len(others))} evenly spaced" if others else "",
    ]
    *before, last = [part for part in parts if part]
    listed = f"{', '.join(before)} and {last}" if before else last
    places = sorted([*worst, *needed, *others])
    absent = sum(map(bool, tagged)) - len({k for place in places for k in tags[place]})
    lost = f"; {whole(absent)} {'class is' if absent == 1 else 'classes are'} not shown" if absent else ""
    return Choice(places, needed, f"{listed}, {among}{lost}")


def _read(
    store: RunStore, data: Identified, scored: Sequence[Identified], count: int, tagged: Sequence[int]
) -> tuple[dict[Place, list[int]], dict[Place, float], int, int]:
    """Return the tags and the mIoU of the images of some shards, the number of these shards, and that of all."""
    there = {stage.id: set(readable_shards(store, stage)) for stage in scored}
    every = readable_shards(store, data) if count > 0 else []
    tags: dict[Place, list[int]] = {}
    ious: dict[Place, float] = {}
    if not every:
        return tags, ious, 0, 0
    wanted = max(count, _RANKED) if any(there.values()) else count
    fewest = -(-wanted // max(1, count_rows(store, data, every[0])))
    first = evenly_spaced(every, min(max(fewest, _FEWEST), _SHARDS))
    more = evenly_spaced([shard for shard in every if shard not in first], _SHARDS - len(first))
    lacking, read = {k for k, images in enumerate(tagged) if images}, 0
    for shard in [*first, *more]:
        if read >= len(first) and not lacking:
            break
        read += 1
        for place, several in enumerate(read_table(store, data, shard, "images", ["tags"])["tags"].to_pylist()):
            tags[shard, place] = several
            lacking -= set(several)
        found = [_ious(store, stage, shard, len(tagged) + 1) for stage in scored if shard in there[stage.id]]
        for place, values in enumerate(zip(*found, strict=True)):
            if (iou := average(values)) is not None:
                ious[shard, place] = iou
    return tags, ious, read, len(every)


def _covering(tags: Mapping[Place, Sequence[int]], classes: set[int], most: int) -> list[Place]:
    """Return few images, at most `most`, that have these classes, as far as possible."""
    found: list[Place] = []
    left = set(classes)
    middle_first = sorted(sorted(tags), key=lambda place: abs(place[0] - max(tags)[0] / 2))
    while left and len(found) < most:
        best = max(middle_first, key=lambda place: len(left & set(tags[place])))
        found.append(best)
        left -= set(tags[best])
    return found


def _ious(store: RunStore, stage: Identified, shard: int, labels: int) -> list[float]:
    """Return the mIoU of every image of a shard; NaN if there is nothing to score."""
    table = read_table(store, stage, shard, "scores", ["cells", "counts"])
    rows = zip(table["cells"].to_pylist(), table["counts"].to_pylist(), strict=True)
    return [scores(dense(cells, counts, labels)).miou for cells, counts in rows]
