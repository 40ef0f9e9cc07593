"""Scores of tags against scikit-learn and against all orders of a few images, and the stage that makes them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from tests.local import job_of, recommit, run_plan, stage_named
from tests.tiny import tiny_job_of
from wsss_ray.core.contracts import Classifier
from wsss_ray.core.graph import Plan, until
from wsss_ray.data.codecs import decode_gray, decode_rgb, encode_labels
from wsss_ray.data.transforms import RandomCrop, Warp
from wsss_ray.engine.networks import load_model
from wsss_ray.engine.scoring import score_tags
from wsss_ray.engine.workers import worker_class
from wsss_ray.methods.cam import CamClassifier
from wsss_ray.methods.ficklenet import StochasticClassifier
from wsss_ray.nets.small import SmallNet
from wsss_ray.ops.multiscale import to_tensor
from wsss_ray.ops.tags import average_precision, chance, f1
from wsss_ray.storage.shards import read_all, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

TRUNK = SmallNet(widths=(8, 16), strides=(2, 1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A FickleNet up to the score of its classifier's tags."""
    plan = job_of(tiny_job_of("ficklenet")).plan()
    store = RunStore(str(tmp_path_factory.mktemp("tags")))
    run_plan(store, plan, last="tag_quality")
    return store, plan


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_and_f1_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    true = rng.random(40) < 0.3
    score = rng.choice(np.linspace(0, 1, 1 + seed), 40).astype(np.float32)  # few values: images share places
    assert average_precision(score, true) == pytest.approx(average_precision_score(true, score), abs=1e-12)
    assert f1(score, true) == pytest.approx(f1_score(true, score >= 0.5), abs=1e-12)


def test_a_class_that_no_image_has_scores_nothing():
    none = np.zeros(3, bool)
    assert math.isnan(average_precision(np.array([0.9, 0.1, 0.5], np.float32), none))
    assert math.isnan(f1(np.array([0.4, 0.1, 0.2], np.float32), none))
    assert f1(np.array([0.9, 0.1, 0.2], np.float32), none) == 0


@pytest.mark.parametrize("images", range(1, 8))
def test_chance_is_the_mean_and_deviation_over_all_orders(images):
    order = -np.arange(images, dtype=np.float32)
    for tagged in range(1, images + 1):
        orders = [np.isin(np.arange(images), places) for places in itertools.combinations(range(images), tagged)]
        found = [average_precision(order, true) for true in orders]
        assert chance(images, tagged) == pytest.approx((np.mean(found), np.std(found)), abs=1e-7)


def test_chance_on_many_images_is_near_the_share_of_tagged_ones():
    mean, deviation = chance(20000, 4000)
    assert mean == pytest.approx(0.2, rel=0.01)
    assert deviation == pytest.approx(0.2 * math.sqrt(0.8 / 4000), rel=0.05)


def test_a_warp_shows_the_network_the_square_and_a_crop_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    whole = Warp(size=16).whole(image)
    sample, _ = Warp(size=16, flip=False)(image, np.zeros((0, 20, 30), np.uint8), np.random.default_rng(0))
    assert np.array_equal(whole, sample)
    assert RandomCrop(size=16).whole(image) is image


@pytest.mark.parametrize("selection", ["stochastic", "general_dropout", "deterministic"])
def test_the_tags_of_ficklenet_are_those_of_its_mean_logits(selection):
    torch.manual_seed(0)
    learner = StochasticClassifier(trunk=TRUNK, kernel_size=5, dropout_rate=0.7, selection=selection)
    net, image = learner.build(3).eval(), torch.rand(2, 3, 24, 32) * 255
    net.weight.data *= 100
    with torch.inference_mode():
        scores = learner.tag_scores(net, image)
        drawn = torch.stack([net(image, (2 * key, 2 * key + 1)) for key in range(2000)])
    far = (scores.logit() - drawn.mean(dim=0)).abs()
    assert (far <= 4 * drawn.std(dim=0) / 2000**0.5 + 1e-4).all(), (far, drawn.std(dim=0))


def test_the_tags_of_several_blocks_are_the_mean_of_their_probabilities():
    torch.manual_seed(0)
    learner = CamClassifier(trunk=TRUNK, rates=(1, 2), hidden=8)
    net, image = learner.build(3).eval(), torch.rand(2, 3, 24, 32) * 255
    with torch.inference_mode():
        first, second = learner.tag_scores(net, image), net.cams(image).mean(dim=(-2, -1))
    torch.testing.assert_close(first, (second[:, 0].sigmoid() + second[:, 1].sigmoid()) / 2)


