"""Training, localization, the CRF and the dense energy on one device, against one core and against the device's limits.

Speed needs no trained weights, and images are made. A training here is the loop of a worker (`engine/loop.py`) on batches that
lie in pinned memory: forward and backward pass, optimiser, and the losses on the host; no decoding of images. The limit of
networks is the product of matrices in the type that their convolutions use (TF32 for float32 on a GPU). The limit of the lattice
is the copy: every matrix entry and every value is read or written once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device import Limits, Line, Size, busy_share, one_core, seconds_of
from benchmarks.made import picture, smooth_prob
from wsss_ray.core.contracts import Learner, Trunk
from wsss_ray.core.values import IGNORE, Batch
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.engine.loop import fit
from wsss_ray.engine.networks import use_bfloat16
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.methods.ficklenet import StochasticClassifier, StochasticGradCam
from wsss_ray.methods.rrm import RrmSegmenter
from wsss_ray.nets.deeplab import DilatedPair, LargeFov
from wsss_ray.nets.resnet import ResNet
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.energy import dense_energy
from wsss_ray.ops.lattice.base import bilateral_features, spatial_features
from wsss_ray.ops.lattice.on_torch import TorchLattice

CLASSES, LABELS = 20, 21
NONE = Weights(source="none")


def figures(device: torch.device, size: Size, found: Limits) -> dict[str, Callable[[], Line]]:
    """The lines below the limits, by name; each is measured when it is called. The first ones are those that matter most."""
    lines: dict[str, Callable[[], Line]] = {}
    for name, trunk in trunks(size).items():
        lines[f"localize, {name}"] = partial(localization, name, trunk, device, size, found)
    for labels in (3, LABELS):
        lines[f"CRF, {labels} labels"] = partial(crf, labels, device, size, found)
    lines["dense energy"] = partial(energy, device, size, found)
    for name, learner in learners(size).items():
        lines[f"training, {name}"] = partial(training, name, learner, device, size, found)
    return lines


def trunks(size: Size) -> dict[str, Trunk]:
    """The trunks that localize; one small one at tiny sizes."""
    if size.tiny:
        return {"small_net": SmallNet(widths=(8, 16), strides=(2, 2))}
    return {"VGG16": Vgg16(weights=NONE), "ResNet50": ResNet(depth=50, weights=NONE)}


def learners(size: Size) -> dict[str, Learner]:
    """The trainings, at their usual batch sizes."""
    crop, found = RandomCrop(size=max(size.side, 8)), {}
    for name, trunk in trunks(size).items():
        common: dict[str, Any] = {"trunk": trunk, "augment": crop, "steps": 1, "epochs": None}
        classifier = StochasticClassifier(**common, batch_size=2 if size.tiny else 10)
        found[f"FickleNet's classifier, {name}"] = classifier
        found[f"FickleNet's classifier, {name}, bfloat16"] = classifier.model_copy(update={"precision": "bfloat16"})
        found[f"DeepLab LargeFOV, {name}"] = DeeplabSegmenter(**common, head=LargeFov(), batch_size=2 if size.tiny else 20)
    name, parts = "ResNet38", {"trunk": ResNet38(weights=NONE, frozen="none"), "batch_size": 4}
    if size.tiny:
        name, parts = "small_net", {"trunk": trunks(size)["small_net"], "head": DilatedPair(hidden=16), "batch_size": 2}
    found[f"RRM with its dense energy, labels given, {name}"] = RrmSegmenter.model_validate(parts | {"augment": crop, "steps": 1})
    return found


def batch_of(count: int, side: int, *, pinned: bool) -> Batch:
    """A batch of made pictures, each with two tags and half its pixels labelled."""
    rng = torch.Generator().manual_seed(0)
    image_BCHW = torch.from_numpy(np.stack([picture(side, side, seed=seed) for seed in range(count)])).permute(0, 3, 1, 2).float()
    tags_BK = torch.zeros(count, CLASSES)
    tags_BK[:, [3, 7]] = 1
    seeds_BEHW = torch.full((count, 1, side, side), IGNORE, dtype=torch.uint8)
    seeds_BEHW[:, :, : side // 4], seeds_BEHW[:, :, -side // 4 :] = 0, 4
    batch = Batch(
        ids=tuple(map(str, range(count))),
        image_BCHW=image_BCHW.contiguous(),
        tags_BK=tags_BK,
        seeds_BEHW=seeds_BEHW,
        strong_B=torch.zeros(count, dtype=torch.bool),
        valid_BHW=torch.ones(count, side, side, dtype=torch.bool),
        keys_B=tuple(torch.randint(2**62, (count,), generator=rng).tolist()),
    )
    return batch.pin_memory() if pinned else batch


def stepper(learner: Learner, device: torch.device, size: Size, *, steps: int, count: int | None = None) -> Callable[[], None]:
    """A function that trains `steps` steps on one batch of `count` images, or of the learner's size."""
    count = count or learner.batch_size
    learner = learner.model_copy(update={"batch_size": count})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = learner.build(CLASSES).to(device)
    if learner.precision == "bfloat16":
        use_bfloat16(net, device)
    groups = learner.param_groups(net)
    optimizer = learner.optimizer.model_copy(update={"lr": 1e-6}).build(groups)  # one batch again and again: losses stay finite
    micros = [batch_of(count, size.side, pinned=device.type == "cuda")]

    def work() -> None:
        batches = itertools.repeat(micros, steps)
        for _ in fit(net, learner, optimizer, batches, start=0, total=steps, num_images=count, device=device):
            pass

    return work


