"""Draw random bits by counter with SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), equal on every device and in any order.

Draw i of a key is mix(key + (i + 1) * golden gamma) modulo 2**64. There is no state: a loop, a batch, and a kernel that draws
bits where it uses them all see the same stream. Tensors hold the 64 bits as int64, whose sums and products wrap around.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SHIFTS = (30, 27, 31)


def signed(value: int) -> int:
    """Read 64 bits as a signed number in two's complement.

    Args:
        value: number in 0..2**64 - 1.

    Returns:
        Number in -2**63..2**63 - 1 with the same bits.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    return (value + 2**63) % 2**64 - 2**63


def draws(key: int | Tensor, counter: Tensor) -> Tensor:
    """Draw 64 random bits for each counter.

    Args:
        key: key of the stream, 64 bits; or int64 that broadcasts with `counter`, for a stream each.
        counter: int64 of any shape.

    Returns:
        int64 of the common shape.

    Example:
        >>> draws(7, torch.arange(3)).shape
        torch.Size([3])
    """
    state = (counter + 1) * signed(GAMMA) + (key if isinstance(key, Tensor) else signed(key))
    for shift, factor in zip(SHIFTS, (FIRST, SECOND, None), strict=True):
        state = state ^ ((state >> shift) & (2 ** (64 - shift) - 1))  # the mask makes it an unsigned shift
        state = state if factor is None else state * signed(factor)
    return state


def lanes(key: int | Tensor, counter: Tensor) -> Tensor:
    """Draw four 16-bit numbers for each counter: the parts of a 64-bit draw, lowest bits first.

    Args:
        key: key of the stream, 64 bits; or int64 that broadcasts with `counter`, for a stream each.
        counter: int64 of shape (..., I).

    Returns:
        int16 of shape (..., 4 I).

    Example:
        >>> lanes(7, torch.arange(3)).shape
        torch.Size([12])
    """
    return draws(key, counter).view(torch.int16)
