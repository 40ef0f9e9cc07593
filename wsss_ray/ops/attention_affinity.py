"""Refine localization maps with the attention of a transformer, as CLIP-ES does (class-aware attention-based affinity)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsss_ray.core.values import MapArray


def balanced(attention_NN: Tensor, *, rounds: int) -> Tensor:
    """Make an attention matrix nearly doubly stochastic and symmetric (Sinkhorn; CLIP-ES).

    Args:
        attention_NN: positive matrix.
        rounds: number of times that columns, then rows, are divided by their sums.

    Returns:
        Symmetric matrix, the mean of the result and its transpose.

    Example:
        >>> balanced(torch.tensor([[1.0, 1.0], [1.0, 3.0]]), rounds=50).sum(0)
        tensor([1.0000, 1.0000])
    """
    for _ in range(rounds):
        attention_NN = attention_NN / attention_NN.sum(dim=0, keepdim=True)
        attention_NN = attention_NN / attention_NN.sum(dim=1, keepdim=True)
    return (attention_NN + attention_NN.t()) / 2


def boxes(map_CHW: MapArray, threshold: float) -> NDArray[np.bool_]:
    """Mark the bounding boxes of the regions in which a map reaches a share of its maximum.

    Args:
        map_CHW: maps, at least 0. A map without positive values has no region.
        threshold: share of the maximum.

    Returns:
        Boxes, bool (C, H, W): one around each region of pixels that touch at a side or a corner.

    Example:
        >>> boxes(np.array([[[0.0, 1.0, 0.5, 0.0, 0.1]]]), 0.4)
        array([[[False,  True,  True, False, False]]])
    """
    import numpy as np
    from scipy.ndimage import find_objects, label

    inside_CHW = np.zeros(map_CHW.shape, np.bool_)
    for map_HW, inside_HW in zip(map_CHW, inside_CHW, strict=True):
        regions_HW, _ = label((map_HW >= threshold * map_HW.max()) & (map_HW > 0), structure=np.ones((3, 3)))
        for box in find_objects(regions_HW):
            inside_HW[box] = True
    return inside_CHW


def spread_in_boxes(map_CHW: Tensor, affinity_NN: Tensor, inside_CHW: Tensor, *, power: int) -> Tensor:
    """Spread maps by powers of an affinity, with what lies outside of the boxes left out (CLIP-ES).

    Args:
        map_CHW: maps on the grid of the patches.
        affinity_NN: affinity of the N = H * W patches.
        inside_CHW: boxes, True inside.
        power: power t of the affinity.

    Returns:
        Maps of the same shape: affinity^t times the maps, which are 0 outside of their boxes.

    Example:
        >>> spread_in_boxes(map_CHW, balanced(attention_NN, rounds=3), inside_CHW, power=2).shape == map_CHW.shape
        True
    """
    spread_NC = torch.where(inside_CHW, map_CHW, torch.zeros_like(map_CHW)).flatten(1).t()
    for _ in range(power):
        spread_NC = affinity_NN @ spread_NC
    return spread_NC.t().reshape(map_CHW.shape)