def training(name: str, learner: Learner, device: torch.device, size: Size, found: Limits) -> Line:
    """Images per second of a training."""
    work, count = stepper(learner, device, size, steps=size.steps), learner.batch_size
    rate = size.steps * count / seconds_of(work, device, most=size.seconds, warm=1)
    with FlopCounterMode(display=False) as counted:
        work()
    done = counted.get_total_flops() / (size.steps * count)
    most = found.bfloat16 if learner.precision == "bfloat16" else found.tf32
    busy = busy_share(work, device)
    with one_core() as core:
        alone = stepper(learner, core, size, steps=1, count=1)
        slow = 1 / seconds_of(alone, core, most=0, warm=0, least=1)
    what = f"training, {name}, batches of {count} at {size.side}"
    return Line(what, per_second(rate), per_second(slow), rate / slow, busy, done * rate / most)


def finder(trunk: Trunk, size: Size) -> Callable[[torch.device], Callable[[], object]]:
    """Return what builds FickleNet's network on a device, and returns what makes the maps of two tags of one image."""
    localizer = StochasticGradCam(selections=size.selections, size=max(size.side, 8))
    image_HWC = picture(*size.crf, seed=0)
    classifier = StochasticClassifier(trunk=trunk, steps=1, epochs=None)

    def work_on(where: torch.device) -> Callable[[], object]:
        net = classifier.build(CLASSES).to(where).eval()
        return lambda: localizer.localize(net, image_HWC, (3, 7), key=1)

    return work_on


def localization(name: str, trunk: Trunk, device: torch.device, size: Size, found: Limits) -> Line:
    """Images per second of FickleNet's maps of two tags, from pixels in memory to maps in memory."""
    work_on = finder(trunk, size)
    work = work_on(device)
    rate = 1 / seconds_of(work, device, most=size.seconds)
    with FlopCounterMode(display=False) as counted:
        work()
    busy = busy_share(work, device)
    with one_core() as core:
        slow = 1 / seconds_of(work_on(core), core, most=0, warm=1, least=2)
    what = f"localize, {name} at {size.side}, {size.selections} selections, two tags"
    return Line(what, per_second(rate), per_second(slow), rate / slow, busy, counted.get_total_flops() * rate / found.tf32)


