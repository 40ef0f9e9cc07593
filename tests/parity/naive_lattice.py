"""What the lattice computes, written out slowly (sums over all pairs; the lattice in dictionaries), and images to try it on."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional


def all_pairs(features_ND, values_NC):
    """sum_j exp(-|f_i - f_j|^2 / 2) v_j, float64."""
    return torch.exp(-torch.cdist(features_ND.double(), features_ND.double()).square() / 2) @ values_NC.double()


def naive_filter(features, values):
    """The lattice in dictionaries; a corner is the nearest lattice point of its remainder, the weights solve a linear system."""
    corners = features.shape[1] + 1
    basis = np.zeros((corners, corners - 1))
    for j in range(1, corners):
        basis[:j, j - 1], basis[j, j - 1] = 1, -j
    basis *= math.sqrt(2 / 3) * corners / np.linalg.norm(basis, axis=0)
    spread, table = [], {}
    for point in features @ basis.T:
        keys = []
        for remainder in range(corners):
            exact = (point - remainder) / corners
            cells = np.round(exact)
            excess = int(cells.sum() + remainder)
            order = np.argsort(exact - cells)  # the most rounded up first
            cells[order[:excess] if excess > 0 else order[len(order) + excess :]] -= np.sign(excess)
            keys.append(tuple((cells * corners + remainder).astype(int)))
        system = np.vstack([np.array(keys).T, np.ones(corners)])
        weights = np.linalg.lstsq(system, np.append(point, 1), rcond=None)[0]
        spread.append(list(zip(keys, weights, strict=True)))
    for entry, value in zip(spread, values, strict=True):
        for key, weight in entry:
            table[key] = table.get(key, 0) + weight * value
    for axis in range(corners):
        step = corners * np.eye(corners, dtype=int)[axis] - 1
        sides = {key: (tuple(np.add(key, step)), tuple(np.subtract(key, step))) for key in table}
        table = {key: value + (table.get(sides[key][0], 0) + table.get(sides[key][1], 0)) / 2 for key, value in table.items()}
    return np.array([sum(weight * table[key] for key, weight in entry) for entry in spread]) / (1 + 2.0 ** (1 - corners))


@cache
def _photos():
    return [Image.fromarray(photo) for photo in load_sample_images().images]


def photo(which, height, width):
    """One of scikit-learn's two photographs, a temple (0) or a flower before a dark ground (1)."""
    return np.array(_photos()[which].resize((width, height), Image.Resampling.BILINEAR))


def smooth_prob(classes, height, width, seed=0, sharp=2.0):
    score = np.random.default_rng(seed).normal(0, sharp, (1, classes, 7, 8)).astype(np.float32)
    size = (height, width)
    return functional.interpolate(torch.from_numpy(score), size, mode="bicubic", align_corners=False)[0].softmax(0).numpy()
