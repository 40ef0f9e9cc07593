"""Render the section on single classes: their scores, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss_ray.core.plan import Stage
from wsss_ray.data.palette import voc_palette
from wsss_ray.ops.confusion import scores
from wsss_ray.reporting.headings import stage_words
from wsss_ray.reporting.report.markup import DASH, number
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.reporting.report.sections import Facts
from wsss_ray.storage.finished import READERS
from wsss_ray.storage.parquet import damage_named
from wsss_ray.storage.shards import open_shard, readable_shards, shard_path

_LABELS = 32  # rows of a matrix, at most: the labels with the most missed pixels
_SHARDS = 1000  # of scores that are read to count images, at most: 100,000 images take a second


def classes(facts: Facts) -> Section:
    """Show the IoU of each class in every score, then precision, recall and confusions of each score, folded."""
    stages, names = facts.scores(), facts.labels
    counted = {data.id: data for stage in stages if (data := stage.optional("data")) and stage.id in facts.records}
    counts = [(data, _images(facts, [s for s in stages if s.optional("data") == data], len(names))) for data in counted.values()]
    known = [(data.name, count.tolist()) for data, count in counts if count is not None]
    found = [_confusions(stage_words(s.name), names, facts.part(s, "metrics").get("confusion")) for s in stages]
    titles = [stage_words(s.name) + ("" if s.id in facts.records else " (missing)") for s in stages]
    body = render(
        "classes.html",
        facts=facts,
        stages=stages,
        head=["class", *titles, *(f"{stage_words(name)} with it" for name, _ in known)],
        ious=[facts.part(stage, "metrics").get("iou") or [] for stage in stages],
        masks=[count for _, count in known],
        names=(*names, "undecided"),
        colors=[*voc_palette()[: len(names)].tolist(), None],
        confusions=[confusions for confusions in found if confusions],
    )
    return Section("classes", "IoU of each class", body)


def _images(facts: Facts, stages: Sequence[Stage], labels: int) -> NDArray[np.int64] | None:
    """Count the masks that contain each label, from the scores of one of the stages. Return None if there are too many shards."""
    stage = next((s for s in stages if s.id in facts.records), None)
    shards = readable_shards(facts.store, stage) if stage is not None else []
    if stage is None or not 0 < len(shards) <= _SHARDS:
        return None
    made = stage

    def count(shard: int) -> NDArray[np.int64]:
        file = open_shard(facts.store, made, shard, "scores")
        try:
            with damage_named(shard_path(facts.store, made, shard)):
                cells = file.read(columns=["cells"])["cells"].to_pylist()  # to_numpy would import pandas
        finally:
            file.close()
        there = [np.unique(np.asarray(row, np.int64) // (labels + 1)) for row in cells if row]
        return np.bincount(np.concatenate([np.empty(0, np.int64), *there]), minlength=labels).astype(np.int64)

    with ThreadPoolExecutor(READERS) as pool:
        return np.asarray(sum(pool.map(count, shards)), np.int64)


def _confusions(stage: str, names: Sequence[str], confusion: Sequence[Sequence[int]] | None) -> dict[str, Any] | None:
    """Compute the scores of each label, and the shares of its pixels that got each label; None without a confusion matrix."""
    pixels = np.array(confusion or [], dtype=np.int64)
    if pixels.shape != (len(names), len(names) + 1):
        return None
    found, total = scores(pixels), pixels.sum(axis=1)
    shares, missed = pixels / np.maximum(total, 1)[:, None], pixels.copy()
    np.fill_diagonal(missed, 0)
    given = (*names, "undecided")
    most = enumerate(missed.argmax(axis=1))
    return {
        "name": stage,
        "figures": list(zip(total / max(1, total.sum()), found.precision, found.recall, strict=True)),
        "mistaken": [f"{given[j]} ({number(shares[k, j])})" if missed[k, j] else DASH for k, j in most],
        "shown": sorted(np.argsort(-missed.sum(axis=1), kind="stable")[:_LABELS].tolist()),
        "shares": shares.tolist(),
    }
