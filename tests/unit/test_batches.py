"""Batches of per-image stages: what is decoded ahead, smaller batches when memory runs out, and images that fail."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.randomness import random_key
from wsss_ray.data.codecs import decode_gray, decode_maps
from wsss_ray.engine.batches import MOST, BatchRunner, NetworkRow, images_that_fit
from wsss_ray.engine.workers import worker_class
from wsss_ray.methods.ficklenet import StochasticGradCam
from wsss_ray.storage.shards import read_all, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore


class Net:
    """A network that multiplies by 10, and the rows of numbers that it runs on. It notes every batch."""

    def __init__(self, *, fits: int = 100, bad: tuple[int, ...] = (), broken: tuple[int, ...] = (), mute: tuple[int, ...] = ()):
        self.fits, self.bad, self.broken, self.mute = fits, bad, broken, mute
        self.batches: list[list[int]] = []
        self.alive, self.most, self.lock = 0, 0, threading.Lock()

    def makes(self, count: int, sizes: dict[int, tuple[int, int]] | None = None) -> dict[int, NetworkRow]:
        def one(number: int) -> NetworkRow:
            return NetworkRow(lambda: self.decode(number), self.run, self.encode, (sizes or {}).get(number, (8, 8)))

        return {number: one(number) for number in range(count)}

    def decode(self, number: int) -> int:
        if number in self.broken:
            raise OSError(f"{number} is damaged")
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        return number

    def run(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        if len(items) > self.fits:
            raise torch.OutOfMemoryError(f"{len(items)} do not fit")
        if set(items) & set(self.bad):
            raise RuntimeError("a bad image")
        return [10 * item for item in items]

    def encode(self, item: int, found: int) -> dict:
        with self.lock:
            self.alive -= 1
        if item in self.mute:
            raise ValueError(f"the result of {item} is not finite")
        return {"tens": found}


def ignore(places: list[int]) -> None:
    """Nobody asks which images run."""


def rows(count: int, **failed: str) -> dict:
    return {k: failed.get(f"_{k}", {"tens": 10 * k}) for k in range(count)}


def test_batches_are_made_in_the_order_of_the_shard_and_three_are_in_memory():
    net, ran = Net(), []
    assert BatchRunner("maps", "cpu", size=4)(net.makes(30), ran.append) == rows(30)
    assert net.batches == [list(range(30))[k : k + 4] for k in range(0, 30, 4)]
    assert ran == net.batches
    assert 4 < net.most <= 12
    assert net.alive == 0


def test_images_of_one_size_share_batches_the_largest_first():
    net = Net()
    sizes = {1: (9, 9), 4: (9, 9), 2: (4, 16), 5: (4, 16)}
    assert BatchRunner("maps", "cpu", size=2)(net.makes(6, sizes), ignore) == rows(6)
    assert net.batches == [[1, 4], [2, 5], [0, 3]]


def test_a_bad_image_fails_alone(caplog):
    net = Net(bad=(5,), broken=(2,), mute=(9,))
    found = BatchRunner("maps", "cpu", size=4)(net.makes(10), ignore)
    reasons = {"_5": "RuntimeError: a bad image", "_2": "2 is damaged", "_9": "the result of 9 is not finite"}
    assert found == rows(10, **reasons)
    assert net.batches == [[0, 1, 3], [4, 5, 6, 7], [4], [5], [6], [7], [8, 9]]
    assert caplog.text == ""


def test_batches_that_do_not_fit_are_halved_and_it_is_said_once(caplog):
    net, runner = Net(fits=2), BatchRunner("maps", "cpu", size=8)
    assert runner(net.makes(9), ignore) == rows(9)
    assert net.batches == [list(range(8)), [0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert runner(net.makes(3), ignore) == rows(3)
    assert net.batches[-2:] == [[0, 1], [2]], "the next shard does not begin with batches that are too large"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("wsss_ray", logging.WARNING)
    assert record.getMessage() == (
        "stage maps: a batch of 8 images fails: OutOfMemoryError: 8 do not fit. Continuing with batches of 4, and smaller ones "
        "if needed."
    )


def test_one_image_that_does_not_fit_ends_the_shard():
    ran: list[list[int]] = []
    with pytest.raises(torch.OutOfMemoryError, match="1 do not fit"):
        BatchRunner("maps", "cpu", size=2)(Net(fits=0).makes(4), ran.append)
    assert (ran[0], ran[-1]) == ([0, 1], [0])


def test_a_machine_that_fails_while_it_decodes_ends_the_shard():
    net = Net()
    makes = net.makes(8)

    def full() -> int:
        raise MemoryError("no room")

    makes[6] = replace(makes[6], decode=full)
    ran: list[list[int]] = []
    with pytest.raises(MemoryError, match="no room"):
        BatchRunner("maps", "cpu", size=4)(makes, ran.append)
    assert ran[-1] == [6], "the message names this image"


def test_a_rule_that_takes_no_batches_is_halved_until_it_works(caplog):
    net = Net()
    makes = net.makes(7)

    def alone(items: list[int]) -> list[int]:
        net.batches.append(list(items))
        return [10 * item for item in items[:1]]

    makes = {place: replace(make, run=alone) for place, make in makes.items()}
    assert BatchRunner("maps", "cpu", size=4)(makes, ignore) == rows(7)
    assert net.batches == [[0, 1, 2, 3], [0], [1], [2], [3], [4, 5], [4], [5], [6]]
    (record,) = caplog.records
    assert "a batch of 4 images fails: ValueError: zip() argument 2 is shorter" in record.getMessage()


class Measured(BatchRunner):
    """A runner whose device has room for four images."""

    def measure(self, run, item) -> int:
        run([item])
        return 4


def test_the_first_image_that_does_not_fail_is_measured_and_batches_stay_those_of_the_shard():
    net, runner = Net(broken=(0,), bad=(1,)), Measured("maps", "cuda")
    assert runner(net.makes(9), ignore) == rows(9, _0="0 is damaged", _1="RuntimeError: a bad image")
    assert net.batches == [[1], [2], [2, 3, 4, 5], [6, 7, 8]]
    assert runner(net.makes(3), ignore)[2] == {"tens": 20}
    assert net.batches[4:] == [[1, 2], [1], [2]], "measured once"
    with pytest.raises(torch.OutOfMemoryError):
        Measured("maps", "cuda")(Net(fits=0).makes(3), ignore)


def test_how_many_images_fit():
    assert [images_that_fit(1e9, usable) for usable in (0, 1e9, 3e9, 6e9, 20e9, 1e15)] == [1, 1, 2, 4, 8, MOST]
    assert images_that_fit(0, 1e9) == MOST
    assert images_that_fit(1e9, -5e9) == 1
    assert BatchRunner("maps", "cpu").size == 1
    assert BatchRunner("maps", "cuda").size is None
    assert BatchRunner("maps", "cuda", size=5).size == 5


class Narrow(StochasticGradCam):
    """A localizer that runs out of memory with more than `fits` images, and fails on one image, even in a batch."""

    fits: int = 2
    bad: int = 0

    def localize_batch(self, net, images, classes, keys):
        if len(images) > self.fits:
            raise torch.OutOfMemoryError(f"{len(images)} images do not fit")
        if self.bad in keys:
            raise ValueError("an image that it does not like")
        return super().localize_batch(net, images, classes, keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny job on images of which each is made alone."""
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path_factory.mktemp("store")))
    run_plan(store, plan)
    return plan, store


