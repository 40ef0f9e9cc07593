"""Labels made while a network trains: what they rest on, who makes them, and that a resumed training sees the same ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.local import job_of, run_plan, stage_named, train_stage
from tests.tiny import tiny_job_of
from wsss_ray.core.values import IGNORE, Batch
from wsss_ray.engine.checkpoints import load_checkpoint
from wsss_ray.engine.loader import ShardedImages, micro_batches
from wsss_ray.engine.networks import build_model
from wsss_ray.engine.online_labels import OnlineBatches, gather, label_makers
from wsss_ray.storage.store import RunStore

CPU = torch.device("cpu")


def rrm(ahead=1, **segmenter):
    job = tiny_job_of("rrm")
    job["method"]["segmenter"] |= {"ahead": ahead, "steps": 8, **segmenter}
    return job_of(job).plan()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    store = RunStore(str(tmp_path_factory.mktemp("online")))
    run_plan(store, rrm(), last="images-weak")
    return store


def batches(store, stage, start=0, stop=8, micro=8, rank=0, world=1):
    images = ShardedImages(store, stage, stage.component.augment, 3)
    return micro_batches(images, batch_size=8, start=start, stop=stop, rank=rank, world=world, micro=micro, workers=0)


def terms(store, stage):
    text = store.read(store.stage_path(stage, "metrics.jsonl")).decode()
    return [json.loads(line)["terms"] for line in text.splitlines()]


def labels_of(store, ahead, *, micro=8, change=True, workers=0):
    """The labels of six steps, the network changing by its number after each."""
    stage = stage_named(rrm(ahead), "segmenter")
    net, learner = build_model(stage), stage.component
    with torch.no_grad():
        for parameter in net.blocks.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    found = []
    with label_makers(learner, workers) as makers:
        source = batches(store, stage, stop=6, micro=micro)
        online = OnlineBatches(net, learner, source, makers, start=0, device=CPU, made={})
        for step, micros in enumerate(online):
            found.append(torch.cat([batch.seeds_BEHW for batch in micros]))
            if change:
                with torch.no_grad():
                    next(net.blocks.parameters()).mul_(-1 if step % 2 else 1).add_(0.3 * step)
    return torch.stack(found)


def test_labels_rest_on_the_network_as_it_was_ahead_steps_before(data):
    now, one, two = (labels_of(data, ahead) for ahead in (0, 1, 2))
    fixed = labels_of(data, 0, change=False)
    assert torch.equal(now[0], one[0])
    assert torch.equal(one[:2], fixed[:2]), "the labels of the first two steps rest on the first network"
    assert torch.equal(two[:3], fixed[:3])
    assert not torch.equal(now[2:], one[2:])
    assert not torch.equal(one[2:], two[2:])


def test_who_makes_the_labels_changes_nothing(data):
    alone = labels_of(data, 1)
    assert torch.equal(alone, labels_of(data, 1, micro=3))
    assert torch.equal(alone, labels_of(data, 1, workers=2))


def test_the_last_steps_have_labels_too(data):
    assert len(labels_of(data, 5)) == 6


def test_nothing_is_labelled_outside_an_image_and_masks_stay(data):
    stage = stage_named(rrm(), "segmenter")
    (first,), *_ = batches(data, stage, stop=1)
    valid = first.valid_BHW.clone()
    valid[:, :5] = False
    strong = torch.tensor([True] + [False] * 7)
    mask = torch.full((8, 1, 32, 32), 2, dtype=torch.uint8)
    batch = Batch(**{**vars(first), "valid_BHW": valid, "strong_B": strong, "seeds_BEHW": mask})
    with label_makers(stage.component, 0) as makers:
        online = OnlineBatches(build_model(stage), stage.component, iter([[batch]]), makers, start=0, device=CPU, made={})
        (labelled,) = next(online)
    assert (labelled.seeds_BEHW[0, :, 5:] == 2).all(), "a human mask is not made anew"
    assert (labelled.seeds_BEHW[1:, 0, :5] == IGNORE).all()
    for label, tags in zip(labelled.seeds_BEHW[1:], batch.tags_BK[1:], strict=True):
        assert set(np.unique(label).tolist()) <= {0, IGNORE, *(int(k) + 1 for k in tags.nonzero())}


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_training_that_died_goes_on_with_the_labels_it_had_begun(data, tmp_path, ahead):
    import shutil

    stage = stage_named(rrm(ahead), "segmenter")
    for name in ("whole", "parts"):
        shutil.copytree(data.path(), tmp_path / name)
    whole, parts = (RunStore(str(tmp_path / name)) for name in ("whole", "parts"))
    for store in (whole, parts):
        train_stage(store, stage, checkpoint_every=2)
    assert load_checkpoint(whole, stage, 6, "cpu").labels.keys() == set(range(6, min(6 + ahead, 8)))
    folder = parts.stage_path(stage, "checkpoints")
    parts.delete(f"{folder}/{parts.names(folder)[-1]}")
    parts.delete(parts.stage_path(stage, "model.safetensors"))
    train_stage(parts, stage, checkpoint_every=2, label_workers=2)
    model = "model.safetensors"
    assert whole.read(whole.stage_path(stage, model)) == parts.read(parts.stage_path(stage, model))
    assert terms(whole, stage) == terms(parts, stage)


def test_both_branches_reach_the_trunk_and_labels_carry_no_gradient(data):
    stage = stage_named(rrm(0), "segmenter")
    net, learner = build_model(stage), stage.component
    with label_makers(learner, 0) as makers:
        ((batch,),) = OnlineBatches(net, learner, batches(data, stage, stop=1), makers, start=0, device=CPU, made={})
    assert all(parameter.grad is None for parameter in net.parameters()), "making labels leaves no gradient"
    net.train()
    trunk = next(net.trunk.parameters())
    for name in ("classification", "background", "foreground", "energy"):
        net.zero_grad()
        learner.loss(net, batch)[name].sum().backward()
        assert trunk.grad.abs().sum() > 0, f"{name} reaches the trunk"
        of_blocks = [p.grad is not None and bool(p.grad.abs().sum()) for p in net.blocks.parameters()]
        of_head = [p.grad is not None and bool(p.grad.abs().sum()) for p in net.head.parameters()]
        assert any(of_blocks) == (name == "classification"), name
        assert any(of_head) == (name != "classification"), name


@pytest.mark.parametrize("world", [1, 2, 3])
def test_labels_begun_by_some_workers_go_on_with_others(data, monkeypatch, world):
    """Pending labels of two workers, gathered as for a checkpoint, are what one, two or three workers go on with."""
    stage = stage_named(rrm(1), "segmenter")
    net, learner = build_model(stage).eval(), stage.component

    def begun(rank, size, made, start):
        source = batches(data, stage, start=start, micro=2, rank=rank, world=size)
        with label_makers(learner, 0) as makers:
            online = OnlineBatches(net, learner, source, makers, start=start, device=CPU, made=made)
            return torch.cat([batch.seeds_BEHW[:, 0] for batch in next(online)]), online.pending()

    parts = [begun(rank, 2, {}, 0)[1] for rank in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda: 2)
        patch.setattr(torch.distributed, "all_gather_object", lambda found, mine: found.__setitem__(slice(None), parts))
        whole = gather(parts[0])
    assert whole.keys() == {1}
    marked = {1: torch.arange(8, dtype=torch.uint8)[:, None, None].expand(8, 32, 32).contiguous() + 100}
    expected = torch.cat([part[1] for part in (begun(0, 1, {}, 0)[1],)])
    assert torch.equal(whole[1], expected)
    for rank in range(world):
        seen, _ = begun(rank, world, {1: marked[1][rank::world]}, 1)
        inside = torch.where(seen == IGNORE, 0, seen).flatten(1).amax(dim=1)
        assert inside.tolist() == [100 + k for k in range(rank, 8, world)]


def test_evidence_leaves_the_mode_of_the_network(data):
    stage = stage_named(rrm(0), "segmenter")
    net = build_model(stage)
    (micros,) = batches(data, stage, stop=1)
    for mode in (True, False):
        net.train(mode)
        stage.component.evidence(net, micros[0])
        assert net.training is mode