def test_the_stage_holds_the_scores_of_its_classifier_and_the_tags_of_the_data(made):
    store, plan = made
    stage = stage_named(plan, "tag_quality")
    images = read_all(store, stage.input("data"), "images").to_pylist()
    rows = read_all(store, stage, "tag_scores").to_pylist()
    assert [(row["image_id"], row["tags"]) for row in rows] == [(image["image_id"], image["tags"]) for image in images]
    training = stage.input("model")
    net = load_model(store, training, "cpu")
    with torch.inference_mode():
        for row, image in zip(rows, images, strict=True):
            image_1CHW = to_tensor(decode_rgb(image["image"]), torch.device("cpu"))
            assert row["scores"] == training.component.tag_scores(net, image_1CHW)[0].tolist()


def test_the_metrics_are_those_of_scikit_learn(made):
    store, plan = made
    stage = stage_named(plan, "tag_quality")
    rows, metrics = read_all(store, stage, "tag_scores").to_pylist(), store.record(stage)["metrics"]
    score = np.array([row["scores"] for row in rows], np.float32)
    true = np.array([[k in row["tags"] for k in range(3)] for row in rows])
    assert metrics["scored"] == 8
    assert metrics["positives"] == true.sum(axis=0).tolist()
    assert metrics["ap"] == pytest.approx([average_precision_score(true[:, k], score[:, k]) for k in range(3)])
    assert metrics["map"] == pytest.approx(average_precision_score(true, score, average="macro"))
    assert metrics["f1"] == pytest.approx(f1_score(true, score >= 0.5, average="macro", zero_division=0))
    assert metrics["chance"] == pytest.approx(np.mean([chance(8, count)[0] for count in metrics["positives"]]))
    assert metrics["chance_deviation"] == pytest.approx(np.mean([chance(8, count)[1] for count in metrics["positives"]]))


def test_classes_without_an_image_and_failed_images_do_not_count(made, tmp_path):
    _, plan = made
    stage, store = stage_named(plan, "tag_quality"), RunStore(str(tmp_path))
    rows = [([0.9, 0.2, 0.7], [0]), ([0.4, 0.3, 0.1], [0, 1]), ([0.3, 0.1, 0.2], []), (None, [])]
    write_shard(store, stage, 0, "tag_scores", [{"image_id": str(k), "scores": s, "tags": t} for k, (s, t) in enumerate(rows)])
    metrics = score_tags(store, stage)
    assert (metrics["scored"], metrics["positives"], metrics["ap"]) == (3, [2, 1, 0], [1.0, 1.0, None])
    assert metrics["class_f1"] == [pytest.approx(2 / 3), 0.0, 0.0]
    assert (metrics["map"], metrics["f1"]) == (1.0, pytest.approx(1 / 3))


def test_an_image_without_tags_gets_those_of_its_mask(made, tmp_path):
    import shutil

    shutil.copytree(made[0].path(), tmp_path / "store")
    store, stage = RunStore(str(tmp_path / "store")), stage_named(made[1], "tag_quality")
    data = stage.input("data")
    rows = read_shard(store, data, 0, "images")
    masks = [decode_gray(row["mask"]) for row in rows]
    masks[0][:2], masks[1][:] = 255, 0
    kept = rows[7]["tags"]
    for row, mask in zip(rows, masks, strict=True):
        row |= {"tags": kept if row is rows[7] else [], "mask": encode_labels(mask)}
    rows[6]["mask"] = None
    store.delete(shard_path(store, data, 0))
    store.delete(shard_path(store, stage, 0))
    write_shard(store, data, 0, "images", rows)
    recommit(store, data)
    worker_class(stage)(store, stage)(0)
    found = [row["tags"] for row in read_shard(store, stage, 0, "tag_scores")]
    assert found == [*([k for k in range(3) if (mask == k + 1).any()] for mask in masks[:6]), [], kept]
    assert found[1] == []
    assert any(found[:6])


def test_records_of_images_count_the_tags(made):
    store, plan = made
    stage = stage_named(plan, "images-weak")
    rows = read_all(store, stage, "images").to_pylist()
    assert store.record(stage)["metrics"] == {"tagged": [sum(k in row["tags"] for row in rows) for k in range(3)]}


