"""Every method on a device that is not the CPU, without a GPU: the stand-in finds tensors on the wrong device, and crossings."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.devices import (
    LOCALIZE,
    STEP,
    check_equal_bytes,
    check_losses_fall,
    check_rows,
    check_trainings,
    deterministic,
    made,
    train,
)
from tests.stand_in import NAME, Watch, in_own_process, stand_in
from tests.tiny import skip_without_extras
from wsss_ray.core.values import Maps
from wsss_ray.methods import methods
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.ops.losses import multilabel_bce

NAMES = sorted(methods())


@pytest.fixture(scope="module")
def there():
    """Call a function in a process that has the stand-in."""
    with in_own_process() as call:
        yield call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("devices"))


@pytest.mark.parametrize("name", NAMES)
def test_its_trainings_run_on_another_device(there, folder, name):
    skip_without_extras(name)
    there(check_trainings, name, folder, True, NAME, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_its_maps_labels_and_scores_are_made_on_another_device(there, folder, name):
    skip_without_extras(name)
    there(check_rows, name, folder, True, NAME, 1e-5, 1.0)


def test_its_losses_fall_on_another_device(there, folder):
    there(check_losses_fall, "mdc", folder, True, NAME, 10)


def test_two_trainings_end_in_the_same_bytes(folder):
    """What `make gpu` checks on CUDA, here on the CPU."""
    with deterministic():
        check_equal_bytes("deeplab", folder, "cpu")
    assert not torch.are_deterministic_algorithms_enabled()


# --- the stand-in finds mistakes


class HostMask(CamClassifier):
    """A learner with a mask that it forgets to move."""

    def loss(self, net: Any, batch: Any) -> Any:
        return {"loss": multilabel_bce(net(batch.image_BCHW).mean(dim=1), batch.tags_BK) * torch.ones(len(batch.ids))}


class ReadsEach(CamClassifier):
    """A learner that reads a number of every image."""

    def loss(self, net: Any, batch: Any) -> Any:
        loss_B = multilabel_bce(net(batch.image_BCHW).mean(dim=1), batch.tags_BK)
        return {"loss": loss_B / (1 + sum(float(tags_K.sum()) for tags_K in batch.tags_BK))}


class MakesEach(CamClassifier):
    """A learner that makes a tensor per image on the host."""

    def loss(self, net: Any, batch: Any) -> Any:
        weights = [torch.tensor([1.0 + len(image_id)], device=batch.tags_BK.device) for image_id in batch.ids]
        return {"loss": multilabel_bce(net(batch.image_BCHW).mean(dim=1), batch.tags_BK) * torch.cat(weights)}


class ForgetsToCopy(CamLocalizer):
    """A localizer that takes the maps as if they were on the host."""

    def localize(self, net: Any, image_HWC: Any, classes: Any, key: int) -> Maps:
        weight = next(net.parameters()).detach()
        return Maps(tuple(classes), weight.numpy(), weight.numpy(), None, None)  # type: ignore[arg-type]


class ReadsEachPixel(CamLocalizer):
    """A localizer that reads some pixels one by one."""

    def localize(self, net: Any, image_HWC: Any, classes: Any, key: int) -> Maps:
        maps = super().localize(net, image_HWC, classes, key)
        weight = next(net.parameters()).detach().flatten()
        _ = [weight[place].item() for place in range(8)]
        return maps


def _train_wrong(folder: str, wrong: type[CamClassifier]) -> None:
    """Train two steps of the CAM's classifier with another loss, under the limits."""
    store, plan = made("cam", folder)
    (stage,) = (stage for stage in plan if stage.name == "classifier")
    learner = wrong.model_validate(stage.component.spec() | {"kind": wrong.kind()})
    with Watch() as watch:
        _, tallies = train(store, stage, stand_in(), steps=2, learner=learner, watch=watch)
    STEP.check(tallies[1], wrong.kind())


