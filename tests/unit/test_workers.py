"""Per-image stages: saliency, bad images in every stage, and data that changed under the plan."""

from __future__ import annotations

import errno
import os
import shutil
import time
from datetime import datetime

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.local import job_of, recommit, run_plan, run_stage, stage_named
from tests.shapes import Shapes, tiny_job
from wsss_ray.core.graph import Plan
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.data.folder import Folder
from wsss_ray.engine.networks import load_model
from wsss_ray.engine.records import StageError, commit_shards
from wsss_ray.engine.unchanged import check_unchanged
from wsss_ray.engine.workers import worker_class
from wsss_ray.ops.selection import closed_form
from wsss_ray.storage.shards import list_shards, read_all, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore


def seeds_of(store, plan):
    stage = stage_named(plan, "seeds")
    return [decode_gray(row["seed"]) for row in read_all(store, stage, "seeds").to_pylist()]


def test_saliency_gives_the_background(tmp_path):
    job = tiny_job(data={"kind": "shapes", "saliency": True, "broken": [3]})
    job["method"]["seed_rule"] = {"background": {"kind": "saliency_background", "threshold": 0.5}, "conflict": "background"}
    plan, store = job_of(job).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="seed_quality")
    assert store.record(stage_named(plan, "saliency"))["counts"] == {"images": 23, "errors": 0, "shards": 3}
    data = stage_named(plan, "images-weak")
    masks = [decode_gray(row["mask"]) for row in read_all(store, data, "images", columns=["mask"]).to_pylist()]
    for seed, mask in zip(seeds_of(store, plan), masks, strict=True):
        np.testing.assert_array_equal(seed == 0, mask == 0)
        assert set(np.unique(seed[mask > 0])) - {IGNORE} <= {1, 2, 3}


def test_what_fails_in_a_stage_is_recorded_and_keeps_its_row(tmp_path, monkeypatch):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="maps")
    seeds, maps = stage_named(plan, "seeds"), stage_named(plan, "maps")
    rows = read_shard(store, maps, 1, "maps")
    write_shard(store, maps, 1, "maps", [row | {"peak": b"short"} if k == 2 else row for k, row in enumerate(rows)])
    recommit(store, maps)
    run_stage(store, seeds)
    record = store.record(seeds)
    assert record["counts"] == {"images": 24, "errors": 1, "shards": 3}
    (error,) = read_all(store, seeds, "errors", folder="errors").to_pylist()
    assert error["image_id"] == rows[2]["image_id"]
    assert error["reason"]
    made = read_shard(store, seeds, 1, "seeds")
    assert [row["seed"] is None for row in made] == [k == 2 for k in range(8)]
    quality = stage_named(plan, "seed_quality")
    run_stage(store, quality)
    scored = store.record(quality)
    assert (scored["counts"]["errors"], scored["metrics"]["scored"]) == (0, 24)
    missed = sum(decode_gray(row["mask"]).size for row in read_shard(store, stage_named(plan, "images-weak"), 1, "images")[2:3])
    undecided = np.array(scored["metrics"]["confusion"])[:, -1].sum()
    assert undecided >= missed, "an image without a seed counts as undecided"
    segmenter = stage_named(plan, "segmenter")
    run_stage(store, segmenter)
    assert store.record(segmenter)["counts"]["images"] == 24, "training goes on with an empty seed"


def test_a_listing_that_changed_is_refused(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    component = stage.component.model_copy(update={"num_images": 99})
    component = component.model_copy(update={"listing": "0" * 64})
    changed = Plan.of([type(stage)("ingest", "images-weak", component)]).stages[0]
    with pytest.raises(ValueError, match="24 images are listed here, 99 were planned"):
        worker_class(changed)(store, changed)(0)


def test_a_shard_that_is_there_is_not_made_again(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    worker = worker_class(stage)(store, stage)
    assert worker(1) == 8
    before = store.read(shard_path(store, stage, 1))
    assert worker(1) == 0
    assert store.read(shard_path(store, stage, 1)) == before


def test_an_older_attempts_errors_do_not_outlive_it(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    write_shard(store, stage, 1, "errors", [{"image_id": "weak/0009", "path": None, "reason": "then"}], folder="errors")
    run_stage(store, stage)
    assert store.record(stage)["counts"] == {"images": 24, "errors": 0, "shards": 3}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), MemoryError(), OSError(errno.ENOSPC, "full")], ids=repr)
