"""Training without Ray: what must not change a result, and resuming at the exact step."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load

from tests.local import job_of, run_plan, run_stage, stage_named, train_stage
from tests.shapes import tiny_job
from wsss_ray.core.optim import Sgd
from wsss_ray.engine.loader import ShardedImages, global_batch, micro_batches
from wsss_ray.engine.loop import _Totals, fit
from wsss_ray.engine.networks import build_model, load_model
from wsss_ray.engine.training import BackgroundWriter, TrainingError, _agree_on_start
from wsss_ray.engine.training_log import MetricsLog
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.tail import LineTail


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A store with everything up to the seeds."""
    store = RunStore(str(tmp_path_factory.mktemp("store")))
    plan = job_of(tiny_job()).plan()
    run_plan(store, plan, last="seeds")
    return store, plan


def losses(store, stage):
    return [json.loads(line)["loss"] for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]


def fresh(seeded, tmp_path, name):
    """A store that shares the finished stages, and one training stage still to run."""
    import shutil

    store, plan = seeded
    shutil.copytree(store.path(), tmp_path / "copy")
    copy = RunStore(str(tmp_path / "copy"))
    stage = stage_named(plan, name)
    copy.delete_folder(copy.stage_path(stage))
    return copy, stage


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
def test_micro_batches_do_not_change_the_losses(seeded, tmp_path, name):
    curves = []
    for micro in (64, 3):
        store, stage = fresh(seeded, tmp_path / str(micro), name)
        train_stage(store, stage, micro_batch=micro)
        curves.append(losses(store, stage))
    assert len(curves[0]) == stage.component.steps
    assert curves[0][0] != curves[0][-1]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
def test_a_training_that_died_resumes_at_its_step_and_ends_equal(seeded, tmp_path, name):
    whole, stage = fresh(seeded, tmp_path / "whole", name)
    train_stage(whole, stage, checkpoint_every=2)
    parts, _ = fresh(seeded, tmp_path / "parts", name)
    train_stage(parts, stage, checkpoint_every=2)
    folder = parts.stage_path(stage, "checkpoints")
    assert len(parts.names(folder)) == 2, "only the last two checkpoints are kept"
    parts.delete(f"{folder}/{parts.names(folder)[-1]}")  # as if the worker had died before the last one
    parts.delete(parts.stage_path(stage, "model.safetensors"))
    train_stage(parts, stage, checkpoint_every=2)
    model = "model.safetensors"
    assert whole.read(whole.stage_path(stage, model)) == parts.read(parts.stage_path(stage, model))
    assert losses(whole, stage) == losses(parts, stage)