def _localize_wrong(folder: str, wrong: type[CamLocalizer]) -> None:
    """Localize one image with another localizer, under the limits."""
    from wsss_ray.engine.networks import load_model

    store, plan = made("cam", folder)
    (stage,) = (stage for stage in plan if stage.name == "classifier")
    net = load_model(store, stage, NAME)
    with Watch() as watch:
        wrong().localize(net, np.zeros((32, 32, 3), np.uint8), (0, 2), key=0)
        LOCALIZE.check(watch.take(), wrong.kind())


@pytest.mark.parametrize(
    ("work", "wrong", "error", "says"),
    [
        (_train_wrong, HostMask, RuntimeError, r"same device.*stand_in:0 \[8\] and cpu \[8\]"),
        (_train_wrong, ReadsEach, AssertionError, "reads_each: 0 tensors made on the host, 9 waits; at most 2 and 1"),
        (_train_wrong, MakesEach, AssertionError, "makes_each: 8 tensors made on the host, 1 waits"),
        (_localize_wrong, ForgetsToCopy, (RuntimeError, TypeError), "numpy"),
        (_localize_wrong, ReadsEachPixel, AssertionError, "9 waits; at most 4 and 2"),
    ],
)
def test_mistakes_are_found(there, folder, work, wrong, error, says):
    with pytest.raises(error, match=says):
        there(work, folder, wrong)


def test_right_parts_pass(there, folder):
    there(_train_wrong, folder, CamClassifier)
    there(_localize_wrong, folder, CamLocalizer)


def _crossings(work: Any) -> list[tuple[str, tuple[int, ...], bool]]:
    x = torch.arange(6.0).to(stand_in())
    with Watch() as watch:
        work(x)
        return [(one.kind, one.shape, one.waited) for one in watch.crossings]


UP, DOWN, WAIT = "upload", "download", "wait"


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ("x + 1", []),
        ("x * torch.tensor(2.0)", []),
        ("torch.zeros(3, device=x.device) + x.new_ones(3)", []),
        ("x[2:].sum().backward() if x.requires_grad else x.amax()", []),
        ("torch.tensor([1.0, 2.0], device=x.device)", [(UP, (2,), True)]),
        ("torch.ones(2).to(x.device)", [(UP, (2,), True)]),
        ("torch.ones(2).to(x.device, non_blocking=True)", [(UP, (2,), False)]),
        ("x.copy_(torch.ones(6))", [(UP, (6,), True)]),
        ("x[[0, 1]]", [(UP, (2,), True)]),
        ("x[torch.tensor([0, 1])]", [(UP, (2,), True)]),
        ("x.cpu()", [(DOWN, (6,), True)]),
        ("x.tolist()", [(DOWN, (6,), True)]),
        ("float(x[0])", [(WAIT, (), True)]),
        ("bool((x > 1).any())", [(WAIT, (), True)]),
        ("x[x > 1]", [(WAIT, (6,), True)]),
        ("x.nonzero()", [(WAIT, (6,), True)]),
        ("x.masked_fill(x > 1, 0)", []),
    ],
)
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_crossings(there, work, expected, mode):
    assert there(partial(_evaluated, work, mode)) == expected


def _evaluated(work: str, mode: str) -> Any:
    with getattr(torch, mode)():
        return _crossings(lambda x: eval(work, {"torch": torch, "x": x}))


@pytest.mark.parametrize(
    "work",
    [
        "x + torch.ones(6)",
        "torch.ones(6)[x.long()]",
        "torch.stack([torch.tensor(1.0), x[0]])",
        "torch.cat([x, torch.ones(1)])",
        "torch.where(x > 1, x, torch.zeros(6))",
        "x.numpy()",
        "torch.rand(3, device=x.device, generator=torch.Generator())",
        "torch.nn.functional.linear(x[None], torch.ones(2, 6))",
        "torch.ones(6).add_(x)",
    ],
)
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_what_cuda_refuses_raises(there, work, mode):
    with pytest.raises(RuntimeError, match=r"same device|numpy\(\)|generator"):
        there(partial(_evaluated, work, mode))
