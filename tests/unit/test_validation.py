"""Quality while a network trains: the right figures at the right steps, and not a byte of the training changed."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest
import torch

from tests.local import job_of, run_plan, run_stage, stage_named
from tests.masked import masked_job
from tests.tiny import tiny_job_of
from wsss_ray.core.graph import Plan, until
from wsss_ray.core.randomness import random_key
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.engine.networks import load_model
from wsss_ray.engine.training import run_training
from wsss_ray.engine.validation import Validation, Validator, validation_of
from wsss_ray.storage.shards import read_all, read_shard, write_shard
from wsss_ray.storage.store import RunStore

CPU = torch.device("cpu")


def trained(store, stage, validation, *, checkpoint_every=8, label_workers=0):
    torch.set_num_threads(1)
    every = {"checkpoint_every": checkpoint_every, "log_every": 3}
    how = {"device": CPU, "rank": 0, "world": 1, "micro_batch": 64, "loader_workers": 0, "label_workers": label_workers}
    run_training(store, stage, validation=validation, **how, **every)


def files_of(store, stage):
    """The model and every checkpoint."""
    folder = store.stage_path(stage, "checkpoints")
    found = {name: store.read(f"{folder}/{name}") for name in store.names(folder)}
    return found | {"model": store.read(store.stage_path(stage, "model.safetensors"))}


def curve(store, stage):
    lines = [json.loads(line) for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]
    return {line["step"]: line["val_miou"] for line in lines if "val_miou" in line}


def losses(store, stage):
    """The lines of the log that have a loss, without what the clock says."""
    lines = [json.loads(line) for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]
    return [{name: line[name] for name in ("step", "epoch", "loss", "terms", "lr")} for line in lines if "loss" in line]


def independent_miou(store, stage, data, count):
    """By hand: the whole image through the trained network, the likeliest label, one confusion matrix."""
    net, learner = load_model(store, stage, "cpu"), stage.component
    rows = [row for row in read_all(store, data, "images").to_pylist() if row["mask"] is not None]
    rows.sort(key=lambda row: random_key("validation", row["image_id"]))
    labels = len(data.component.classes) + 1
    hits, true, pred = (np.zeros(labels) for _ in range(3))
    for row in rows[:count]:
        image = torch.from_numpy(decode_rgb(row["image"])).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            found = learner.predict(net, image)[0].argmax(dim=0).numpy()
        mask = decode_gray(row["mask"])
        for label in range(labels):
            hits[label] += ((mask == label) & (found == label)).sum()
            true[label] += (mask == label).sum()
            pred[label] += ((found == label) & (mask != IGNORE)).sum()
    union = true + pred - hits
    return (hits[union > 0] / union[union > 0]).mean()


@pytest.fixture
def untrained(trained_run, tmp_path):
    """A store with all but the last training, that training, and the images it is scored on."""
    shutil.copytree(trained_run[0].path(), tmp_path / "copy")
    store, plan = RunStore(str(tmp_path / "copy")), trained_run[1]
    stage = stage_named(plan, "retrain")
    store.delete_folder(store.stage_path(stage))
    return store, stage, stage_named(plan, "images-val")


def test_no_byte_changes_and_the_last_figure_is_that_of_the_model(untrained):
    store, stage, data = untrained
    trained(store, stage, None)
    expected, mean = files_of(store, stage), losses(store, stage)
    assert curve(store, stage) == {}
    store.delete_folder(store.stage_path(stage))
    trained(store, stage, Validation(data, 7, 5))
    assert files_of(store, stage) == expected
    assert losses(store, stage) == mean
    found = curve(store, stage)
    assert list(found) == [7, 14, 21, 28, 35, 40]
    assert len(set(found.values())) > 1
    assert found[40] == pytest.approx(independent_miou(store, stage, data, 5), abs=1e-12)
    assert found[40] != pytest.approx(independent_miou(store, stage, data, 8), abs=1e-12), "on five of eight images"


def test_a_training_that_died_resumes_with_its_curve(untrained):
    store, stage, data = untrained
    validation = Validation(data, 4, 8)
    trained(store, stage, validation)
    whole, files = curve(store, stage), files_of(store, stage)
    folder = store.stage_path(stage, "checkpoints")
    store.delete(f"{folder}/{store.names(folder)[-1]}")
    store.delete(store.stage_path(stage, "model.safetensors"))
    trained(store, stage, validation)
    assert curve(store, stage) == whole
    assert files_of(store, stage)["model"] == files["model"]


def test_labels_made_while_it_trains_are_the_same(tmp_path):
    """RRM looks at its network between the steps too."""
    store, plan = RunStore(str(tmp_path)), job_of(tiny_job_of("rrm")).plan()
    stage = next(one for one in plan if one.kind == "train" and validation_of(plan, one, every=2, images=3))
    for one in plan:
        if one.name == stage.name:
            break
        run_stage(store, one)
    trained(store, stage, None, checkpoint_every=3)
    expected = files_of(store, stage)
    store.delete_folder(store.stage_path(stage))
    trained(store, stage, validation_of(plan, stage, every=1, images=3), checkpoint_every=3)
    assert files_of(store, stage) == expected
    assert list(curve(store, stage)) == list(range(1, stage.component.steps + 1))


def test_modes_and_random_numbers_are_as_before(untrained):
    store, stage, data = untrained
    run_stage(store, stage)
    net = load_model(store, stage, "cpu").train()
    net.trunk.eval()
    modes, state = [module.training for module in net.modules()], torch.get_rng_state()
    validator = Validator(Validation(data, 2, 3), store, stage, rank=0, world=1)
    assert validator.miou(net, CPU, step=1, total=9) is None
    assert validator.miou(net, CPU, step=2, total=9) == validator.miou(net, CPU, step=9, total=9)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def _half(rank, port, folder, uri, stage, validation):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    store = RunStore(uri)
    validator = Validator(validation, store, stage, rank=rank, world=2)
    found = validator.miou(load_model(store, stage, "cpu"), CPU, step=4, total=4)
    (folder / f"{rank}.json").write_text(json.dumps([found, len(validator.rows)]))
    torch.distributed.destroy_process_group()


def test_workers_share_the_images(trained_run, tmp_path):
    store, plan = trained_run
    stage, data = stage_named(plan, "retrain"), stage_named(plan, "images-val")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_half, args=(port, tmp_path, store.uri, stage, Validation(data, 4, 5)), nprocs=2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    expected = independent_miou(store, stage, data, 5)
    assert found == [[pytest.approx(expected, abs=1e-12), 3], [pytest.approx(expected, abs=1e-12), 2]]


def test_only_a_training_whose_model_is_scored_is_validated():
    plan = job_of(masked_job()).plan()
    segmenter, retrain, data = (stage_named(plan, name) for name in ("segmenter", "retrain", "images-val"))
    assert validation_of(plan, retrain, every=3, images=7) == Validation(data, 3, 7)
    assert validation_of(plan, segmenter, every=3, images=7) is None
    assert validation_of(plan, retrain, every=None, images=7) is None
    assert validation_of(Plan.of(until(plan.targets, "train")), retrain, every=3, images=7) is None


def test_a_plan_packs_all_data_first():
    for name in ("ficklenet", "rrm", "multi_estimations"):
        kinds = [stage.kind for stage in job_of(tiny_job_of(name)).plan()]
        assert kinds.count("ingest") == 2
        assert kinds[:2] == ["ingest", "ingest"]


def test_images_without_masks_are_no_reason_to_stop(tmp_path):
    store = RunStore(str(tmp_path))
    plan = job_of(masked_job()).plan()
    run_plan(store, plan, last="images-val")
    data, stage = stage_named(plan, "images-val"), stage_named(plan, "segmenter")
    rows = read_shard(store, data, 0, "images")
    write_shard(store, data, 0, "images", [row | {"mask": None} for row in rows])
    validator = Validator(Validation(data, 1, 3), store, stage, rank=0, world=1)
    assert validator.miou(torch.nn.Identity(), CPU, step=1, total=1) is None