def test_the_global_batch_is_the_same_for_any_number_of_workers(seeded):
    store, plan = seeded
    stage = stage_named(plan, "classifier")
    learner = stage.component
    images = ShardedImages(store, stage, learner.augment, 3)

    def of(world, micro):
        parts = [
            list(micro_batches(images, batch_size=8, start=2, stop=5, rank=rank, world=world, micro=micro, workers=0))
            for rank in range(world)
        ]
        steps = []
        for shares in zip(*parts, strict=True):
            found = {}
            for share in shares:
                for batch in share:
                    for row, image_id in enumerate(batch.ids):
                        found[image_id, batch.keys_B[row]] = batch.image_BCHW[row]
            steps.append(found)
        return steps

    alone = of(1, 64)
    for world, micro in ((2, 64), (3, 2), (8, 1)):
        for ours, theirs in zip(alone, of(world, micro), strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_image_is_seen_once_an_epoch():
    elements = [e for step in range(6) for e in global_batch(20, 10, 3, step)]
    for epoch in range(3):
        assert sorted(e.index for e in elements if e.epoch == epoch) == list(range(20))
    assert [e.index for e in elements[:20]] != [e.index for e in elements[20:40]]


def test_workers_can_be_processes(seeded):
    store, plan = seeded
    stage = stage_named(plan, "classifier")
    images = ShardedImages(store, stage, stage.component.augment, 3)
    call = dict(batch_size=8, start=0, stop=2, rank=0, world=1, micro=8)
    here = list(micro_batches(images, workers=0, **call))
    there = list(micro_batches(images, workers=1, **call))
    assert all(torch.equal(a[0].image_BCHW, b[0].image_BCHW) for a, b in zip(here, there, strict=True))


def test_a_loss_that_is_not_finite_stops_with_the_images(seeded, tmp_path):
    job = tiny_job()
    job["method"]["classifier"]["optimizer"] = {"kind": "sgd", "lr": 1e20}
    store, _ = fresh(seeded, tmp_path, "classifier")
    stage = stage_named(job_of(job).plan(), "classifier")
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+ .*weak/.*lower optimizer.lr"):
        train_stage(store, stage)


def test_a_loss_that_is_not_finite_changes_no_weight(seeded):
    store, plan = seeded
    stage = stage_named(plan, "classifier")
    learner = stage.component
    images = ShardedImages(store, stage, learner.augment, 3)
    net = build_model(stage)
    optimizer = Sgd(lr=1e20).build(learner.param_groups(net))
    batches = micro_batches(images, batch_size=8, start=0, stop=4, rank=0, world=1, micro=4, workers=0)
    device = torch.device("cpu")
    steps = fit(net, learner, optimizer, batches, start=0, total=4, num_images=len(images), device=device)
    assert next(steps).step == 1
    after_one = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        next(steps)
    assert all(torch.equal(value, after_one[name]) for name, value in net.state_dict().items())


def test_bfloat16_rounds_and_nothing_else(seeded, tmp_path):
    """It is another stage; its weights have the same names in float32, and it follows the losses to three digits or so."""
    job = tiny_job()
    faster = job_of(job | {"run": {"precision": "bfloat16"}}).plan()
    for name in ("classifier", "segmenter"):
        copy, stage = fresh(seeded, tmp_path / name, name)
        quick = (
            stage_named(faster, "classifier")
            if name == "classifier"
            else type(stage)(
                stage.kind, name, stage.component.model_copy(update={"precision": "bfloat16"}), stage.inputs, stage.seed
            )
        )
        assert quick.id != stage.id
        train_stage(copy, stage)
        train_stage(copy, quick)
        first, second = losses(copy, stage), losses(copy, quick)
        assert first != second
        np.testing.assert_allclose(second, first, rtol=0.03)
        ours = load(copy.read(copy.stage_path(quick, "model.safetensors")))
        assert {key: value.dtype for key, value in ours.items()} == {
            key: value.dtype for key, value in load(copy.read(copy.stage_path(stage, "model.safetensors"))).items()
        }


def test_strong_images_train_on_their_masks(seeded, tmp_path):
    """Semi-supervised training is data: human masks replace the seeds, and the full loss appears."""
    from dataclasses import replace

    store, plan = seeded
    segmenter = stage_named(plan, "segmenter")
    weak = segmenter.input("data")
    stage = replace(segmenter, inputs=(*segmenter.inputs, ("strong", weak)))
    images = ShardedImages(store, stage, stage.component.augment, 3)
    batch = next(micro_batches(images, batch_size=4, start=0, stop=1, rank=0, world=1, micro=4, workers=0))[0]
    assert batch.strong_B.all()
    assert (batch.seeds_BEHW != 255).all(), "masks decide every pixel, seeds do not"
    net = load_or_build(store, stage)
    from wsss_ray.nets.modules import set_dropout_keys

    set_dropout_keys(net, batch.keys_B)
    assert set(stage.component.loss(net, batch)) == {"seed", "boundary", "full"}


def load_or_build(store, stage):
    from wsss_ray.engine.networks import build_model

    return build_model(stage)


def test_retrain_starts_from_the_segmenter(seeded, tmp_path):
    import shutil

    store, plan = seeded
    shutil.copytree(store.path(), tmp_path / "copy")
    copy = RunStore(str(tmp_path / "copy"))
    job = tiny_job()
    job["method"]["retrain"] |= {"steps": 0}
    plan = job_of(job).plan()
    run_plan(copy, plan, last="retrain")
    first = load(copy.read(copy.stage_path(stage_named(plan, "segmenter"), "model.safetensors")))
    second = load_model(copy, stage_named(plan, "retrain"), "cpu").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    run_stage(copy, stage_named(plan, "miou"))


def _one_of_two(rank, port, folder):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    start = _agree_on_start(None, 40 if rank == 0 else 0)
    try:
        _agree_on_start("no such file" if rank == 1 else None, 0)
        said = "nothing"
    except TrainingError as error:
        said = str(error)
    (folder / f"{rank}.txt").write_text(f"{start} {said}")
    torch.distributed.destroy_process_group()


def test_workers_agree_on_the_start_and_on_what_is_wrong(tmp_path):
    """Otherwise the one without a mistake would wait for the other's gradients until a time-out."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, args=(port, tmp_path), nprocs=2)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["40 no such file"] * 2


def _sums_of_two(rank, port, folder):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    totals = _Totals(torch.device("cpu"), distributed=True)
    terms = [({"seed": 1.0}, {"seed": 2.0, "full": 4.0}), ({"seed": 1.0}, {"seed": 0.5}), ({"new": 3.0}, {"full": 5.0})]
    found = [totals.begin({name: torch.tensor(value) for name, value in step[rank].items()})() for step in terms]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_workers_add_up_terms_that_not_all_of_them_have(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_sums_of_two, args=(port, tmp_path), nprocs=2)
    expected = [{"full": 4.0, "seed": 3.0}, {"seed": 1.5}, {"full": 5.0, "new": 3.0}]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [expected] * 2


def test_what_is_written_beside_a_training_keeps_its_order_and_tells_what_failed(tmp_path):
    store, done = RunStore(str(tmp_path)), []
    with BackgroundWriter() as writer:
        writer.begin(lambda: done.append("metrics"), lambda: done.append("checkpoint"))
        writer.begin(lambda: done.append("metrics again"))
    assert done == ["metrics", "checkpoint", "metrics again"]
    assert not writer.busy()
    store.write(store.path("file"), b"")
    with pytest.raises(OSError, match="file"), BackgroundWriter() as writer:
        writer.begin(lambda: store.write(store.path("file", "below"), b""), lambda: done.append("checkpoint, no metrics"))
    assert len(done) == 3
    with pytest.raises(KeyError), BackgroundWriter() as writer:  # what ended the training is what is told
        writer.begin(lambda: store.write(store.path("file", "below"), b""), {}["the training's mistake"])


def test_metrics_are_read_by_what_is_new_and_dropped_where_one_resumes(seeded, tmp_path):
    from wsss_ray.engine.loop import Step

    stage, store = stage_named(seeded[1], "classifier"), RunStore(str(tmp_path))
    log, tail = MetricsLog(store, stage, 0, every=1), LineTail(store, store.stage_path(stage, "metrics.jsonl"))

    def add(log, *steps):
        for step in steps:
            log.add(Step(step=step, epoch=step / 3, terms={"a": 1.0, "b": 0.5}, lr=0.1, seconds=0.5, waited=0.1), 8, flush=False)
        log.take()()
        return [json.loads(line)["step"] for line in tail.lines()]

    assert tail.lines() == []
    assert add(log, 1, 2) == [1, 2]
    assert tail.lines() == []
    assert add(log, 3) == [3]
    again = MetricsLog(store, stage, 2, every=1)
    assert again.loss == 1.5
    assert not again.due()
    assert add(again) == [1, 2], "the file is another one: all of it is new"
    assert add(again, 3, 4) == [3, 4]
    assert not again.due(), "all is written"
    line = json.loads(store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()[-1])
    assert abs(line.pop("time") - time.time()) < 60
    assert line == {
        "step": 4,
        "epoch": 1.3333,
        "loss": 1.5,
        "terms": {"a": 1.0, "b": 0.5},
        "lr": 0.1,
        "images_per_s": 16.0,
        "wait_share": 0.2,
    }
