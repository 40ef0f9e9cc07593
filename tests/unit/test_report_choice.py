"""The images of the gallery: of every class, over the whole split, from few shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_report import CLASSES, ReportPart, ReportSource
from wsss_ray.core.plan import Stage, ingest
from wsss_ray.data.source import Item, Split, describe
from wsss_ray.ops.confusion import sparse
from wsss_ray.reporting.report.choice import choose
from wsss_ray.storage.shards import write_shard
from wsss_ray.storage.store import RunStore

SHARD = 4


class RareSource(ReportSource):
    """A split whose second class is on a few images near its end only."""

    count: int = 400
    rare: tuple[int, ...] = (333,)

    def items(self, split: Split) -> list[Item]:
        return [Item(image_id=f"{split}_{i:03d}", tags=(1,) if i in self.rare else (2 * (i % 2),)) for i in range(self.count)]


class CountingStore(RunStore):
    """A store that counts the files that are opened."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.opened: list[str] = []

    def open(self, path: str) -> Any:
        self.opened.append(path)
        return super().open(path)


def filled(folder: Path, source: RareSource, *, scored: bool = False) -> tuple[CountingStore, Stage, list[Stage]]:
    """Write the images of a split, and scores that are the lower the later an image comes."""
    import numpy as np

    data = ingest(describe(source, "weak"), name="weak")
    check = Stage("evaluate", "check", ReportPart(title="check"), (("data", data),))
    store = CountingStore(str(folder))
    items = source.items("weak")
    for shard in range(-(-len(items) // SHARD)):
        images, scores = [], []
        for place, item in enumerate(items[SHARD * shard : SHARD * (shard + 1)], start=SHARD * shard):
            row = {"image_id": item.image_id, "tags": list(item.tags), "height": 1, "width": 1, "image": b"", "sha256": ""}
            images.append(row)
            matrix = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
            matrix[0, 0], matrix[0, -1] = len(items) - place, place
            cells, counts = sparse(matrix)
            scores.append({"image_id": item.image_id, "prediction": None, "cells": cells, "counts": counts})
        write_shard(store, data, shard, "images", images)
        if scored:
            write_shard(store, check, shard, "scores", scores)
    store.opened.clear()
    return store, data, [check]


def shown(source: RareSource, places: Any) -> list[int]:
    return [source.items("weak")[SHARD * shard + place].tags[0] for shard, place in places]


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("count", [3, 4, 12])
def test_every_class_is_shown_and_the_whole_split_sampled(tmp_path: Path, count: int, scored: bool) -> None:
    source = RareSource(rare=tuple(range(300, 332)))
    store, data, checks = filled(tmp_path, source, scored=scored)
    tagged = data.component.tagged  # type: ignore[attr-defined]
    assert sum(tagged) == 400
    chosen = choose(store, data, checks, count, tagged)
    assert len(chosen.places) == len(set(chosen.places)) == count
    assert set(shown(source, chosen.places)) == {0, 1, 2}
    if count == 12:
        shards = [shard for shard, _ in chosen.places]
        assert min(shards) == 0
        assert max(shards) == 99
    if scored and count > 3:
        assert (99, 3) in chosen.places, "the image with the lowest IoU"
    assert choose(RunStore(store.uri), data, checks, count, tagged) == chosen


def test_few_shards_are_read_and_more_only_for_a_class_that_they_lack(tmp_path: Path) -> None:
    common = RareSource(rare=tuple(range(1, 400, 3)))
    store, data, checks = filled(tmp_path / "common", common)
    choose(store, data, checks, 10, data.component.tagged)  # type: ignore[attr-defined]
    assert len({path for path in store.opened if "/part-" in path}) == 8
    rare = RareSource(rare=(1,), count=800)
    store, data, checks = filled(tmp_path / "rare", rare)
    chosen = choose(store, data, checks, 10, data.component.tagged)  # type: ignore[attr-defined]
    assert (0, 1) in chosen.places
    hidden = RareSource(rare=(9,), count=800)
    store, data, checks = filled(tmp_path / "hidden", hidden)
    chosen = choose(store, data, checks, 10, data.component.tagged)  # type: ignore[attr-defined]
    assert len({path for path in store.opened if "/part-" in path}) == 32
    assert chosen.words.endswith("in 32 of 200 shards; 1 class is not shown")


def test_images_of_more_classes_than_fit_are_as_many_as_asked_for(tmp_path: Path) -> None:
    store, data, checks = filled(tmp_path, RareSource(rare=(5,), count=12), scored=True)
    assert len(choose(store, data, checks, 2, (6, 1, 5)).places) == 2
    assert choose(store, data, checks, 0, (6, 1, 5)).places == []
    assert len(choose(store, data, checks, 50, (6, 1, 5)).places) == 12