def again(store: RunStore, stage, schema: str, folder: Path, **worker) -> list[dict]:
    """The rows of a finished stage, made by a worker with other batches in another store."""
    other = RunStore(str(folder))
    (folder / "stages").mkdir(exist_ok=True)
    for _, needed in stage.inputs:
        shutil.copytree(store.stage_path(needed), folder / "stages" / needed.id)
    make = worker_class(stage)(other, stage, **worker)
    for shard in range(len(list(Path(store.stage_path(stage.input("data")), "shards").iterdir()))):
        make(shard)
    return read_all(other, stage, schema).to_pylist()


def test_maps_labels_and_scores_of_batches_are_those_of_single_images(made, tmp_path):
    plan, store = made
    for name, schema in (("maps", "maps"), ("relabel", "seeds"), ("miou", "scores")):
        stage = stage_named(plan, name)
        alone = read_all(store, stage, schema).to_pylist()
        (tmp_path / name).mkdir()
        found = again(store, stage, schema, tmp_path / name, batch=4)
        assert [row["image_id"] for row in found] == [row["image_id"] for row in alone]
        for ours, single in zip(found, alone, strict=True):
            if schema == "maps":
                np.testing.assert_allclose(decode_maps(ours).peak_CHW, decode_maps(single).peak_CHW, atol=1e-3)  # float16
                np.testing.assert_allclose(decode_maps(ours).mean_CHW, decode_maps(single).mean_CHW, atol=1e-3)
            elif schema == "seeds":
                np.testing.assert_array_equal(decode_gray(ours["seed"]), decode_gray(single["seed"]))
            else:
                assert ours == single


