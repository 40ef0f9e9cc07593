"""Score the tags that a classifier gives to images: average precision, F1, and what a random order of the images would score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Truth = NDArray[np.bool_]

CERTAIN = 0.5
"""Probability from which a tag counts as given, for F1."""


def average_precision(score_N: Scores, true_N: Truth) -> float:
    """Compute the average precision: the mean of the precisions at every image with the tag, in the order of the scores.

    Images with equal scores share one place, as in scikit-learn.

    Args:
        score_N: score of the tag for each image; the highest come first.
        true_N: True for images that have the tag.

    Returns:
        The average precision in [0, 1]; NaN if no image has the tag.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.1], np.float32), np.array([True, False, True]))
        0.8333333333333333
    """
    total = int(true_N.sum())
    if not total:
        return math.nan
    order = np.argsort(-score_N, kind="stable")
    score_N, hits_N = score_N[order], true_N[order].cumsum()
    last = np.flatnonzero(np.append(score_N[1:] != score_N[:-1], True))  # of the images with the same score
    gained = np.diff(hits_N[last], prepend=0)
    return float((gained * hits_N[last] / (last + 1)).sum() / total)


def f1(score_N: Scores, true_N: Truth) -> float:
    """Compute F1, 2 TP / (2 TP + FP + FN), of the images whose score is at least `CERTAIN`.

    Args:
        score_N: score of the tag for each image.
        true_N: True for images that have the tag.

    Returns:
        F1 in [0, 1]; NaN if no image has or gets the tag.

    Example:
        >>> f1(np.array([0.9, 0.8, 0.1], np.float32), np.array([True, False, True]))
        0.5
    """
    given_N = score_N >= CERTAIN
    both, either = int((given_N & true_N).sum()), int(given_N.sum()) + int(true_N.sum())
    return 2 * both / either if either else math.nan


def chance(images: int, tagged: int) -> tuple[float, float]:
    """Compute the mean and the standard deviation of the average precision over all orders of the images.

    It is what a classifier scores that knows nothing. The mean is above the share of tagged images, because the first images of
    an order count most; the fewer images, the more. With P of N images tagged and r_i = 1 for a tagged image at place i, the
    average precision is the sum of r_i r_j / (i P) over j <= i. A product of m different r has the mean
    P (P - 1) .. (P - m + 1) / (N (N - 1) .. (N - m + 1)), so that both moments are sums over places.

    Args:
        images: number of images N.
        tagged: number of images with the tag P, from 1 to N.

    Returns:
        Mean and standard deviation. For many images, they are near p and p sqrt((1 - p) / P), with p = P / N.

    Example:
        >>> chance(images=2, tagged=1)  # 1 or 1/2
        (0.75, 0.25)
    """
    means = [1.0]
    for m in range(4):
        means.append(means[-1] * max(0, tagged - m) / max(1, images - m))
    place = np.arange(1, images + 1, dtype=np.float64)
    mean = float((means[1] / place + means[2] * (place - 1) / place).sum()) / tagged
    # two terms (i, j) and (k, l) have m different places; i = k first, then i < k, which counts twice
    same = (means[1] + 3 * means[2] * (place - 1) + means[3] * (place - 1) * (place - 2)) / place**2
    before = [np.concatenate([[0.0], np.cumsum(part)[:-1]]) for part in (1 / place, (place - 1) / place)]  # sums over i < k
    other = (2 * means[2] + means[3] * (place - 2)) * before[0] + (3 * means[3] + means[4] * (place - 3)) * before[1]
    square = float((same + 2 * other / place).sum()) / tagged**2
    return mean, math.sqrt(max(0.0, square - mean**2))
