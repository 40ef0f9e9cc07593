"""Compute semantic affinities between near features, their loss, and the random walk on them (PSA, Ahn and Kwak, CVPR 2018).

    W_ij = exp(-|f_i - f_j|_1),  0 < |i - j| < radius     affinity of two features
    T = D^-1 W^beta,  D_ii = sum_j W_ij^beta              probability to go from i to j; W_ii = 1, powers are of each element
    m <- T^t m                                            a map after t steps of the walk

A feature has a few dozen neighbours, so T is a sparse matrix and the walk applies it t times: 256 steps of three maps on 41 x 41
features take 0.04 s on one core. The authors square the dense matrix eight times, which takes 3.5 s and gives the same.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.sparse_rows import SparseRows

Distance = Literal["mean", "sum"]
Offset = tuple[int, int]

_FLOOR = 1e-5


def pair_offsets(radius: int) -> tuple[Offset, ...]:
    """Return the offsets (rows, columns) from a feature to its neighbours nearer than `radius`, one of each opposite two.

    Example:
        >>> pair_offsets(2)
        ((0, 1), (1, -1), (1, 0), (1, 1))
        >>> len(pair_offsets(5))
        34
    """
    near = range(1 - radius, radius)
    return tuple((y, x) for y in near for x in near if (y, x) > (0, 0) and y * y + x * x < radius * radius)


def affinities(feature_BFHW: Tensor, offsets: tuple[Offset, ...], *, distance: Distance) -> Tensor:
    """Compute the affinity of each feature and its neighbour at each of O offsets. Differentiable.

    Args:
        feature_BFHW: features.
        offsets: offsets of `pair_offsets`.
        distance: the L1 distance of two features is the sum over channels, as printed, or the mean, as in the authors' code.

    Returns:
        affinity_BOHW in (0, 1], at the first feature of a pair; 0 where the second one lies outside.

    Example:
        >>> affinities(torch.tensor([[[[1.0, 1.0, 3.0]]]]), ((0, 1),), distance="sum")
        tensor([[[[1.0000, 0.1353, 0.0000]]]])
    """
    found = []
    for offset in offsets:
        first, second = _both(feature_BFHW, offset)
        apart = (first - second).abs()
        found.append(_placed((-(apart.mean(dim=1) if distance == "mean" else apart.sum(dim=1))).exp(), feature_BFHW, offset))
    return torch.stack(found, dim=1)


def pair_losses(affinity_BOHW: Tensor, label_BHW: Tensor, offsets: tuple[Offset, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the three means of the loss (PSA, Eqs. 5 and 6) of each image.

    Pairs of two labels are background (both 0), foreground (both the same class) or negative (two labels). Pairs with an `IGNORE`
    have no loss. The logarithm is taken 1e-5 above its argument, as in the authors' code.

    Args:
        affinity_BOHW: affinities of `affinities`.
        label_BHW: labels under the features, uint8 with `IGNORE`.
        offsets: the offsets of the affinities.

    Returns:
        Mean of -log W over background pairs (B,), over foreground pairs (B,), and of -log(1 - W) over negative pairs (B,). A mean
        over no pair is 0.

    Example:
        >>> labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
        >>> one = torch.ones(1, 1, 1, 4)
        >>> [round(float(part), 2) for part in pair_losses(one, labels, ((0, 1),))]
        [-0.0, -0.0, 11.51]
    """
    kinds = [torch.zeros_like(affinity_BOHW, dtype=torch.bool) for _ in range(3)]
    for place, offset in enumerate(offsets):
        first, second = _both(label_BHW, offset)
        known, same = (first != IGNORE) & (second != IGNORE), first == second
        for kind_BOHW, found in zip(kinds, (same & (first == 0), same & known & (first != 0), known & ~same), strict=True):
            kind_BOHW[:, place] = _placed(found, kind_BOHW, offset)
    near, far = -(affinity_BOHW + _FLOOR).log(), -(1 + _FLOOR - affinity_BOHW).log()
    background, foreground, negative = (
        torch.where(kind_BOHW, loss_BOHW, 0.0).flatten(1).sum(dim=1) / kind_BOHW.flatten(1).sum(dim=1).clamp(min=1)
        for kind_BOHW, loss_BOHW in zip(kinds, (near, near, far), strict=True)
    )
    return background, foreground, negative


