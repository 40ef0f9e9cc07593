"""Rules on several images: the maps and labels of single images, from batches of the network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from wsss_ray.core import Maps
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.segmentation import MultiScale, PredictedLabels
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.methods.dsrg import DsrgRelabel
from wsss_ray.methods.ficklenet import StochasticClassifier, StochasticGradCam
from wsss_ray.methods.mctformer import MctClassifier, MctLocalizer
from wsss_ray.methods.mdc import DilatedCam
from wsss_ray.nets.deeplab import LargeFov
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.timm_vit import TimmVit
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.multiscale import resize_images, run_inputs, scaled_sizes, sum_logits, sum_logits_of, to_batch, to_tensor

TRUNK = SmallNet(widths=(8, 16), strides=(2, 2))
VIT = TimmVit(name="test_vit", patch_size=8, weights="none")
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs wsss-ray[timm]")
TAGS = [(1, 3), (), (0,), (0, 1, 2, 3), (2, 4)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_worker():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures() -> list[np.ndarray]:
    """Five images of coloured tiles, of three sizes, of which two come twice."""
    rng = np.random.default_rng(0)
    tiles = [rng.integers(0, 256, (3, 3, 3)).astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1) for _ in range(5)]
    sizes = ((33, 47), (47, 33), (33, 47), (20, 20), (47, 33))
    return [image[:rows, :columns].copy() for image, (rows, columns) in zip(tiles, sizes, strict=True)]


def built(learner) -> nn.Module:
    torch.manual_seed(0)
    net = learner.build(5).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3  # maps and scores far from 0
    return net


class Counted(nn.Module):
    """A network that notes the shape of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image_BCHW.shape))
        return image_BCHW.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("classifier", "localizer"),
    [
        (CamClassifier(trunk=TRUNK), CamLocalizer()),
        (CamClassifier(trunk=TRUNK), CamLocalizer(scales=(1.0, 0.5, 1.5), flip=True)),
        (CamClassifier(trunk=TRUNK), CamLocalizer(size=41, scales=(0.5, 1.0), flip=True, merge="max")),
        (CamClassifier(trunk=TRUNK, rates=(1, 2, 3)), DilatedCam()),
        (CamClassifier(trunk=TRUNK, rates=(1, 2, 3)), DilatedCam(size=41, blocks=(0, 2), fusion="average")),
        (StochasticClassifier(trunk=TRUNK, kernel_size=3), StochasticGradCam(size=41, selections=8)),
        (StochasticClassifier(trunk=TRUNK, kernel_size=3), StochasticGradCam(size=None, selections=8, normalize="per_image")),
        (StochasticClassifier(trunk=TRUNK, kernel_size=3), StochasticGradCam(selection="general_dropout", selections=4)),
        (StochasticClassifier(trunk=TRUNK, kernel_size=3), StochasticGradCam(selection="deterministic", size=41)),
        pytest.param(MctClassifier(trunk=VIT), MctLocalizer(scales=(1.0, 0.5)), marks=needs_timm),
        pytest.param(MctClassifier(trunk=VIT), MctLocalizer(size=41, fuse="attention", flip=False), marks=needs_timm),
    ],
    ids=lambda part: part.kind(),
)
def test_maps_of_a_batch_are_those_of_its_images(classifier, localizer):
    net, images = built(classifier), pictures()
    alone = [localizer.localize(net, *one) for one in zip(images, TAGS, range(5), strict=True)]
    found = localizer.localize_batch(net, images, TAGS, range(5))
    for ours, single in zip(found, alone, strict=True):
        assert (ours.classes, ours.rows, ours.columns) == (single.classes, single.rows, single.columns)
        np.testing.assert_allclose(ours.peak_CHW, single.peak_CHW, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(ours.mean_CHW, single.mean_CHW, atol=1e-5, rtol=1e-4)
    assert max(maps.peak_CHW.max() for maps in found if maps.classes) > 0.5
    (again,) = localizer.localize_batch(net, images[:1], TAGS[:1], [0])
    assert np.array_equal(again.peak_CHW, alone[0].peak_CHW), "a batch of one image gives its bits"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crf", [False, True])
def test_labels_of_a_batch_are_those_of_its_images(flip, crf):
    segmenter, images = DeeplabSegmenter(trunk=TRUNK, head=LargeFov(hidden=16)), pictures()
    net = built(segmenter)
    net.head.branches[0][-1].weight.data *= 100  # certain scores, which the CRF does not smooth away
    changes = {"flip": flip, "crf": DenseCrf(iterations=2, scale=4.0) if crf else None}
    metric = MultiScale(scales=(0.75, 1.0, 1.25), **changes)
    alone = [metric.predict(segmenter, net, image) for image in images]
    for ours, single in zip(metric.predict_batch(segmenter, net, images), alone, strict=True):
        np.testing.assert_array_equal(ours, single)
    for rule in (PredictedLabels(**changes), DsrgRelabel(sizes=(24, 33), only_tags=True, **changes)):
        labels = [rule.label(segmenter, net, *one) for one in zip(images, TAGS, strict=True)]
        for ours, single in zip(rule.label_batch(segmenter, net, images, TAGS), labels, strict=True):
            np.testing.assert_array_equal(ours, single)
    assert len(np.unique(np.concatenate([label.ravel() for label in alone]))) > 1


def test_summed_logits_of_a_batch_are_those_of_its_images():
    segmenter, images = DeeplabSegmenter(trunk=TRUNK, head=LargeFov(hidden=16)), pictures()
    net = built(segmenter)
    sizes = [scaled_sizes(*image.shape[:2], (1.0, 0.5, 1.25)) for image in images]
    alone = [
        sum_logits(lambda x: segmenter.predict(net, x), image, sizes=own, flip=True, device=CPU)
        for image, own in zip(images, sizes, strict=True)
    ]
    found = sum_logits_of(lambda x: segmenter.predict(net, x), images, sizes=sizes, flip=True, device=CPU)
    for ours, single in zip(found, alone, strict=True):
        assert ours.shape == single.shape
        torch.testing.assert_close(ours, single, atol=1e-4, rtol=1e-5)


def test_inputs_of_one_size_and_mirror_images_share_batches():
    net, images = Counted(), pictures()
    sizes = [scaled_sizes(*image.shape[:2], (1.0, 2.0)) for image in images]
    list(run_inputs(net, images, sizes=sizes, flip=True, device=CPU))
    assert net.shapes == [(4, 3, 33, 47), (4, 3, 47, 33), (2, 3, 20, 20), (4, 3, 66, 94), (4, 3, 94, 66), (2, 3, 40, 40)]
    net.shapes.clear()
    same = [images[0]] * 3
    list(run_inputs(net, same, sizes=[[(33, 47)]] * 3, flip=True, device=CPU))
    assert net.shapes == [(3, 3, 33, 47)] * 2, "never more inputs than images"
    net.shapes.clear()
    list(run_inputs(net, images[:1], sizes=[[(33, 47), (20, 20)]], flip=True, device=CPU))
    assert net.shapes == [(1, 3, 33, 47)] * 2 + [(1, 3, 20, 20)] * 2, "an image alone: one input at a time"


def test_scales_of_different_images_that_agree_share_a_batch_and_are_summed_in_order():
    net = Counted()
    large, small = (np.full((side, side, 3), side, np.uint8) for side in (40, 20))
    sizes = [[(20, 20), (40, 40)], [(20, 20), (10, 10)]]
    found = {(place, number): output for place, number, output, _ in run_inputs(net, [large, small], sizes=sizes, flip=False,
                                                                               device=CPU)}  # fmt: skip
    assert net.shapes == [(2, 3, 20, 20), (1, 3, 40, 40), (1, 3, 10, 10)]
    assert {place: float(output.mean()) for place, output in found.items()} == {(0, 0): 40, (0, 1): 40, (1, 0): 20, (1, 1): 20}
    late = [[(10, 10), (20, 20)], [(20, 20), (10, 10)]]  # (20, 20) is the first input of one image, the second of the other
    sums = sum_logits_of(net, [large, small], sizes=late, flip=False, device=CPU)
    assert [(tuple(one.shape), float(one.mean())) for one in sums] == [((1, 40, 40), 80), ((1, 20, 20), 40)]


def test_a_batch_has_the_pixels_of_its_images():
    images = resize_images(pictures(), [(16, 24)] * 5)
    batch_BCHW = to_batch(images, CPU)
    assert torch.equal(batch_BCHW, torch.cat([to_tensor(image, CPU) for image in images]))
    assert batch_BCHW.is_contiguous()


def test_a_subclass_that_changes_one_image_changes_a_batch():
    class Doubled(CamLocalizer):
        def localize(self, net, image_HWC: np.ndarray, classes: Sequence[int], key: int) -> Maps:
            maps = super().localize(net, image_HWC, classes, key)
            return Maps(maps.classes, maps.peak_CHW * 2, maps.mean_CHW, maps.rows, maps.columns)

    class Named(Doubled):
        pass

    class First(MultiScale):
        def predict(self, segmenter, net, image_HWC):
            return np.full(image_HWC.shape[:2], 7, np.uint8)

    class Other(PredictedLabels):
        def label(self, segmenter, net, image_HWC, classes):
            return np.full(image_HWC.shape[:2], len(classes), np.uint8)

    net, images = built(CamClassifier(trunk=TRUNK)), pictures()
    for localizer in (Doubled(), Named()):
        assert localizer.localize_batch(net, images[:2], [(1,), (2,)], [0, 0])[1].peak_CHW.max() == 2
    assert [label.max() for label in First().predict_batch(None, net, images)] == [7] * 5
    assert [label.max() for label in Other().label_batch(None, net, images, TAGS)] == [2, 0, 1, 4, 2]
