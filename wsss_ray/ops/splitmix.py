"""Random bits by counter: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), the same on every device and in any order.

Draw i of a key is mix(key + (i + 1) * golden gamma) modulo 2**64: no state, so that a loop, a batch and a kernel that draws where
it uses the bits see the same stream. Tensors hold the 64 bits as int64, whose sums and products wrap around.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SHIFTS = (30, 27, 31)


def signed(value: int) -> int:
    """64 bits read as a number of two's complement."""
    return (value + 2**63) % 2**64 - 2**63


def draws(key: int, counter: Tensor) -> Tensor:
    """64 random bits for each counter (int64, of any shape), as int64."""
    state = (counter + 1) * signed(GAMMA) + signed(key)
    for shift, factor in zip(SHIFTS, (FIRST, SECOND, None), strict=True):
        state = state ^ ((state >> shift) & (2 ** (64 - shift) - 1))  # the mask makes it a shift of unsigned numbers
        state = state if factor is None else state * signed(factor)
    return state


def lanes(key: int, counter: Tensor) -> Tensor:
    """The four 16-bit parts of each draw, lowest first, as int16: counter_XI to lanes_X(4I)."""
    return draws(key, counter).view(torch.int16)