def test_what_is_the_machines_fault_is_not_the_images(tmp_path, monkeypatch, error):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]

    def fails(self, item):
        raise error

    monkeypatch.setattr(Shapes, "load", fails)
    with pytest.raises(type(error)):
        worker_class(stage)(store, stage)(0)
    assert list_shards(store, stage) == list_shards(store, stage, "errors") == []


def test_after_too_many_errors_the_shards_are_made_again_and_what_read_them_too(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="maps")
    maps, seeds, quality = (stage_named(plan, name) for name in ("maps", "seeds", "seed_quality"))
    good = read_shard(store, maps, 1, "maps")
    store.delete(store.stage_path(maps, "record.json"))
    nulls = {"classes": [], "height": 0, "width": 0, "peak": None, "mean": None, "grid": None}
    write_shard(store, maps, 1, "maps", [row | nulls for row in good])
    errors = [{"image_id": row["image_id"], "path": None, "reason": "x"} for row in good]
    write_shard(store, maps, 1, "errors", errors, folder="errors")
    for stage in (seeds, quality):
        for shard in range(3):
            worker_class(stage)(store, stage)(shard)
    with pytest.raises(StageError, match="stage maps: 8 of 24 images failed"):
        commit_shards(store, maps, started=0, finished=0, max_bad_fraction=0.1, readers=(seeds, quality))
    for stage in (maps, seeds, quality):
        assert list_shards(store, stage) == [0, 2]
        assert list_shards(store, stage, "errors") == []
    run_plan(store, plan, last="seed_quality")
    assert [store.record(stage)["counts"]["errors"] for stage in (maps, seeds, quality)] == [0, 0, 0]


def test_a_trained_network_is_loaded_without_its_first_weights(tmp_path):
    job = tiny_job()
    first = RunStore(str(tmp_path / "first"))
    plan = job_of(job).plan()
    run_plan(first, plan, last="classifier")
    file = tmp_path / "classifier.safetensors"
    file.write_bytes(first.read(first.stage_path(stage_named(plan, "classifier"), "model.safetensors")))
    job["method"]["classifier"] |= {"weights": str(file), "steps": 0}
    store, plan = RunStore(str(tmp_path / "second")), job_of(job).plan()
    run_plan(store, plan, last="classifier")
    file.unlink()
    run_plan(store, plan, last="maps")
    assert store.record(stage_named(plan, "maps"))["counts"]["errors"] == 0


def test_many_selections_are_made_in_parts(tmp_path, monkeypatch):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="classifier")
    stage = stage_named(plan, "maps")
    for normalize in ("per_map", "per_image"):
        part = stage.component.model_copy(update={"normalize": normalize})
        found = []
        for elements in (100_000_000, 1):
            monkeypatch.setattr(closed_form, "_CHUNK", elements)
            net = load_model(store, stage.input("model"), "cpu")
            image = decode_rgb(read_shard(store, stage.input("data"), 0, "images")[0]["image"])
            found.append(part.localize(net, image, [0, 2], 5))
        np.testing.assert_array_equal(found[0].peak_CHW, found[1].peak_CHW)
        np.testing.assert_allclose(found[0].mean_CHW, found[1].mean_CHW, rtol=1e-5, atol=1e-7)
        assert found[0].peak_CHW.max() == 1


def folder_data(tmp_path):
    """Two images, a shard each, that were written an hour ago, and their job's data."""
    (tmp_path / "images").mkdir()
    for name, red in (("a", 10), ("b", 20)):
        put(tmp_path / "images" / f"{name}.bmp", red, at=time.time() - 3600)
    (tmp_path / "tags.csv").write_text("image,tags\na,cat\nb,dog\n")
    return {"kind": "folder", "root": str(tmp_path / "images"), "tags": str(tmp_path / "tags.csv"), "shard_size": 1}


def put(path, red, *, at):
    """Write an image, of the same size whatever its colour, as if at that time."""
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)
    os.utime(path, (at, at))


def packing(data):
    """The stage that packs the data, as a submit at this moment plans it."""
    return job_of(tiny_job(data=data)).plan().stages[0]


