"""One suite over every method: a small version of it, whole, on shapes. A new file in wsss_ray/methods/ is covered."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.local import job_of, run_plan, stage_named, train_stage
from tests.tiny import tiny_job_of, tiny_method
from wsss_ray.core.contracts import Classifier, Learner, OnlineSegmenter, Segmenter
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray, decode_maps
from wsss_ray.engine.loader import ShardedImages, micro_batches
from wsss_ray.engine.networks import build_model
from wsss_ray.methods import methods
from wsss_ray.nets.modules import set_dropout_keys
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

NAMES = sorted(methods())


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory):
    """A method's whole job, run in this process: its name, plan and store."""
    name = request.param
    plan = job_of(tiny_job_of(name)).plan()
    store = RunStore(str(tmp_path_factory.mktemp(name)))
    run_plan(store, plan)
    return name, plan, store


def stages(plan, kind):
    return [stage for stage in plan if stage.kind == kind]


def tags_of(store, stage):
    rows = read_all(store, stage.input("data"), "images").to_pylist()
    return {row["image_id"]: row["tags"] for row in rows}


def test_it_ends_in_a_score(made):
    _, plan, store = made
    last = store.record(plan.targets[-1])
    assert last["kind"] == "evaluate"
    assert last["counts"]["errors"] == 0
    assert 0 <= last["metrics"]["miou"] <= 1
    assert all(store.record(stage)["counts"]["errors"] == 0 for stage in plan)


def test_its_maps_lie_in_0_to_1_and_are_those_of_the_tags(made):
    _, plan, store = made
    for stage in stages(plan, "localize"):
        tags = tags_of(store, stage)
        for row in read_all(store, stage, "maps").to_pylist():
            maps = decode_maps(row)
            assert list(maps.classes) == tags[row["image_id"]], "absent tags have no map"
            for part in (maps.peak_CHW, maps.mean_CHW):
                assert part.min(initial=0) >= 0
                assert part.max(initial=0) <= 1 + 1e-3
            assert maps.peak_CHW.max(initial=0) > 0.5 or not maps.classes


def test_its_seeds_are_tags_background_or_undecided(made):
    _, plan, store = made
    for stage in stages(plan, "seed"):
        tags = tags_of(store, stage)
        only_tags = not stage.optional("model") or stage.component.only_tags
        for row in read_all(store, stage, "seeds").to_pylist():
            label = decode_gray(row["seed"])
            assert label.shape == (32, 32)
            allowed = {0, IGNORE, *(tag + 1 for tag in tags[row["image_id"]])}
            assert not only_tags or set(np.unique(label).tolist()) <= allowed, (stage.name, row["image_id"])


def first_batch(store, stage):
    learner = stage.component
    images = ShardedImages(store, stage, learner.augment, 3)
    (micros,) = micro_batches(images, batch_size=8, start=0, stop=1, rank=0, world=1, micro=8, workers=0)
    (batch,) = micros
    if isinstance(learner, OnlineSegmenter):
        rng = torch.Generator().manual_seed(0)
        seeds = torch.randint(0, 4, (8, 1, 32, 32), generator=rng, dtype=torch.uint8)
        batch = type(batch)(**{**vars(batch), "seeds_BEHW": seeds})
    return batch


def test_its_losses_are_finite_fall_and_see_one_image_at_a_time(made):
    _, plan, store = made
    for stage in stages(plan, "train"):
        learner = stage.component
        assert isinstance(learner, Learner)
        net = build_model(stage)
        net.train()
        batch = first_batch(store, stage)
        whole = learner.loss(net, batch)
        assert all(term.shape == (8,) and torch.isfinite(term).all() for term in whole.values()), stage.name
        alone = type(batch)(**{key: value[2:3] if hasattr(value, "__len__") else value for key, value in vars(batch).items()})
        for name, term in learner.loss(net, alone).items():
            torch.testing.assert_close(term[0], whole[name][2], rtol=1e-4, atol=1e-5, msg=f"{stage.name}: {name}")
        optimizer = learner.optimizer.build(learner.param_groups(net))
        curve = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = torch.stack([term.mean() for term in learner.loss(net, batch).values()]).sum()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        assert all(map(math.isfinite, curve))
        assert np.mean(curve[-3:]) < np.mean(curve[:3]), f"{stage.name}: {curve}"