def test_batches_give_the_same_scores(made, tmp_path):
    import shutil

    shutil.copytree(made[0].path(), tmp_path / "store")
    store, stage = RunStore(str(tmp_path / "store")), stage_named(made[1], "tag_quality")
    store.delete(shard_path(store, stage, 0))
    worker_class(stage)(store, stage, batch=4)(0)
    ours, theirs = (np.array([row["scores"] for row in read_shard(one, stage, 0, "tag_scores")]) for one in (store, made[0]))
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def names(method: str, **fields: object) -> list[str]:
    spec = tiny_job_of(method)
    spec["method"] |= fields
    return [stage.name for stage in job_of(spec).plan() if stage.kind == "classify"]


def test_methods_score_the_tags_of_every_classifier_that_they_train():
    classifier = tiny_job_of("cam")["method"]["classifier"]
    for method in ("cam", "dsrg", "ficklenet", "mdc", "seeds"):
        assert names(method) == ["tag_quality"], method
    assert names("multi_estimations") == ["tag_quality-1", "tag_quality-2"]
    assert names("rrm") == ["joint_tag_quality"]
    assert names("rrm", classifier=classifier) == ["tag_quality", "joint_tag_quality"]
    assert names("deeplab") == names("noisy_masks") == []
    assert names("deeplab", classifier=classifier) == ["tag_quality"]


def test_nothing_is_scored_without_validation_images_or_without_a_training():
    job = job_of(tiny_job_of("ficklenet"))
    from wsss_ray.data.stages import stages_of

    data = stages_of(job.data)
    kinds = {stage.kind for stage in Plan.of(job.method.plan(replace(data, val=None)))}
    assert "classify" not in kinds
    idle = job.method.everywhere(Classifier, steps=0)
    assert "classify" not in {stage.kind for stage in Plan.of(idle.plan(data))}


def test_a_plan_that_stops_early_leaves_out_scores_of_tags(made):
    for kind in ("localize", "seed", "train"):
        assert "classify" not in {stage.kind for stage in Plan.of(until(made[1].targets, kind))}


def test_show_prints_the_scores_of_tags_and_the_doubts(made, capsys):
    from wsss_ray.cli.show import show

    store, plan = made
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    store.write_json(store.run_path("tiny", "run.json"), {"name": "tiny", "stages": stages})
    show("tiny", store.path())
    lines = capsys.readouterr().out.splitlines()
    metrics = store.record(stage_named(plan, "tag_quality"))["metrics"]
    assert ["tags", "images", "mAP", "F1", "mAP", "by", "chance"] in [line.split() for line in lines]
    expected = ["tag_quality", "8", *(f"{metrics[key]:.3f}" for key in ("map", "f1", "chance"))]
    assert expected in [line.split() for line in lines]
    few = store.record(stage_named(plan, "images-weak"))["metrics"]["tagged"]
    assert any(line.startswith("warning: images-weak: 3 of 3 classes have fewer than 20 images: square ") for line in lines), few


def test_the_report_shows_the_tags_of_each_class_and_the_doubts(made):
    from wsss_ray.reporting.report.sections import Facts, results, warnings

    store, plan = made
    facts = Facts.read(store, plan)
    metrics = store.record(stage_named(plan, "tag_quality"))["metrics"]
    page = str(results(facts).body)
    assert "Classifier on the validation images: tags of each class" in page
    for name, ap in zip(("square", "disc", "bar"), metrics["ap"], strict=True):
        (row,) = [line for line in page.split("<tr>") if f">{name}<" in line]
        assert f">{ap:.3f}<" in row
    said = str(warnings(facts).body)
    assert "<strong>Training images</strong> <small>images-weak</small><span>3 of 3 classes have fewer than 20 images: " in said


def test_a_sweep_ranks_by_the_map_of_tags_too(made):
    from wsss_ray.runners.trial import scores

    store, plan = made
    assert scores(plan, store) == {"tag_quality": store.record(stage_named(plan, "tag_quality"))["metrics"]["map"]}


def test_loggers_get_the_average_precision_of_each_class(made):
    from wsss_ray.reporting.loggers.figures import Figures

    store, plan = made
    stage = stage_named(plan, "tag_quality")
    (row,) = Figures(store, stage, after=0).rows()
    metrics = store.record(stage)["metrics"]
    assert {name: row.figures[name] for name in ("map", "ap/square")} == {"map": metrics["map"], "ap/square": metrics["ap"][0]}
