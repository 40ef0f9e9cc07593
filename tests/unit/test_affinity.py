"""PSA's affinities, their loss and the random walk, against loops over all pairs and a dense walk in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.affinity import affinities, pair_losses, pair_offsets, random_walk, transitions


def pairs(height, width, radius):
    """All ordered pairs of different features nearer than the radius, by a loop over all."""
    places = [(y, x) for y in range(height) for x in range(width)]
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            if i != j and (y - v) ** 2 + (x - u) ** 2 < radius**2:
                yield i, j


def dense_affinity(feature_FHW, radius, distance):
    """W of all pairs (Eq. 3), 1 on the diagonal, 0 for pairs that are too far."""
    flat = feature_FHW.reshape(len(feature_FHW), -1).astype(np.float64)
    w = np.eye(flat.shape[1])
    for i, j in pairs(*feature_FHW.shape[1:], radius):
        apart = np.abs(flat[:, i] - flat[:, j])
        w[i, j] = np.exp(-(apart.mean() if distance == "mean" else apart.sum()))
    return w


def dense_walk(map_CHW, w, beta, log_steps):
    """T = D^-1 W^beta, squared `log_steps` times, as the authors' code does it."""
    t = w**beta
    t = t / t.sum(axis=1, keepdims=True)
    for _ in range(log_steps):
        t = t @ t
    return (t @ map_CHW.reshape(len(map_CHW), -1).T).T.reshape(map_CHW.shape)


def features(shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def test_a_circle_of_radius_five_has_34_pairs_of_opposite_offsets():
    offsets = pair_offsets(5)
    assert len(offsets) == 34
    assert len({*offsets, *((-y, -x) for y, x in offsets)}) == 68
    assert max(y * y + x * x for y, x in offsets) < 25


@pytest.mark.parametrize("size", [(7, 9), (3, 11), (1, 4), (2, 2)])
@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_affinities_are_those_of_all_pairs(size, distance):
    feature_FHW, offsets = features((5, *size)), pair_offsets(4)
    found = affinities(torch.from_numpy(feature_FHW)[None], offsets, distance=distance)[0].numpy()
    w, (height, width) = dense_affinity(feature_FHW, 4, distance), size
    for (y, x), one_HW in zip(offsets, found, strict=True):
        for row in range(height):
            for column in range(width):
                inside = row + y < height and 0 <= column + x < width
                wanted = w[row * width + column, (row + y) * width + column + x] if inside else 0
                assert one_HW[row, column] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "radius", "beta", "log_steps"), [((9, 13), 5, 8, 8), ((12, 5), 3, 2, 5), ((3, 2), 5, 8, 8), ((1, 6), 2, 1, 3)]
)
def test_the_walk_is_the_dense_walk(size, radius, beta, log_steps):
    """The sparse matrix applied 2^t times against the dense one squared t times, in float64."""
    feature_FHW, map_CHW = features((6, *size), scale=0.2), np.random.default_rng(1).random((3, *size), np.float32)
    offsets = pair_offsets(radius)
    affinity_OHW = affinities(torch.from_numpy(feature_FHW)[None], offsets, distance="mean")[0]
    matrix = transitions(affinity_OHW, offsets, beta=beta)
    w = dense_affinity(feature_FHW, radius, "mean") ** beta
    np.testing.assert_allclose(matrix.times(torch.eye(size[0] * size[1])).numpy(), w / w.sum(axis=1, keepdims=True), atol=1e-6)
    found = random_walk(torch.from_numpy(map_CHW), matrix, steps=2**log_steps).numpy()
    np.testing.assert_allclose(found, dense_walk(map_CHW, w, 1, log_steps), atol=2e-5)
    assert map_CHW.min() <= found.min() <= found.max() <= map_CHW.max()


def test_a_walk_stays_on_its_side_of_an_edge():
    """Two halves whose features differ much: what lies in one half fills it, and nothing reaches the other."""
    feature_FHW = torch.zeros(2, 6, 8)
    feature_FHW[:, :, 4:] = 9.0
    offsets = pair_offsets(5)
    matrix = transitions(affinities(feature_FHW[None], offsets, distance="mean")[0], offsets, beta=8)
    map_CHW = torch.zeros(1, 6, 8)
    map_CHW[0, 0, 0] = 1
    found = random_walk(map_CHW, matrix, steps=256)[0]
    assert found[:, 4:].max() < 1e-6
    assert found[:, :4].min() > 0.5 / 24
    assert found[:, :4].max() < 2 / 24


def test_the_losses_are_the_printed_means():
    """Eqs. 5 and 6 by a loop over all pairs; both orders of a pair have the same affinity, so the means are the same."""
    rng = np.random.default_rng(2)
    feature_BFHW = features((3, 4, 6, 7), seed=3)
    label_BHW = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (3, 6, 7))
    label_BHW[2] = IGNORE
    offsets = pair_offsets(3)
    found = pair_losses(affinities(torch.from_numpy(feature_BFHW), offsets, distance="sum"), torch.from_numpy(label_BHW), offsets)
    for image, (feature_FHW, label_HW) in enumerate(zip(feature_BFHW, label_BHW, strict=True)):
        w, label = dense_affinity(feature_FHW, 3, "sum"), label_HW.ravel()
        kinds = {"background": [], "foreground": [], "negative": []}
        for i, j in pairs(6, 7, 3):
            if IGNORE in (label[i], label[j]):
                continue
            if label[i] != label[j]:
                kinds["negative"].append(-np.log(1 - w[i, j] + 1e-5))
            else:
                kinds["foreground" if label[i] else "background"].append(-np.log(w[i, j] + 1e-5))
        for values, loss_B in zip(kinds.values(), found, strict=True):
            assert float(loss_B[image]) == pytest.approx(np.mean(values) if values else 0, rel=1e-4)


def test_the_loss_of_equal_features_has_a_finite_gradient():
    """A pair of equal features has W = 1, where log(1 - W) is not finite."""
    feature_BFHW = torch.zeros(1, 3, 4, 4, requires_grad=True)
    label_BHW = torch.tensor([[[0, 1, 1, 0]] * 4], dtype=torch.uint8)
    offsets = pair_offsets(3)
    sum(part.sum() for part in pair_losses(affinities(feature_BFHW, offsets, distance="mean"), label_BHW, offsets)).backward()
    assert torch.isfinite(feature_BFHW.grad).all()
