"""Compute the metrics of a per-image stage from its shards, for its record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from wsss_ray.core.plan import Stage
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.ops.confusion import dense, mean_defined, scores
from wsss_ray.ops.tags import average_precision, chance, f1
from wsss_ray.storage.finished import READERS
from wsss_ray.storage.shards import read_table
from wsss_ray.storage.store import RunStore


def metrics_of(store: RunStore, stage: Stage) -> dict[str, Any]:
    """Return the metrics for the record of a per-image stage whose shards all exist.

    Args:
        store: The store of the stage.
        stage: The stage.

    Returns:
        The scores of an evaluate or classify stage; for the ingest of images, `tagged`, the number of listed images with each
        tag; nothing for other stages.

    Example:
        >>> metrics_of(store, stage)["miou"]
        0.62
    """
    if stage.kind == "evaluate":
        return score(store, stage)
    if stage.kind == "classify":
        return score_tags(store, stage)
    return {"tagged": list(data_split(stage).tagged)} if stage.kind == "ingest" and not stage.optional("like") else {}


def score(store: RunStore, stage: Stage) -> dict[str, Any]:
    """Sum the confusion matrices of an evaluate stage and score the sum.

    Args:
        store: The store of the stage.
        stage: The evaluate stage, whose shards all exist.

    Returns:
        The metrics of the stage's record. `scored` is the number of images with a mask. `precision` and `recall` are means over
        the labels for which they are defined; `class_precision` and `class_recall` have one value per label.

    Example:
        >>> metrics = score(store, stage)
        >>> metrics["miou"], metrics["scored"]
        (0.62, 1449)
    """
    labels, scored = len(data_split(stage).classes) + 1, 0
    matrix = dense([], [], labels)

    def read(shard: int) -> tuple[Any, Any, int]:
        table = read_table(store, stage, shard, "scores", ["cells", "counts"])
        cells, counts = (table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in ("cells", "counts"))
        return cells, counts, sum(len(row) > 0 for row in table["cells"])

    with ThreadPoolExecutor(READERS) as pool:
        for cells, counts, images in pool.map(read, range(data_split(stage).num_shards)):
            matrix += dense(cells, counts, labels)
            scored += images
    found = scores(matrix).to_dict()
    means = {}
    for name in ("precision", "recall"):
        found[f"class_{name}"] = found.pop(name)
        means[name] = mean_defined(found[f"class_{name}"])
    return found | means | {"confusion": matrix.tolist(), "scored": scored}


def score_tags(store: RunStore, stage: Stage) -> dict[str, Any]:
    """Score the tags of a classify stage. Images that failed are left out.

    Args:
        store: The store of the stage.
        stage: The classify stage, whose shards all exist.

    Returns:
        `map` and `f1`, means over the classes that some image has; `ap`, `class_f1` and `positives` (images with the tag) of each
        class; `chance` and `chance_deviation`, the mean of `map` over all orders of the images and the most that its standard
        deviation can be; `scored`, the number of images. A score that is not defined is None.

    Example:
        >>> metrics = score_tags(store, stage)
        >>> metrics["map"], metrics["chance"]
        (0.81, 0.19)
    """
    classes = len(data_split(stage).classes)
    found: list[Sequence[float]] = []
    tags: list[Sequence[int]] = []

    def read(shard: int) -> list[dict[str, Any]]:
        rows = read_table(store, stage, shard, "tag_scores", ["scores", "tags"]).to_pylist()
        return [row for row in rows if row["scores"] is not None]

    with ThreadPoolExecutor(READERS) as pool:
        for rows in pool.map(read, range(data_split(stage).num_shards)):
            found += [row["scores"] for row in rows]
            tags += [row["tags"] for row in rows]
    score_NK = np.array(found, np.float32).reshape(-1, classes)
    true_NK = np.zeros(score_NK.shape, bool)
    for true_K, own in zip(true_NK, tags, strict=True):
        true_K[list(own)] = True
    positives = true_NK.sum(axis=0).tolist()
    ap, own_f1 = ([of(score_NK[:, k], true_NK[:, k]) for k in range(classes)] for of in (average_precision, f1))
    known = [k for k in range(classes) if positives[k]]
    luck = [chance(len(score_NK), positives[k]) for k in known]
    return {
        "map": mean_defined([ap[k] for k in known]),
        "f1": mean_defined([own_f1[k] for k in known]),
        "ap": [None if math.isnan(value) else value for value in ap],
        "class_f1": [None if math.isnan(value) else value for value in own_f1],
        "positives": positives,
        "chance": mean_defined([mean for mean, _ in luck]),
        # the deviation of a mean is at most the mean of the deviations, whatever the classes have to do with each other
        "chance_deviation": mean_defined([deviation for _, deviation in luck]),
        "scored": len(score_NK),
    }