def test_a_worker_without_batches_gives_the_same_bytes_and_starts_no_thread(made, tmp_path):
    plan, store = made
    stage = stage_named(plan, "maps")
    before = threading.active_count()
    again(store, stage, "maps", tmp_path, device="cpu")
    assert threading.active_count() == before
    for shard in range(3):
        ours = Path(shard_path(RunStore(str(tmp_path)), stage, shard)).read_bytes()
        assert ours == Path(shard_path(store, stage, shard)).read_bytes()


def test_a_worker_goes_on_with_smaller_batches_and_without_the_bad_image(made, tmp_path, caplog):
    plan, store = made
    maps = stage_named(plan, "maps")
    ids = [row["image_id"] for row in read_shard(store, stage_named(plan, "images-weak"), 1, "images", ["image_id"])]
    assert maps.seed is not None
    rule = Narrow.model_validate(dict(maps.component) | {"bad": random_key(maps.seed, "localize", ids[2])})
    stage = replace(maps, component=rule)
    found = again(store, stage, "maps", tmp_path, batch=8)
    alone = read_all(store, maps, "maps").to_pylist()
    assert len(found) == len(alone) == 24
    for ours, single in zip(found, alone, strict=True):
        assert ours["image_id"] == single["image_id"]
        if ours["image_id"] == ids[2]:
            assert ours["peak"] is None
        else:
            np.testing.assert_allclose(decode_maps(ours).peak_CHW, decode_maps(single).peak_CHW, atol=1e-3)
    (error,) = read_all(RunStore(str(tmp_path)), stage, "errors", folder="errors").to_pylist()
    assert (error["image_id"], error["reason"]) == (ids[2], "an image that it does not like")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["stage maps"]


def test_a_damaged_image_of_a_batch_is_recorded(made, tmp_path):
    plan, store = made
    stage, data = stage_named(plan, "miou"), stage_named(plan, "images-val")
    other = RunStore(str(tmp_path))
    images = read_shard(store, data, 0, "images")
    write_shard(other, data, 0, "images", [row | {"image": b"short"} if k == 3 else row for k, row in enumerate(images)])
    shutil.copytree(store.stage_path(stage.input("model")), tmp_path / "stages" / stage.input("model").id)
    worker = worker_class(stage)(other, stage, batch=4)
    assert worker(0) == 8
    assert worker.image is None
    assert [row["prediction"] is None for row in read_shard(other, stage, 0, "scores")] == [k == 3 for k in range(8)]
    (error,) = read_all(other, stage, "errors", folder="errors").to_pylist()
    assert error["image_id"] == images[3]["image_id"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_its_batch_and_gives_the_same_maps(made, tmp_path):
    plan, store = made
    stage = stage_named(plan, "maps")
    found = again(store, stage, "maps", tmp_path, device="cuda")
    for ours, single in zip(found, read_all(store, stage, "maps").to_pylist(), strict=True):
        np.testing.assert_allclose(decode_maps(ours).peak_CHW, decode_maps(single).peak_CHW, atol=1e-2)
