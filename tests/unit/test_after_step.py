"""What a learner knows of the training's progress, and what it may change after each step."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from tests.local import job_of, run_plan, stage_named, train_stage
from tests.shapes import tiny_job
from tests.tiny import tiny_job_of
from wsss_ray.core import IGNORE
from wsss_ray.core.plan import Stage
from wsss_ray.engine.loader import ShardedImages, micro_batches
from wsss_ray.engine.networks import build_model, use_bfloat16
from wsss_ray.engine.online_labels import OnlineBatches, label_makers
from wsss_ray.methods.ficklenet import StochasticClassifier
from wsss_ray.methods.rrm import RrmSegmenter
from wsss_ray.storage.finished import WEIGHTS
from wsss_ray.storage.store import RunStore

CPU = torch.device("cpu")


class Taught(StochasticClassifier):
    """A classifier with a teacher, the running mean of its trunk, and a loss that warms up."""

    in_job_files: ClassVar[bool] = False

    def build(self, num_classes: int) -> nn.Module:
        net = super().build(num_classes)
        net.teacher = copy.deepcopy(net.trunk).requires_grad_(False)
        net.register_buffer("progress", torch.zeros(12))
        return net

    def loss(self, net: nn.Module, batch: Any) -> dict[str, Tensor]:
        terms = super().loss(net, batch)
        return terms | {"warm": batch.progress * terms["classification"]} if batch.progress else terms

    def after_step(self, net: nn.Module, progress: float) -> None:
        for mean, now in zip(net.teacher.parameters(), net.trunk.parameters(), strict=True):
            mean.lerp_(now, 0.1)
        net.progress.copy_(torch.cat([net.progress[1:], torch.tensor([progress])]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store with the images, and the stage of a training with a teacher."""
    store = RunStore(str(tmp_path_factory.mktemp("taught")))
    plan = job_of(tiny_job()).plan()
    run_plan(store, plan, last="images-weak")
    stage = stage_named(plan, "classifier")
    taught = Taught(**dict(stage.component))
    return store, replace(stage, component=taught)


def trained(store: RunStore, stage: Stage, **how: int) -> dict[str, Tensor]:
    store.delete_folder(store.stage_path(stage))
    train_stage(store, stage, **how)
    return load(store.read(store.stage_path(stage, WEIGHTS)))


def test_after_step_comes_once_a_step_whatever_the_micro_batches(data):
    store, stage = data
    whole, parts = trained(store, stage), trained(store, stage, micro_batch=3)
    np.testing.assert_allclose(whole["progress"], (np.arange(12) + 1) / 12, rtol=1e-6)
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)
    trunks = [name for name in whole if name.startswith("trunk.")]
    assert trunks
    assert all(not torch.equal(whole[name], whole[name.replace("trunk.", "teacher.")]) for name in trunks)


def test_the_teacher_is_the_mean_of_the_students(data):
    store, stage = data
    first = {name: value.clone() for name, value in build_model(stage).state_dict().items()}
    one = replace(stage, component=stage.component.model_copy(update={"steps": 1}))
    after = trained(store, one)
    for name in (name for name in first if name.startswith("trunk.")):
        torch.testing.assert_close(after[name.replace("trunk.", "teacher.")], 0.9 * first[name] + 0.1 * after[name])


def test_a_training_that_died_goes_on_with_its_teacher(data):
    store, stage = data
    whole = trained(store, stage, checkpoint_every=4)
    folder = store.stage_path(stage, "checkpoints")
    for name in (store.stage_path(stage, WEIGHTS), f"{folder}/{store.names(folder)[-1]}"):
        store.delete(name)
    train_stage(store, stage, checkpoint_every=4)
    again = load(store.read(store.stage_path(stage, WEIGHTS)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_know_the_progress_before_their_step(data, workers):
    store, stage = data
    images = ShardedImages(store, stage, stage.component.augment, 3)
    given = {"batch_size": 8, "rank": 0, "world": 1, "micro": 3}
    steps = list(micro_batches(images, start=2, stop=5, workers=workers, **given))
    assert [[micro.progress for micro in micros] for micros in steps] == [[0.4] * 3, [0.6] * 3, [0.8] * 3]


class TwoLabels(RrmSegmenter):
    """Two label maps of each crop: the usual one, and where it is background."""

    in_job_files: ClassVar[bool] = False
    online_channels: ClassVar[int] = 2

    def online_label(self, evidence: Any) -> Any:
        label_HW = super().online_label(evidence)
        return np.stack([label_HW, np.where(label_HW == IGNORE, IGNORE, label_HW == 0).astype(np.uint8)])


@pytest.mark.parametrize("ahead", [0, 2])
def test_online_labels_of_several_channels(tmp_path, ahead):
    store, plan = RunStore(str(tmp_path)), job_of(tiny_job_of("rrm")).plan()
    run_plan(store, plan, last="images-weak")
    stage = stage_named(plan, "segmenter")
    learner = TwoLabels(**dict(stage.component) | {"ahead": ahead})
    net, images = build_model(stage), ShardedImages(store, stage, learner.augment, 3)
    source = micro_batches(images, batch_size=8, start=0, stop=4, rank=0, world=1, micro=3, workers=0)
    with label_makers(learner, 0) as makers:
        online = OnlineBatches(net, learner, _one_is_strong(source), makers, start=0, device=CPU, made={})
        first = next(online)
        waiting = online.pending()
        again = OnlineBatches(net, learner, iter([]), makers, start=0, device=CPU, made={})
    assert [batch.seeds_BEHW.shape[:2] for batch in first] == [(3, 2), (3, 2), (2, 2)]
    label_BHW, other_BHW = first[1].seeds_BEHW[:, 0], first[1].seeds_BEHW[:, 1]
    assert torch.equal(other_BHW == 1, label_BHW == 0)
    assert torch.equal(other_BHW == IGNORE, label_BHW == IGNORE)
    assert (first[0].seeds_BEHW[0] == first[0].seeds_BEHW[0, :1]).all(), "a human mask is the label in every channel"
    assert {step: label.shape[:2] for step, label in waiting.items()} == dict.fromkeys(range(1, 1 + ahead), (8, 2))
    with pytest.raises(StopIteration):
        next(again)


def _one_is_strong(source: Any) -> Any:
    for micros in source:
        first = micros[0]
        mask = torch.full((len(first.ids), 1, *first.image_BCHW.shape[2:]), 2, dtype=torch.uint8)
        strong = torch.zeros(len(first.ids), dtype=torch.bool)
        strong[0] = True
        yield [replace(first, seeds_BEHW=mask, strong_B=strong), *micros[1:]]


class Nested(nn.Module):
    """A part that returns a nest of tensors."""

    Found = namedtuple("Found", "tokens attention")

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return self.Found(y, [y, (y.argmax(-1), {"map": y})])


def test_bfloat16_takes_parts_that_return_several_tensors():
    net = nn.Sequential(Nested())
    plain = net[0](torch.ones(2, 4))
    use_bfloat16(net, CPU)
    found = net[0](torch.ones(2, 4))
    assert isinstance(found, Nested.Found)
    index, nest = found.attention[1]
    assert [found.tokens.dtype, found.attention[0].dtype, index.dtype, nest["map"].dtype] == [
        torch.float32,
        torch.float32,
        torch.int64,
        torch.float32,
    ]
    assert not torch.equal(found.tokens, plain.tokens)
    torch.testing.assert_close(found.tokens, plain.tokens, rtol=0.02, atol=0.02)
