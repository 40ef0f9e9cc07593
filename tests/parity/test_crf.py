"""The CRF component against pydensecrf called by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydensecrf import utils
from pydensecrf.densecrf import DenseCRF2D

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.crf import DenseCrf

H, W = 37, 52
PYDENSE = DenseCrf(backend="pydensecrf")


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    image = np.full((H, W, 3), (40, 120, 60), np.uint8)
    image[8:28, 12:36] = (200, 60, 50)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def prob():
    rng = np.random.default_rng(1)
    score = rng.normal(0, 0.7, (3, H, W))
    score[1, 10:26, 14:34] += 1.5
    prob = np.exp(score)
    return (prob / prob.sum(axis=0)).astype(np.float32)


def by_hand(image, energy, *, sxy=(3.0, 80.0), srgb=13.0, weight=(3.0, 10.0), steps=10):
    classes = len(energy)
    crf = DenseCRF2D(W, H, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(classes, -1), np.float32))
    crf.addPairwiseGaussian(sxy=sxy[0], compat=weight[0])
    crf.addPairwiseBilateral(sxy=sxy[1], srgb=srgb, rgbim=image.copy(), compat=weight[1])
    return np.array(crf.inference(steps)).reshape(classes, H, W)


def test_equals_pydensecrf(image, prob):
    refined = PYDENSE.refine(image, prob)
    assert refined.dtype == np.float32
    np.testing.assert_array_equal(refined, by_hand(image, utils.unary_from_softmax(prob)))
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    assert (refined.argmax(axis=0) != prob.argmax(axis=0)).any()


def test_every_field_reaches_it(image, prob):
    crf = DenseCrf(
        backend="pydensecrf",
        iterations=3,
        gaussian_sxy=2,
        gaussian_weight=1.5,
        bilateral_sxy=40,
        bilateral_srgb=7,
        bilateral_weight=4,
        scale=4,
    )
    expected = by_hand(image, -np.log(prob), sxy=(0.5, 10.0), srgb=7.0, weight=(1.5, 4.0), steps=3)
    np.testing.assert_array_equal(crf.refine(image, prob), expected)


def test_probability_as_energy(image, prob):
    np.testing.assert_array_equal(DenseCrf(backend="pydensecrf", unary="probability").refine(image, prob), by_hand(image, -prob))


def test_weight_zero_leaves_a_kernel_out(image, prob):
    unchanged = DenseCrf(backend="pydensecrf", gaussian_weight=0, bilateral_weight=0).refine(image, prob)
    np.testing.assert_allclose(unchanged, prob, atol=1e-6)
    only = DenseCrf(backend="pydensecrf", gaussian_weight=0).refine(image, prob)
    np.testing.assert_allclose(only, by_hand(image, -np.log(prob), weight=(0.0, 10.0)), atol=1e-5)


def test_absent_classes_change_nothing(image, prob):
    wide = np.concatenate([prob, np.zeros((4, H, W), np.float32)])
    few, all_seven = PYDENSE.refine(image, prob), PYDENSE.refine(image, wide)
    assert np.abs(few - all_seven[:3]).max() < 1e-3
    assert (few.argmax(axis=0) == all_seven.argmax(axis=0)).all()


def test_classes_may_be_reordered(image, prob):
    order = [2, 0, 1]
    np.testing.assert_allclose(PYDENSE.refine(image, prob[order]), PYDENSE.refine(image, prob)[order], atol=1e-5)


def test_accepts_what_pydensecrf_refuses(image, prob):
    expected = PYDENSE.refine(image, prob)
    frozen = image.copy()
    frozen.setflags(write=False)
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]  # not contiguous
    zeros = np.where(prob < 1e-5, 0, prob)
    for strange_image, strange_prob in ((frozen, prob), (flipped, prob.astype(np.float64)), (image, zeros)):
        np.testing.assert_array_equal(PYDENSE.refine(strange_image, strange_prob), expected)
    certain = np.stack([np.ones((H, W)), np.zeros((H, W))])
    assert np.isfinite(PYDENSE.refine(image, certain)).all()


def test_one_class_and_none(image, prob):
    assert (PYDENSE.refine(image, prob[:1]) == 1).all()
    assert PYDENSE.refine(image, prob[:0]).shape == (0, H, W)


@pytest.mark.parametrize("backend", ["lattice", "pydensecrf"])
def test_several_label_sets_as_if_alone(image, prob, backend):
    crf = DenseCrf(backend=backend)
    sets = [prob, prob[:1], prob[::-1].copy(), prob[:2], prob[:0]]
    for together, one in zip(crf.refine_all(image, sets), sets, strict=True):
        np.testing.assert_array_equal(together, crf.refine(image, one))


def test_leaves_its_arguments_alone(image, prob):
    before = image.copy(), prob.copy()
    PYDENSE.refine(image, prob)
    assert (image == before[0]).all()
    assert (prob == before[1]).all()


def test_rejects_another_size_or_type(image, prob):
    with pytest.raises(ValueError, match="same size"):
        PYDENSE.refine(image[1:], prob)
    with pytest.raises(ValueError, match="uint8"):
        PYDENSE.refine(image.astype(np.float32), prob)


def test_hard_labels_equal_unary_from_labels(image, prob):
    label = np.array([0, 7, 12], np.uint8)[prob.argmax(axis=0)]
    label[prob.max(axis=0) < 0.5] = IGNORE
    labels, refined = PYDENSE.refine_labels(image, label, 0.7)
    assert labels == (0, 7, 12)
    assert all(type(value) is int for value in labels)
    ordered = np.select([label == 0, label == 7, label == 12], [1, 2, 3], 0)  # there 0 means unsure
    unary = utils.unary_from_labels(ordered, 3, 0.7, zero_unsure=True)
    np.testing.assert_allclose(refined, by_hand(image, unary), atol=1e-6)
    assert (refined.argmax(axis=0) == by_hand(image, unary).argmax(axis=0)).all()


def test_hard_labels_of_one_label_or_none(image):
    label = np.full((H, W), IGNORE, np.uint8)
    labels, refined = PYDENSE.refine_labels(image, label, 0.7)
    assert (labels, refined.shape) == ((), (0, H, W))
    label[3, 3] = 5
    labels, refined = PYDENSE.refine_labels(image, label, 0.7)
    assert labels == (5,)
    assert (refined == 1).all()
    with pytest.raises(ValueError, match="confidence"):
        PYDENSE.refine_labels(image, label, 1.0)