def transitions(affinity_OHW: Tensor, offsets: tuple[Offset, ...], *, beta: float) -> SparseRows:
    """Return the matrix T of the random walk (PSA, Eq. 8) of one image, over n = H * W features.

    Args:
        affinity_OHW: affinities of the image.
        offsets: their offsets.
        beta: power of each affinity. A larger one makes the walk keep to what is alike.

    Returns:
        T (n, n), whose rows sum to 1.

    Example:
        >>> transitions(torch.tensor([[[1.0, 0.0]]]), ((0, 1),), beta=8.0).times(torch.eye(2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    height, width = affinity_OHW.shape[1:]
    place_HW = torch.arange(height * width, device=affinity_OHW.device).view(height, width)
    steps = {(0, 0): (torch.ones_like(affinity_OHW[0]), place_HW)}  # weights and neighbours; weight 0 where none is inside
    for weight_HW, offset in zip(affinity_OHW**beta, offsets, strict=True):
        there_HW, back_HW, back_weight_HW = place_HW.clone(), place_HW.clone(), torch.zeros_like(weight_HW)
        first, second = _both(place_HW, offset)
        _both(there_HW, offset)[0].copy_(second)
        _both(back_HW, offset)[1].copy_(first)
        _both(back_weight_HW, offset)[1].copy_(_both(weight_HW, offset)[0])
        steps[offset], steps[-offset[0], -offset[1]] = (weight_HW, there_HW), (back_weight_HW, back_HW)
    ordered = [steps[offset] for offset in sorted(steps)]
    weight_NO = torch.stack([weight_HW.flatten() for weight_HW, _ in ordered], dim=1)
    column_NO = torch.stack([neighbour_HW.flatten() for _, neighbour_HW in ordered], dim=1)
    share_NO = weight_NO / weight_NO.sum(dim=1, keepdim=True)
    starts = torch.arange(0, column_NO.numel() + 1, len(ordered), device=column_NO.device)
    return SparseRows(starts, column_NO.flatten(), share_NO.flatten())


def random_walk(map_CHW: Tensor, transition_NN: SparseRows, *, steps: int) -> Tensor:
    """Return maps after `steps` steps of the random walk (PSA, Eq. 9). Values stay between the map's smallest and largest.

    Example:
        >>> half = transitions(torch.tensor([[[1.0, 0.0]]]), ((0, 1),), beta=8.0)
        >>> random_walk(torch.tensor([[[1.0, 0.0]]]), half, steps=1)
        tensor([[[0.5000, 0.5000]]])
    """
    walked_NC = map_CHW.flatten(1).t().contiguous()
    for _ in range(steps):
        walked_NC = transition_NN.times(walked_NC)
    return walked_NC.t().reshape(map_CHW.shape)


def _both(value: Tensor, offset: Offset) -> tuple[Tensor, Tensor]:
    """Return the first and the second of all pairs at an offset, each (..., height - |y|, width - |x|)."""
    (y, x), (height, width) = offset, value.shape[-2:]
    return (
        value[..., : max(0, height - y), max(0, -x) : max(0, width - max(0, x))],
        value[..., y:, max(0, x) : max(0, width + min(0, x))],
    )


def _placed(pair: Tensor, like: Tensor, offset: Offset) -> Tensor:
    """Put values of the pairs at an offset to their first features; 0 elsewhere."""
    (y, x), (height, width) = offset, like.shape[-2:]
    pad = (min(max(0, -x), width), min(max(0, x), width), 0, min(y, height))
    return torch.nn.functional.pad(pair, pad)
