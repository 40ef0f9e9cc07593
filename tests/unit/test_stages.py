"""Per-image stages: saliency, bad images in every stage, and data that changed under the plan."""

from __future__ import annotations

import numpy as np
import pytest

from tests.local import job_of, run_plan, run_stage, stage_named
from tests.shapes import tiny_job
from wsss_ray.artifacts import decode_gray
from wsss_ray.contracts import IGNORE
from wsss_ray.plan import Plan
from wsss_ray.stages import worker_class
from wsss_ray.store import RunStore


def seeds_of(store, plan):
    stage = stage_named(plan, "seeds")
    return [decode_gray(row["seed"]) for row in store.read_shards(stage, "seeds").to_pylist()]


def test_saliency_gives_the_background(tmp_path):
    job = tiny_job(data={"kind": "shapes", "saliency": True, "broken": [3]})
    job["method"]["seed_rule"] = {"background": {"kind": "saliency_background", "threshold": 0.5}, "conflict": "background"}
    plan, store = job_of(job).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="seed_quality")
    assert store.record(stage_named(plan, "saliency"))["counts"] == {"images": 23, "errors": 0, "shards": 3}
    data = stage_named(plan, "images-weak")
    masks = [decode_gray(row["mask"]) for row in store.read_shards(data, "images", columns=["mask"]).to_pylist()]
    for seed, mask in zip(seeds_of(store, plan), masks, strict=True):
        np.testing.assert_array_equal(seed == 0, mask == 0)
        assert set(np.unique(seed[mask > 0])) - {IGNORE} <= {1, 2, 3}


def test_what_fails_in_a_stage_is_recorded_and_keeps_its_row(tmp_path, monkeypatch):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="maps")
    seeds, maps = stage_named(plan, "seeds"), stage_named(plan, "maps")
    rows = store.read_shard(maps, 1, "maps")
    store.write_shard(maps, 1, "maps", [row | {"peak": b"short"} if k == 2 else row for k, row in enumerate(rows)])
    run_stage(store, seeds)
    record = store.record(seeds)
    assert record["counts"] == {"images": 24, "errors": 1, "shards": 3}
    (error,) = store.read_shards(seeds, "errors", folder="errors").to_pylist()
    assert error["image_id"] == rows[2]["image_id"]
    assert error["reason"]
    made = store.read_shard(seeds, 1, "seeds")
    assert [row["seed"] is None for row in made] == [k == 2 for k in range(8)]
    quality = stage_named(plan, "seed_quality")
    run_stage(store, quality)
    assert 0 < store.record(quality)["metrics"]["coverage"] <= 1, "an image without a seed counts as undecided"
    segmenter = stage_named(plan, "segmenter")
    run_stage(store, segmenter)
    assert store.record(segmenter)["counts"]["images"] == 24, "training goes on with an empty seed"


def test_a_listing_that_changed_is_refused(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    component = stage.component.model_copy(update={"num_images": 99})
    changed = Plan.of([type(stage)("ingest", "images-weak", component)]).stages[0]
    with pytest.raises(ValueError, match="24 images are listed, 99 were planned"):
        worker_class(changed)(store, changed)(0)


def test_a_shard_that_is_there_is_not_made_again(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    worker = worker_class(stage)(store, stage)
    assert worker(1) == 8
    before = store.read(store.shard_path(stage, 1))
    assert worker(1) == 0
    assert store.read(store.shard_path(stage, 1)) == before
