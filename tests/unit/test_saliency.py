"""Saliency maps that a network makes: the stage, its place in the plan, and what job files say about it."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from tests.local import job_of, recommit, run_plan, run_stage, stage_named
from tests.photos import class_folders
from tests.shapes import tiny_job
from wsss_ray.config.job import plans_of
from wsss_ray.config.paths import local_paths
from wsss_ray.core.graph import one_pipeline
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.codecs import as_saliency, decode_gray, decode_rgb
from wsss_ray.engine.shard_worker import needs_model
from wsss_ray.nets.u2net import U2Net
from wsss_ray.storage.shards import read_all, read_shard, write_shard
from wsss_ray.storage.store import RunStore

METHOD = {"name": "cam", "seed_rule": {"background": {"kind": "cam_background"}}}
NET = {"kind": "u2net", "weights": "none", "size": 32}


class BrightSaliency(SaliencyNet):
    """What is brighter than the image's mean stands out. The network is not used."""

    in_job_files = True

    def build(self):
        return U2Net(weights="none").build()

    def saliency(self, net, images):
        return [(image_HWC.mean(axis=2) > image_HWC.mean()).astype(np.float32) for image_HWC in images]


def job_with(saliency, **data):
    job = tiny_job(data={"kind": "shapes", "saliency": saliency, **data})
    job["method"]["seed_rule"] = {"background": {"kind": "saliency_background", "threshold": 0.5}, "conflict": "background"}
    return job_of(job)


def test_a_network_makes_maps_that_decide_the_background(tmp_path):
    plan, store = job_with({"kind": "bright_saliency"}, broken=[3]).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="seeds")
    saliency, data = stage_named(plan, "saliency"), stage_named(plan, "images-weak")
    assert store.record(saliency)["counts"] == {"images": 23, "errors": 0, "shards": 3}
    images = [decode_rgb(row["image"]) for row in read_all(store, data, "images").to_pylist()]
    maps = [as_saliency(decode_gray(row["saliency"])) for row in read_all(store, saliency, "saliency").to_pylist()]
    seeds = [decode_gray(row["seed"]) for row in read_all(store, stage_named(plan, "seeds"), "seeds").to_pylist()]
    for image_HWC, map_HW, seed_HW in zip(images, maps, seeds, strict=True):
        np.testing.assert_array_equal(map_HW, image_HWC.mean(axis=2) > image_HWC.mean())
        np.testing.assert_array_equal(seed_HW == 0, map_HW < 0.5)


def test_the_stage_runs_beside_maps_and_seeds_and_asks_for_a_gpu():
    plan = job_with(NET).plan()
    saliency, maps, seeds = (stage_named(plan, name) for name in ("saliency", "maps", "seeds"))
    assert saliency.kind == "saliency"
    assert needs_model(saliency)
    assert one_pipeline(maps, saliency)
    assert one_pipeline(saliency, seeds)
    assert seeds.input("saliency").id == saliency.id


def test_the_network_is_no_part_of_the_data(tmp_path):
    root = class_folders(tmp_path / "photos")
    (tmp_path / "maps").mkdir()
    jobs = [
        job_of({"name": "one", "method": METHOD, "data": {"kind": "folder", "root": str(root)} | more})
        for more in ({}, {"saliency": NET}, {"saliency": NET | {"size": 64}})
    ]
    plans = [plans_of([job])[0] for job in jobs]
    assert len({stage_named(plan, "images-weak").id for plan in plans}) == 1
    assert len({stage_named(plan, "saliency").id for plan in plans[1:]}) == 2
    assert all(stage.name != "saliency" for stage in plans[0])


def test_paths_of_its_weights_travel_with_the_job(tmp_path):
    file = tmp_path / "u2netp.pth"
    saliency = {"kind": "u2net", "weights": str(file)}
    job = job_of({"name": "one", "method": METHOD, "data": {"kind": "sprites", "saliency": saliency}})
    assert ("data.saliency.weights.source", str(file)) in list(local_paths(job))


def test_an_image_that_fails_keeps_its_row_and_has_no_seed(tmp_path):
    plan, store = job_with(NET).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="maps")
    saliency, seeds, data = (stage_named(plan, name) for name in ("saliency", "seeds", "images-weak"))
    rows = read_shard(store, data, 1, "images")
    write_shard(store, data, 1, "images", [row | {"image": b"no image"} if k == 2 else row for k, row in enumerate(rows)])
    recommit(store, data)
    run_stage(store, saliency)
    assert store.record(saliency)["counts"]["errors"] == 1
    assert [row["saliency"] is None for row in read_shard(store, saliency, 1, "saliency")] == [k == 2 for k in range(8)]
    run_stage(store, seeds)
    (error,) = read_all(store, seeds, "errors", folder="errors").to_pylist()
    assert error["image_id"] == rows[2]["image_id"]


def test_data_without_a_folder_of_maps_takes_a_network_only():
    job = job_of({"name": "one", "method": METHOD, "data": {"kind": "sprites", "saliency": "maps"}})
    with pytest.raises(ValueError, match=r"data.saliency: sprites reads no folder of maps. Give a network"):
        job.plan()


def test_an_unknown_network_is_named_with_those_that_exist():
    with pytest.raises(ValidationError) as caught:
        job_of({"name": "one", "method": METHOD, "data": {"kind": "folder", "root": ".", "saliency": {"kind": "u3net"}}})
    (error,) = caught.value.errors()
    assert error["loc"] == ("data", "saliency")
    assert "kind is 'u3net', allowed: bright_saliency, u2net" in error["msg"]