def test_every_parameter_that_trains_has_a_gradient(made):
    """What has none would stop a distributed training, and says that a branch is cut off."""
    _, plan, store = made
    for stage in stages(plan, "train"):
        net = build_model(stage)
        net.train()
        sum(term.sum() for term in stage.component.loss(net, first_batch(store, stage)).values()).backward()
        grouped = {id(p) for group in stage.component.param_groups(net) for p in group["params"]}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{stage.name}: {name}"
                assert id(parameter) in grouped, f"{stage.name}: {name} is in no group of the optimiser"


def test_its_model_predicts_at_the_size_of_the_image(made):
    _, plan, store = made
    for stage in stages(plan, "train"):
        if isinstance(stage.component, Segmenter):
            net = build_model(stage).eval()
            set_dropout_keys(net, ())
            with torch.inference_mode():
                logits = stage.component.predict(net, torch.rand(2, 3, 33, 27) * 255)
            assert logits.shape == (2, 4, 33, 27)
            again = store.read(store.stage_path(stage, "model.safetensors"))
            assert len(again) > 1000


def test_its_tags_are_scored_one_image_at_a_time_and_not_at_random(made):
    _, plan, _ = made
    for stage in stages(plan, "train"):
        if isinstance(stage.component, Classifier):
            net = build_model(stage).eval()
            image_BCHW = torch.rand(3, 3, 33, 27) * 255
            with torch.inference_mode():
                scores_BK, again_BK = (stage.component.tag_scores(net, image_BCHW) for _ in range(2))
                alone_BK = stage.component.tag_scores(net, image_BCHW[1:2])
            assert scores_BK.shape == (3, 3)
            assert ((scores_BK > 0) & (scores_BK < 1)).all()
            assert torch.equal(scores_BK, again_BK)
            torch.testing.assert_close(alone_BK, scores_BK[1:2], rtol=1e-4, atol=1e-6)


def test_the_tags_of_its_classifiers_are_scored(made):
    name, plan, store = made
    scored = {stage.input("model").id for stage in stages(plan, "classify")}
    classifiers = {stage.id for stage in stages(plan, "train") if isinstance(stage.component, Classifier)}
    assert scored <= classifiers
    if methods()[name].__module__.startswith("wsss_ray."):
        assert scored == classifiers, "a plug-in may leave the scores of tags out, the package does not"
    for stage in stages(plan, "classify"):
        assert 0 <= store.record(stage)["metrics"]["map"] <= 1


def test_it_resumes_at_its_step_and_ends_in_the_same_bytes(made, tmp_path):
    import shutil

    _, plan, store = made
    for stage in stages(plan, "train"):
        shutil.copytree(store.path(), tmp_path / stage.id)
        copy = RunStore(str(tmp_path / stage.id))
        folder = copy.stage_path(stage, "checkpoints")
        copy.delete(f"{folder}/{copy.names(folder)[-1]}")  # the one at the end: what is left is from step 4
        for name in ("model.safetensors", "record.json"):
            copy.delete(copy.stage_path(stage, name))
        train_stage(copy, stage)
        for name in ("model.safetensors", "metrics.jsonl"):
            theirs, ours = (one.read(one.stage_path(stage, name)) for one in (store, copy))
            if name == "metrics.jsonl":
                theirs, ours = ([json.loads(line)["terms"] for line in text.splitlines()] for text in (theirs, ours))
            assert ours == theirs, (stage.name, name)


def test_small_versions_keep_the_plan():
    for name in NAMES:
        big = methods()[name]()
        small = tiny_method(name)
        assert small["name"] == name
        assert set(small) - {"name"} == set(type(big).model_fields)


def test_the_last_stage_is_found_by_name(made):
    _, plan, _ = made
    assert stage_named(plan, plan.targets[-1].name).id == plan.targets[-1].id
