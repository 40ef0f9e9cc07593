"""Between an image and the features of a network: what lies under a feature, and features enlarged to pixels.

Padded convolutions put feature i at pixel first + i * step, not in the middle of the i-th of n equal cells (VGG16 at 321: pixels
0, 8, ..., 320). Labels are read, and scores enlarged, where the features truly are; `Axis` says so for one side of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsss_ray.core.contracts import Axis

if TYPE_CHECKING:
    from torch import nn


def axes(trunk: nn.Module, height: int, width: int) -> tuple[Axis, Axis]:
    """Where a trunk's features lie along the rows and along the columns of an image of that size."""
    rows, columns = (_axis(trunk, size) for size in (height, width))
    return rows, columns


def _axis(trunk: nn.Module, size: int) -> Axis:
    first, step = trunk.centres(size)  # type: ignore[operator]
    return Axis(first=(first + 0.5) / size, step=step / size)


def mirrored(axis: Axis, cells: int) -> Axis:
    """Where the features of a mirror image lie once they are mirrored back."""
    return Axis(first=1 - axis.first - (cells - 1) * axis.step, step=axis.step)


def at_features(pixel_BHW: Tensor, features: tuple[int, int], rows: Axis, columns: Axis) -> Tensor:
    """The pixel under the centre of each feature: (..., H, W) -> (..., h, w), of the type it had; `features` is (h, w)."""
    under = [
        _places(count, axis, pixels, pixel_BHW.device)
        for count, axis, pixels in zip(features, (rows, columns), pixel_BHW.shape[-2:], strict=True)
    ]
    return pixel_BHW[..., under[0][:, None], under[1]]


def enlarge(map_BCHW: Tensor, height: int, width: int, rows: Axis, columns: Axis) -> Tensor:
    """Features at the pixels of the image, each at its own centre; constant beyond the outermost ones. Differentiable."""
    pixels = (Axis(first=0.5 / height, step=1 / height), Axis(first=0.5 / width, step=1 / width))
    return resample(map_BCHW, (height, width), source=(rows, columns), target=pixels)


def resample(map_BCHW: Tensor, size: tuple[int, int], *, source: tuple[Axis, Axis], target: tuple[Axis, Axis]) -> Tensor:
    """Linear interpolation from one grid on an image to another of `size`. Two matrix products: the same on every device."""
    tall, wide = (
        _weights(count, to, cells, of, map_BCHW)
        for count, to, cells, of in zip(size, target, map_BCHW.shape[-2:], source, strict=True)
    )
    return tall @ (map_BCHW @ wide.t())


def _places(count: int, axis: Axis, pixels: int, device: torch.device) -> Tensor:
    centre = (axis.first + torch.arange(count, dtype=torch.float64) * axis.step) * pixels - 0.5
    return centre.round().long().clamp(0, pixels - 1).to(device)


def _weights(count: int, to: Axis, cells: int, of: Axis, like: Tensor) -> Tensor:
    """(count, cells): each row holds the shares of the two features around one place of the target."""
    place = (to.first + torch.arange(count, dtype=torch.float64) * to.step - of.first) / of.step
    distance = (place.clamp(0, cells - 1)[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).to(like.device, like.dtype)
