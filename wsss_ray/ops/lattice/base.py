"""Gaussian filtering on the permutohedral lattice (Adams, Baek, Davis, Eurographics 2010).

    filtered_i = sum_j exp(-|f_i - f_j|^2 / 2) values_j        over all points j, i among them; approximately

The points of a D-dimensional space are spread over the D + 1 corners of their simplex (splat), the corners are blurred along
D + 1 directions, and read back (slice). Embedding, blur and the factor 1 / (1 + 2^-D) are those of Krähenbühl's densecrf, in the
same order of float32 operations, so that a CRF equals pydensecrf's. A corner's coordinates are packed into one int64.

There are two forms: compiled loops on a CPU (compiled.py), torch elsewhere (on_torch.py). Both sum in a fixed order,
so that results repeat bit by bit on a device and no column depends on another; from each other they differ by rounding.

The lattice is approximate. Where all its corners are in use its sums are 0.92, 0.88 and 0.71 of the exact ones in 1, 2 and 5
dimensions; images leave many corners of 5 dimensions empty, and the sums are about half. Divided by the filtered ones they come
close (tests/parity/test_lattice.py). The blurs' order makes it asymmetric, by some 5 %: `filter(a) . b` is
`a . filter(b, reverse=True)`.

Shapes: N points, D dimensions, V = D + 1 corners of a simplex, C columns of values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLE = 4  # densecrf works on four points at a time and fills the last four with the origin; the blur passes its corners
_LARGEST_KEY = 2**62
_LARGEST_COORDINATE = 2**20  # beyond, float32 leaves less than three bits to the weights


class Lattice(ABC):
    """The lattice of one set of points; it filters any number of values at them. Made by `build_lattice`."""

    @abstractmethod
    def filter(self, values_NC: Tensor, *, reverse: bool = False) -> Tensor:
        """filtered_NC: every column filtered; no gradient goes through.

        Args:
            values_NC: float32 or float64, on the lattice's device.
            reverse: the adjoint operator, which blurs in the opposite order. The gradient of `filter` is the filter in reverse.
        """


def spatial_features(height: int, width: int, *, sxy: float, device: torch.device | str = "cpu") -> Tensor:
    """features_N2 of the N = height * width pixels, row by row: (x, y) / sxy."""
    features_HW2 = torch.empty(height, width, 2, device=device)
    _place(features_HW2, sxy)
    return features_HW2.flatten(0, 1)


def bilateral_features(image_HWC: Tensor, *, sxy: float, srgb: float) -> Tensor:
    """features_N5 of an image's pixels, row by row: (x, y) / sxy and the three colours, of the image's units, / srgb."""
    height, width = image_HWC.shape[:2]
    features_HW5 = torch.empty(height, width, 5, device=image_HWC.device)
    _place(features_HW5, sxy)
    features_HW5[..., 2:] = image_HWC
    features_HW5[..., 2:] /= torch.tensor(srgb, device=image_HWC.device)
    return features_HW5.flatten(0, 1)


def _place(features_HWD: Tensor, sxy: float) -> None:
    height, width, _ = features_HWD.shape
    # by a tensor: CUDA divides by a number as a product with its inverse, which rounds otherwise
    by = torch.tensor(sxy, dtype=features_HWD.dtype, device=features_HWD.device)
    features_HWD[..., 0] = torch.arange(width, device=by.device) / by
    features_HWD[..., 1] = (torch.arange(height, device=by.device) / by)[:, None]


def padded(features_ND: Tensor) -> Tensor:
    """The points that the lattice is made of: the given ones and up to three at the origin, which have no values.

    Raises:
        ValueError: if there is no point or no dimension.
    """
    if features_ND.ndim != 2 or 0 in features_ND.shape:
        raise ValueError(f"the lattice wants features of shape (points, dimensions), none of them 0, got {features_ND.shape}")
    points, dimensions = features_ND.shape
    return torch.cat([features_ND, features_ND.new_zeros(-points % _MULTIPLE, dimensions)]) if points % _MULTIPLE else features_ND


def scales(corners: int, dtype: torch.dtype) -> list[float]:
    """What each dimension is multiplied with, after a 0: the filter's deviation in units of the lattice by the axis's length."""
    deviation = rounded(math.sqrt(2 / 3) * corners, dtype)
    return [0.0, *(deviation / math.sqrt(axis * (axis + 1)) for axis in range(1, corners))]


def rounded(value: float, dtype: torch.dtype) -> float:
    """The value as `dtype` holds it."""
    return float(torch.tensor(value, dtype=dtype))


def packing(low: Sequence[float], high: Sequence[float]) -> tuple[list[int], list[int]]:
    """How V coordinates go into one key: each one's lowest value, and its stride.

    Corners and neighbours, not 3 V away, have keys of their own. The last coordinate follows from the others, as all sum to 0,
    and has the stride 0.

    Args:
        low: the least coordinate of remainder 0 on each of the V axes.
        high: the largest.

    Raises:
        ValueError: if 62 bits do not hold the keys, or an extent is not finite.
    """
    reach = 3 * len(low)
    strides = [1]
    for least, most in zip(low[:-1], high[:-1], strict=True):
        if not max(-least, most) < _LARGEST_COORDINATE:  # so that a NaN fails too
            break
        strides.append(strides[-1] * (int(most - least) + 1 + 2 * reach))
    if len(strides) < len(low) or strides[-1] > _LARGEST_KEY:
        raise ValueError("the lattice is too fine: some features lie too many standard deviations apart, or are not finite")
    return [*(int(least) - reach for least in low[:-1]), 0], [*strides[:-1], 0]
