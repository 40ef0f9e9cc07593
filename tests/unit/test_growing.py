"""Seeded region growing against a flood fill that is written pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.growing import grow

FG, BG = 0.6, 0.8


def flood(prob, cues, present, fg, bg):
    """Steps 1 to 5 of DSRG's generate_seed_step, in plain loops."""
    height, width = cues.shape
    label_map = [[int(cues[y, x]) for x in range(width)] for y in range(height)]
    for y in range(height):
        for x in range(width):
            best = max(sorted(present), key=lambda c: prob[c, y, x])
            if prob[best, y, x] > np.float32(bg if best == 0 else fg):
                label_map[y][x] = best
    out = np.zeros(prob.shape, bool)
    for y in range(height):
        for x in range(width):
            if cues[y, x] != IGNORE:
                out[cues[y, x], y, x] = True
    for c in present:
        seen = set()
        for start in [(y, x) for y in range(height) for x in range(width) if label_map[y][x] == c]:
            if start in seen:
                continue
            queue, region = [start], {start}
            while queue:
                y, x = queue.pop()
                for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                    inside = 0 <= near[0] < height and 0 <= near[1] < width
                    if inside and near not in region and label_map[near[0]][near[1]] == c:
                        region.add(near)
                        queue.append(near)
            seen |= region
            if any(cues[p] == c for p in region):
                for p in region:
                    if cues[p] in (c, IGNORE):
                        out[c, p[0], p[1]] = True
    return out


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9), num_labels=st.integers(1, 4))
def test_equals_flood_fill(seed, height, width, num_labels):
    rng = np.random.default_rng(seed)
    sharp = rng.choice([1.0, 4.0, 12.0])
    prob = np.exp(sharp * rng.random((num_labels, height, width)))
    prob = (prob / prob.sum(axis=0)).astype(np.float32)
    cues = rng.choice([*range(num_labels), IGNORE], size=(height, width), p=[0.1] * num_labels + [1 - 0.1 * num_labels])
    present = [0, *(k for k in range(1, num_labels) if rng.random() < 0.7)]
    cues = cues.astype(np.uint8)
    grown = grow(prob, cues, present, fg_threshold=FG, bg_threshold=BG)
    assert (grown == flood(prob, cues, present, FG, BG)).all()
    assert grown.sum(axis=0).max() <= 1
    rows, columns = np.nonzero(cues != IGNORE)
    assert grown[cues[rows, columns], rows, columns].all(), "no cue is removed"


def one_hot_prob(labels, num_labels, top=0.9):
    rest = (1 - top) / (num_labels - 1)
    return np.where(np.asarray(labels) == np.arange(num_labels)[:, None, None], top, rest).astype(np.float32)


def test_grows_diagonally_but_only_from_a_cue():
    labels = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    cues = np.full((3, 4), IGNORE, np.uint8)
    cues[0, 0] = 1
    grown = grow(one_hot_prob(labels, 2), cues, (0, 1))
    assert np.argwhere(grown[1]).tolist() == [[0, 0], [1, 1]]  # the column on the right holds no cue
    assert not grown[0].any()  # nor does background, and 0.9 is below its threshold


def test_thresholds_are_strict_and_background_has_its_own():
    cues = np.array([[0, IGNORE, 1, IGNORE]], np.uint8)
    prob = np.array([[[1, 0.99, 0, 0.15]], [[0, 0.01, 1, 0.85]]], np.float32)
    assert not grow(prob, cues, (0, 1))[:, 0, [1, 3]].any()
    prob = np.array([[[1, 0.995, 0, 0.14]], [[0, 0.005, 1, 0.86]]], np.float32)
    assert grow(prob, cues, (0, 1))[:, 0].tolist() == [[True, True, False, False], [False, False, True, True]]


def test_a_region_passes_through_a_foreign_cue_without_taking_it():
    cues = np.array([[1, IGNORE, 2, IGNORE]], np.uint8)
    grown = grow(one_hot_prob([[1, 1, 1, 1]], 3), cues, (0, 1, 2))
    assert grown[1, 0].tolist() == [True, True, False, True]
    assert grown[2, 0].tolist() == [False, False, True, False]


def test_labels_the_image_lacks_neither_win_nor_grow():
    cues = np.array([[2, IGNORE, 1]], np.uint8)
    grown = grow(one_hot_prob([[2, 2, 2]], 3), cues, (0, 1))
    assert grown[2, 0].tolist() == [True, False, False]


def test_rejects_wrong_labels_and_sizes():
    prob = one_hot_prob([[0, 1]], 2)
    with pytest.raises(ValueError, match=r"cues: a label is outside 0\.\.1"):
        grow(prob, np.array([[2, 0]], np.uint8), (0, 1))
    with pytest.raises(ValueError, match="present"):
        grow(prob, np.array([[1, 0]], np.uint8), (0, 2))
    with pytest.raises(ValueError, match="cues: size"):
        grow(prob, np.array([[1, 0, 0]], np.uint8), (0, 1))
