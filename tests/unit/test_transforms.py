"""An image and its label maps move together."""

from __future__ import annotations

import numpy as np
import pytest

from wsss_ray.core.values import IGNORE
from wsss_ray.data.transforms import RandomCrop, Warp


def blocks(height: int, width: int, cell: int = 16):
    """A picture of large blocks in shades that name their label, and two label maps: the labels and their complement."""
    label = (np.arange(height)[:, None] // cell * 3 + np.arange(width) // cell) % 5
    image = np.repeat((label * 50 + 25).astype(np.uint8)[..., None], 3, axis=2)
    return image, np.stack([label, 4 - label]).astype(np.uint8)


def agreement(image_HWC, label_HW):
    """Share of labelled pixels whose shade names their label."""
    known = label_HW != IGNORE
    return ((image_HWC[..., 0] // 50) == label_HW)[known].mean()


@pytest.mark.parametrize(
    "augment",
    [Warp(size=64), Warp(size=97), RandomCrop(size=64), RandomCrop(size=64, min_scale=0.7, max_scale=1.5), RandomCrop(size=160)],
    ids=str,
)
def test_labels_move_with_the_image(augment):
    image, seeds = blocks(96, 120)
    for key in range(8):
        crop, labels = augment(image, seeds, np.random.default_rng(key))
        assert crop.shape == (augment.size, augment.size, 3)
        assert labels.shape == (2, augment.size, augment.size)
        assert crop.dtype == labels.dtype == np.uint8
        assert agreement(crop, labels[0]) > 0.9, "but for blended edges"
        both = labels[:, labels[0] != IGNORE].astype(int)
        assert (both.sum(axis=0) == 4).all(), "all label maps are cut alike"


def test_the_generator_decides():
    image, seeds = blocks(96, 120)
    augment = RandomCrop(size=48, min_scale=0.8, max_scale=1.2)
    first, again, other = (augment(image, seeds, np.random.default_rng(key))[0] for key in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_half_are_mirrored():
    image, seeds = blocks(32, 32)
    image[:, :16] = 0
    mirrored = [Warp(size=32)(image, seeds, np.random.default_rng(key))[0][0, 0, 0] > 0 for key in range(200)]
    assert 70 < sum(mirrored) < 130
    assert not any(Warp(size=32, flip=False)(image, seeds, np.random.default_rng(key))[0][0, 0, 0] for key in range(20))


def test_small_images_are_padded_and_the_padding_is_not_trained_on():
    image, seeds = blocks(20, 30)
    crop, labels = RandomCrop(size=40)(image, seeds, np.random.default_rng(0))
    inside = labels[0] != IGNORE
    assert inside.sum() == 20 * 30
    assert (crop[~inside] == (123, 117, 104)).all()


def test_a_classifier_has_no_label_maps():
    image, seeds = blocks(40, 50)
    for augment in (Warp(size=32), RandomCrop(size=32, min_scale=0.8, max_scale=1.2)):
        crop, labels = augment(image, seeds[:0], np.random.default_rng(0))
        assert crop.shape == (32, 32, 3)
        assert labels.shape == (0, 32, 32)


def test_every_place_can_be_cut():
    image, seeds = blocks(10, 10, cell=1)
    image[..., 1] = np.arange(10)[:, None]
    image[..., 2] = np.arange(10)
    corners = {tuple(RandomCrop(size=8, flip=False)(image, seeds, np.random.default_rng(key))[0][0, 0, 1:]) for key in range(200)}
    assert corners == {(row, column) for row in range(3) for column in range(3)}
