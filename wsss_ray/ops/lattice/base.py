"""Define Gaussian filtering on the permutohedral lattice (Adams, Baek, Davis, Eurographics 2010).

    filtered_i = sum_j exp(-|f_i - f_j|^2 / 2) values_j        approximately, over all points j including i

Splat: each point of a D-dimensional space adds its value to the D + 1 corners of its simplex. Blur: the corners are blurred along
D + 1 directions. Slice: each point reads its value back from its corners. The embedding, the blur and the factor 1 / (1 + 2^-D)
are those of Krähenbühl's densecrf, with the same order of float32 operations, so a CRF gives the result of pydensecrf. The
coordinates of a corner are packed into one int64, its key.

There are two implementations: compiled loops on a CPU (compiled.py), torch on other devices (on_torch.py). Both sum in a fixed
order: results repeat bit by bit on a device, and no column depends on another. The two differ from each other by rounding.

The lattice is an approximation. If all corners are in use, its sums are 0.92, 0.88 and 0.71 of the exact ones in 1, 2 and 5
dimensions. Images leave many corners of 5 dimensions empty; the sums are then about half of the exact ones. Sums divided by
`filter(1)` come close to the exact ratios (tests/parity/test_lattice.py). The order of the blurs makes the filter asymmetric by
about 5 %: `filter(a) . b` equals `a . filter(b, reverse=True)`.

Shapes: N points, D dimensions, V = D + 1 corners of a simplex, C columns of values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLE = 4  # densecrf takes four points at a time and fills the last four with the origin, whose corners the blur passes
_LARGEST_KEY = 2**62
_LARGEST_COORDINATE = 2**20  # beyond this, float32 leaves fewer than three bits for the weights


class Lattice(ABC):
    """Lattice of one set of points, which filters any values at these points. Call `build_lattice` to make one."""

    @abstractmethod
    def filter(self, values_NC: Tensor, *, reverse: bool = False) -> Tensor:
        """Filter every column. No gradient flows through.

        Args:
            values_NC: float32 or float64, on the lattice's device.
            reverse: blur in the opposite order. This is the adjoint operator, which maps a gradient of the result to one of the
                values.

        Returns:
            filtered_NC, of the same type.

        Example:
            >>> lattice = build_lattice(spatial_features(4, 5, sxy=3.0))
            >>> lattice.filter(torch.ones(20, 2)).shape
            torch.Size([20, 2])
        """


def spatial_features(height: int, width: int, *, sxy: float, device: torch.device | str = "cpu") -> Tensor:
    """Compute the features (x, y) / sxy of the pixels of an image, row by row.

    Args:
        height: rows of the image.
        width: columns of the image.
        sxy: standard deviation of the Gaussian in pixels.
        device: device of the result.

    Returns:
        features_N2, float32, with N = height * width.

    Example:
        >>> spatial_features(1, 3, sxy=2.0)
        tensor([[0.0000, 0.0000],
                [0.5000, 0.0000],
                [1.0000, 0.0000]])
    """
    features_HW2 = torch.empty(height, width, 2, device=device)
    _place(features_HW2, sxy)
    return features_HW2.flatten(0, 1)


def bilateral_features(image_HWC: Tensor, *, sxy: float, srgb: float) -> Tensor:
    """Compute the features (x, y) / sxy and (r, g, b) / srgb of the pixels of an image, row by row.

    Args:
        image_HWC: RGB of any type.
        sxy: standard deviation of the Gaussian in pixels.
        srgb: standard deviation of the Gaussian in the image's units of colour.

    Returns:
        features_N5, float32, with N = height * width, on the image's device.

    Example:
        >>> bilateral_features(torch.zeros(4, 5, 3, dtype=torch.uint8), sxy=80.0, srgb=13.0).shape
        torch.Size([20, 5])
    """
    height, width = image_HWC.shape[:2]
    features_HW5 = torch.empty(height, width, 5, device=image_HWC.device)
    _place(features_HW5, sxy)
    features_HW5[..., 2:] = image_HWC
    features_HW5[..., 2:] /= torch.full((), srgb, device=image_HWC.device)  # see _place
    return features_HW5.flatten(0, 1)


def _place(features_HWD: Tensor, sxy: float) -> None:
    """Write the positions into the first two features."""
    height, width, _ = features_HWD.shape
    # divide by a tensor: to divide by a number, CUDA multiplies by its inverse, which rounds differently
    by = torch.full((), sxy, dtype=features_HWD.dtype, device=features_HWD.device)
    features_HWD[..., 0] = torch.arange(width, device=by.device) / by
    features_HWD[..., 1] = (torch.arange(height, device=by.device) / by)[:, None]


def padded(features_ND: Tensor) -> Tensor:
    """Add points at the origin until the number of points is a multiple of 4. The added points have no values.

    Args:
        features_ND: features of the points.

    Returns:
        Features of the given points and of up to three more.

    Raises:
        ValueError: if there is no point or no dimension.

    Example:
        >>> padded(torch.ones(6, 2)).shape
        torch.Size([8, 2])
    """
    if features_ND.ndim != 2 or 0 in features_ND.shape:
        shape = tuple(features_ND.shape)
        raise ValueError(f"features_ND: shape {shape} is not (points, dimensions). Give at least one point and one dimension.")
    points, dimensions = features_ND.shape
    return torch.cat([features_ND, features_ND.new_zeros(-points % _MULTIPLE, dimensions)]) if points % _MULTIPLE else features_ND


def scales(corners: int, dtype: torch.dtype) -> list[float]:
    """Compute the factor of each dimension: the filter's standard deviation in lattice units over the length of the axis.

    Args:
        corners: number of corners V = D + 1.
        dtype: type of the features; it decides the rounding.

    Returns:
        V numbers: 0, then the factors of the D dimensions.

    Example:
        >>> [round(factor, 3) for factor in scales(3, torch.float32)]
        [0.0, 1.732, 1.0]
    """
    deviation = rounded(math.sqrt(2 / 3) * corners, dtype)
    return [0.0, *(deviation / math.sqrt(axis * (axis + 1)) for axis in range(1, corners))]


def rounded(value: float, dtype: torch.dtype) -> float:
    """Round a number to the precision of a type.

    Args:
        value: the number.
        dtype: floating-point type.

    Returns:
        The nearest number of that type.

    Example:
        >>> rounded(0.1, torch.float32)
        0.10000000149011612
    """
    return float(torch.tensor(value, dtype=dtype))


def packing(low: Sequence[float], high: Sequence[float]) -> tuple[list[int], list[int]]:
    """Plan how to pack V coordinates into one key: the lowest value and the stride of each coordinate.

    A margin of 3 V on each side gives corners and their neighbours different keys. The coordinates sum to 0, so the last one
    follows from the others and has stride 0.

    Args:
        low: least coordinate of remainder 0 on each of the V axes.
        high: largest coordinate of remainder 0 on each axis.

    Returns:
        The lowest values and the strides.

    Raises:
        ValueError: if the keys need more than 62 bits, or an extent is not finite.

    Example:
        >>> packing([0.0, 0.0, 0.0], [3.0, 3.0, 3.0])
        ([-9, -9, 0], [1, 22, 0])
    """
    reach = 3 * len(low)
    strides = [1]
    for least, most in zip(low[:-1], high[:-1], strict=True):
        if not max(-least, most) < _LARGEST_COORDINATE:  # written this way, a NaN fails too
            break
        strides.append(strides[-1] * (int(most - least) + 1 + 2 * reach))
    if len(strides) < len(low) or strides[-1] > _LARGEST_KEY:
        why = "features lie too many standard deviations apart, or are not finite"
        raise ValueError(f"features_ND: the lattice is too fine: {why}. Increase sxy or srgb, or remove NaN and infinity.")
    return [*(int(least) - reach for least in low[:-1]), 0], [*strides[:-1], 0]
