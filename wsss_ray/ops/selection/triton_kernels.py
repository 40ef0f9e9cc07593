"""Run `loops.masked_sums` as a CUDA kernel in Triton, which draws the keep bits in registers.

The stream and the order of additions are those of the loops. Triton comes with torch's CUDA builds. Without Triton,
`closed_form.stochastic_cams` keeps the masks in memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wsss_ray.ops import splitmix

_BLOCK_V = 256
_STREAM = {
    "GAMMA": splitmix.signed(splitmix.GAMMA),
    "FIRST": splitmix.signed(splitmix.FIRST),
    "SECOND": splitmix.signed(splitmix.SECOND),
} | dict(zip(("SHIFT_A", "SHIFT_B", "SHIFT_C"), splitmix.SHIFTS, strict=True))


def masked_sums(
    answer_CDV: Tensor, size: int, height: int, width: int, key: int, first: int, below: int, sums_NCV: Tensor
) -> None:
    """Compute the sums of `loops.masked_sums` on one CUDA device. Tensors are contiguous, float32 or float64.

    Example:
        >>> masked_sums(answer_CDV, 9, height, width, 7, 0, below, sums_NCV)
    """
    count, classes, positions = sums_NCV.shape
    block_c = min(8, triton.next_power_of_2(classes))
    grid = (count, triton.cdiv(positions, _BLOCK_V), triton.cdiv(classes, block_c))
    _kernel[grid](
        answer_CDV,
        sums_NCV,
        answer_CDV.new_full((1,), splitmix.signed(key), dtype=torch.int64),  # in memory: Triton may pass an argument as 32 bits
        first,
        below,
        height,
        width,
        classes,
        SIZE=size,
        BLOCK_V=_BLOCK_V,
        BLOCK_C=block_c,
        **_STREAM,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    answer_ptr,
    sums_ptr,
    key_ptr,
    first,
    below,
    height,
    width,
    classes,
    SIZE: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
    GAMMA: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    SHIFT_A: tl.constexpr,
    SHIFT_B: tl.constexpr,
    SHIFT_C: tl.constexpr,
):
    positions = height * width
    words = (positions + 3) // 4
    n = tl.program_id(0)
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    y, x = v // width, v % width
    key = tl.load(key_ptr)
    total = tl.zeros((BLOCK_C, BLOCK_V), dtype=sums_ptr.dtype.element_ty)
    for d in range(SIZE * SIZE):
        uy, ux = y - (d // SIZE - SIZE // 2), x - (d % SIZE - SIZE // 2)
        inside = (v < positions) & (uy >= 0) & (uy < height) & (ux >= 0) & (ux < width)
        u = uy * width + ux
        plane = (first + n).to(tl.int64) * (SIZE * SIZE) + d
        state = key + (plane * words + u // 4 + 1) * GAMMA
        state = (state ^ _logical(state, SHIFT_A)) * FIRST
        state = (state ^ _logical(state, SHIFT_B)) * SECOND
        state = state ^ _logical(state, SHIFT_C)
        lane = (state >> (16 * (u % 4)).to(tl.int64)) & 0xFFFF
        signed = (lane ^ 0x8000) - 0x8000
        keep = inside & ((signed < below) | (d == SIZE * SIZE // 2))
        wanted = (c[:, None] < classes) & keep[None, :]
        total += tl.load(answer_ptr + (c[:, None] * (SIZE * SIZE) + d) * positions + v[None, :], mask=wanted, other=0)
    there = (c[:, None] < classes) & (v[None, :] < positions)
    tl.store(sums_ptr + (n.to(tl.int64) * classes + c[:, None]) * positions + v[None, :], total, mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _logical(state, shift: tl.constexpr):  # type: ignore[no-untyped-def]
    """Shift the bits to the right as an unsigned number."""
    return (state.to(tl.uint64, bitcast=True) >> shift).to(tl.int64, bitcast=True)
