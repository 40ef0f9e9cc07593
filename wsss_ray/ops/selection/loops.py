"""Run stochastic selection with compiled loops that draw the keep bits where they use them.

The stream and the sums are those of `sample_keep` and `selection_cams` (closed_form.py), but no masks are kept. At the paper's
size the masks have 27 million bits per image. The loops draw 1,681 bits at a time, which stay in the core's L1 cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsss_ray.ops.compiled import compiled
from wsss_ray.ops.splitmix import FIRST, GAMMA, SECOND, SHIFTS

_GAMMA, _FIRST, _SECOND = np.uint64(GAMMA), np.uint64(FIRST), np.uint64(SECOND)
_A, _B, _C = (np.uint64(shift) for shift in SHIFTS)
_ONE = np.uint64(1)


@compiled
def _kept(
    plane: int,
    size: int,
    width: int,
    key: np.uint64,
    below: int,
    draws: NDArray[np.uint64],
    keep_V: NDArray[np.floating],
) -> int:
    """Draw which windows keep an offset, and write 1 or 0 to `keep_V`, indexed by window position.

    `plane` is selection * S * S + offset, and `draws` is memory for the bits. A window that reads beyond the left or right side
    of the map gets 0. Return the distance, in the flattened map, from a window's position to the position that it reads.
    """
    d = plane % (size * size)
    down, right = d // size - size // 2, d % size - size // 2
    if down == 0 and right == 0:
        keep_V[:] = 1
        return 0
    start = np.uint64(plane * len(draws))
    for i in range(len(draws)):
        state = key + (start + np.uint64(i) + _ONE) * _GAMMA
        state = (state ^ (state >> _A)) * _FIRST
        state = (state ^ (state >> _B)) * _SECOND
        draws[i] = state ^ (state >> _C)
    lanes = draws.view(np.int16)
    for u in range(len(keep_V)):
        keep_V[u] = 1 if lanes[u] < below else 0
    for column in range(width):
        if not 0 <= column + right < width:
            keep_V[column::width] = 0
    return down * width + right


@compiled
def masked_sums(
    answer_CDV: NDArray[np.floating],
    size: int,
    height: int,
    width: int,
    key: np.uint64,
    first: int,
    below: int,
    sums_NCV: NDArray[np.floating],
) -> None:
    """Compute sums[n, c, v] = sum_d m_n[v - d, d] answer[c, d, v] for the selections from `first` on.

    Args:
        answer_CDV: product of the features and each offset of each class's kernel.
        size: side S of the window, D = S * S.
        height: rows of the map.
        width: columns of the map, V = height * width.
        key: key of the random stream.
        first: number of the first selection.
        below: bound of a signed 16-bit draw; an offset is kept if its draw is below.
        sums_NCV: sums; overwritten.

    Example:
        >>> sums_NCV = np.empty((200, classes, height * width), answer_CDV.dtype)
        >>> masked_sums(answer_CDV, 9, height, width, np.uint64(7), 0, below, sums_NCV)
    """
    count, classes, positions = sums_NCV.shape
    draws, keep_V = np.empty((positions + 3) // 4, np.uint64), np.empty(positions, answer_CDV.dtype)
    for n in range(count):
        sums_NCV[n] = 0
        for d in range(size * size):
            shift = _kept((first + n) * size * size + d, size, width, key, below, draws, keep_V)
            low, high = max(0, -shift), min(positions, positions - shift)
            if low >= high:  # the offset lies beyond the top or bottom for every window
                continue
            kept = keep_V[low:high]
            for c in range(classes):
                total, answer = sums_NCV[n, c, low + shift : high + shift], answer_CDV[c, d, low + shift : high + shift]
                for u in range(len(kept)):
                    total[u] += kept[u] * answer[u]


def masked_sums_of_tensors(
    answer_CDV: Tensor, size: int, height: int, width: int, key: int, first: int, below: int, sums_NCV: Tensor
) -> None:
    """Run `masked_sums` on CPU tensors.

    Example:
        >>> masked_sums_of_tensors(answer_CDV, 9, height, width, 7, 0, below, sums_NCV)
    """
    masked_sums(answer_CDV.numpy(), size, height, width, np.uint64(key % 2**64), first, below, sums_NCV.numpy())


@compiled
def source_masks(
    size: int, height: int, width: int, keys_B: NDArray[np.uint64], below: int, source_BDV: NDArray[np.floating]
) -> None:
    """Write the first selection of each key as numbers, source[b, d, v] = m_b[v - d, d].

    Args:
        size: side S of the window, D = S * S.
        height: rows of the map.
        width: columns of the map, V = height * width.
        keys_B: keys of the random streams.
        below: bound of a signed 16-bit draw; an offset is kept if its draw is below.
        source_BDV: masks indexed by source position; overwritten.

    Example:
        >>> source_masks(9, height, width, np.array([17, 42], np.uint64), below, source_BDV)
    """
    positions = height * width
    draws, keep_V = np.empty((positions + 3) // 4, np.uint64), np.empty(positions, source_BDV.dtype)
    for b in range(len(keys_B)):
        source_BDV[b] = 0
        for d in range(size * size):
            shift = _kept(d, size, width, keys_B[b], below, draws, keep_V)
            low, high = max(0, -shift), min(positions, positions - shift)
            if low >= high:
                continue
            source_BDV[b, d, low + shift : high + shift] = keep_V[low:high]