@pytest.mark.parametrize("seconds", [0, 60, -3600], ids=["at the ingest", "later", "with an old time, as by rsync -t"])
def test_a_file_that_changed_under_its_name_and_size_is_noticed(tmp_path, seconds):
    data, store = folder_data(tmp_path), RunStore(str(tmp_path / "runs"))
    stage = packing(data)
    run_stage(store, stage)
    began = datetime.fromisoformat(store.record(stage)["started"]).timestamp()
    assert began == int(began), "a file of that second is not taken for older"
    put(tmp_path / "images" / "b.bmp", 20, at=began + seconds)
    check_unchanged(store, packing(data))  # newer, but the same
    put(tmp_path / "images" / "b.bmp", 21, at=began + seconds)
    assert packing(data).id == stage.id
    with pytest.raises(StageError, match=r"images-weak: .*b\.bmp or its mask has changed .*raise data\.version"):
        check_unchanged(store, packing(data))
    assert packing(data | {"version": 2}).id != stage.id


def test_a_copied_data_set_is_compared_once(tmp_path, monkeypatch):
    """Its files are newer than the ingest by their change times, which no copy can set back."""
    data, store, read = folder_data(tmp_path), RunStore(str(tmp_path / "runs")), []
    stage = packing(data)
    run_stage(store, stage)
    for path in (tmp_path / "images").iterdir():
        copy = path.with_suffix(".copy")
        shutil.copy2(path, copy)
        copy.replace(path)
    load, now = Folder.load, time.time()
    monkeypatch.setattr(Folder, "load", lambda self, item: read.append(item.image_id) or load(self, item))
    monkeypatch.setattr(time, "time", lambda: now + 10)
    check_unchanged(store, packing(data))
    assert sorted(read) == ["a", "b"]
    check_unchanged(store, packing(data))
    assert len(read) == 2
    put(tmp_path / "images" / "b.bmp", 21, at=now - 7200)
    with pytest.raises(StageError, match=r"b\.bmp or its mask has changed"):
        check_unchanged(store, packing(data))


def test_a_store_of_before_file_names_were_kept_is_compared_by_what_it_has(tmp_path):
    data, store = folder_data(tmp_path), RunStore(str(tmp_path / "runs"))
    stage = packing(data)
    run_stage(store, stage)
    for shard in list_shards(store, stage):
        path = shard_path(store, stage, shard)
        with store.open(path) as file:
            older = pq.read_table(file).drop_columns(["file", "file_height", "file_width"])
        pq.write_table(older, path)
    recommit(store, stage)
    put(tmp_path / "images" / "b.bmp", 20, at=time.time() + 60)
    check_unchanged(store, packing(data))
    put(tmp_path / "images" / "b.bmp", 21, at=time.time() + 60)
    with pytest.raises(StageError, match=r"b\.bmp or its mask has changed"):
        check_unchanged(store, packing(data))


def test_a_file_that_changed_between_two_attempts_at_its_ingest_is_noticed(tmp_path):
    """The record has the second attempt's start, the first shard is the first attempt's."""
    data, store, now = folder_data(tmp_path), RunStore(str(tmp_path / "runs")), time.time()
    stage = packing(data)
    worker_class(stage)(store, stage)(0)
    os.utime(shard_path(store, stage, 0), (now - 200, now - 200))
    put(tmp_path / "images" / "a.bmp", 11, at=now - 100)
    run_stage(store, stage)
    with pytest.raises(StageError, match=r"images-weak: .*a\.bmp or its mask has changed"):
        check_unchanged(store, packing(data))
    put(tmp_path / "images" / "a.bmp", 10, at=now - 100)
    check_unchanged(store, packing(data))


def test_seed_generation_alone_gives_the_seeds_of_the_whole_method(tmp_path):
    """jobs/seeds.yaml: a trained classifier's file instead of its training."""
    job = tiny_job()
    whole, plan = RunStore(str(tmp_path / "whole")), job_of(job).plan()
    run_plan(whole, plan, last="seeds")
    file = tmp_path / "classifier.safetensors"
    file.write_bytes(whole.read(whole.stage_path(stage_named(plan, "classifier"), "model.safetensors")))
    parts = {name: job["method"][name] for name in ("localizer", "seed_rule")}
    classifier = job["method"]["classifier"] | {"weights": str(file), "steps": 0}
    job["method"] = {"name": "seeds", "classifier": classifier, **parts}
    alone, short = RunStore(str(tmp_path / "alone")), job_of(job).plan()
    run_plan(alone, short)
    for name in ("maps", "seeds"):
        for shard in range(3):
            ours = alone.read(shard_path(alone, stage_named(short, name), shard))
            assert ours == whole.read(shard_path(whole, stage_named(plan, name), shard))
    assert alone.record(short.targets[-1])["metrics"]["miou"] > 0