def crf(labels: int, device: torch.device, size: Size, found: Limits) -> Line:
    """Seconds of the dense CRF of one image: ten iterations with DSRG's widths, from and to arrays on the host."""
    height, width = size.crf
    image_HWC, prob_CHW = picture(height, width, seed=0), smooth_prob(labels, height, width)
    refiner = DenseCrf(backend="lattice")

    def work() -> object:
        return refiner.refine(image_HWC, prob_CHW, device=device)

    ours, busy = seconds_of(work, device, most=size.seconds), busy_share(work, device)
    with one_core() as core:
        slow = seconds_of(lambda: refiner.refine(image_HWC, prob_CHW, device=core), core, most=0, warm=1)
    kernels = (
        spatial_features(height, width, sxy=refiner.gaussian_sxy),
        bilateral_features(torch.from_numpy(image_HWC), sxy=refiner.bilateral_sxy, srgb=refiner.bilateral_srgb),
    )
    moved = refiner.iterations * sum(least_bytes(TorchLattice.build(features_ND), labels) for features_ND in kernels)
    what = f"CRF, {width} x {height}, {labels} labels, {refiner.iterations} iterations"
    return Line(what, milliseconds(ours), milliseconds(slow), slow / ours, busy, moved / ours / found.copied)


def energy(device: torch.device, size: Size, found: Limits) -> Line:
    """Seconds of RRM's dense energy, forward and backward, of a batch of four crops."""
    count = 4
    image_BCHW = torch.from_numpy(np.stack([picture(size.side, size.side, seed=one) for one in range(count)])).permute(0, 3, 1, 2)
    prob_BLHW = torch.from_numpy(np.stack([smooth_prob(LABELS, size.side, size.side, seed=one) for one in range(count)]))
    label_BHW = torch.full((count, size.side, size.side), IGNORE, dtype=torch.uint8)
    label_BHW[:, size.side // 6 : size.side // 2, size.side // 5 : size.side // 2] = 3
    valid_BHW = torch.ones(count, size.side, size.side, dtype=torch.bool)

    def work_on(where: torch.device) -> Callable[[], object]:
        prob, *rest = (part.to(where) for part in (prob_BLHW, image_BCHW, label_BHW, valid_BHW))
        prob.requires_grad_()
        return lambda: torch.autograd.grad(dense_energy(prob, *rest).sum(), prob)

    work = work_on(device)
    ours, busy = seconds_of(work, device, most=size.seconds), busy_share(work, device)
    with one_core() as core:
        slow = seconds_of(work_on(core), core, most=0, warm=1)
    half = image_BCHW.permute(0, 2, 3, 1)[:, ::2, ::2]
    features = [bilateral_features(one_HWC, sxy=50.0, srgb=15.0) for one_HWC in half]  # the default widths, at half the size
    moved = sum(least_bytes(TorchLattice.build(features_ND), LABELS) for features_ND in features)
    what = f"dense energy, {count} crops of {size.side}, {LABELS} labels, forward and backward"
    return Line(what, milliseconds(ours), milliseconds(slow), slow / ours, busy, moved / ours / found.copied)


def least_bytes(lattice: TorchLattice, columns: int) -> float:
    """The bytes that filtering float32 columns must move: all entries of its matrices, all values that products read or write."""
    moved, values = 0, lattice.splat.column_P.max().item() + 1
    for rows in (lattice.splat, *lattice.blurs, lattice.slice):
        count = len(rows.start) - 1
        moved += rows.start.nbytes + rows.column_P.nbytes + rows.weight_P.nbytes + 4 * columns * (values + count)
        values = count
    return moved


def per_second(rate: float) -> str:
    """Images per second as text."""
    return f"{rate:.3g} images/s"


def milliseconds(seconds: float) -> str:
    """Seconds as text in milliseconds."""
    return f"{1e3 * seconds:.3g} ms"
