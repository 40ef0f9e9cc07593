"""Convert between the pixels of an image and the features of a network.

Padded convolutions put feature i at pixel first + i * step, not in the middle of the i-th of n equal cells. For VGG16 on 321
pixels these are the pixels 0, 8, ..., 320. The functions here read labels and enlarge scores at these true positions. An `Axis`
describes the positions along one side of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsss_ray.core.values import Axis

if TYPE_CHECKING:
    from torch import nn


def axes(trunk: nn.Module, height: int, width: int) -> tuple[Axis, Axis]:
    """Return the positions of a trunk's features on an image.

    Args:
        trunk: module with a method `centres`, as `Trunk.build` returns it.
        height: rows of the image.
        width: columns of the image.

    Returns:
        The axis of the rows and the axis of the columns.

    Example:
        >>> rows, columns = axes(Vgg16(weights="none").build(), 321, 321)
        >>> rows.step * 321
        8.0
    """
    rows, columns = (_axis(trunk, size) for size in (height, width))
    return rows, columns


def _axis(trunk: nn.Module, size: int) -> Axis:
    """Return the positions of features along one side of `size` pixels."""
    first, step = trunk.centres(size)  # type: ignore[operator]
    return Axis(first=(first + 0.5) / size, step=step / size)


def mirrored(axis: Axis, cells: int) -> Axis:
    """Return the positions of a mirror image's features after they are mirrored back.

    Args:
        axis: positions of the features on the mirror image.
        cells: number of features along the side.

    Returns:
        Positions on the original image.

    Example:
        >>> mirrored(Axis(first=0.125, step=0.25), cells=3)
        Axis(first=0.375, step=0.25)
    """
    return Axis(first=1 - axis.first - (cells - 1) * axis.step, step=axis.step)


def at_features(pixel_BHW: Tensor, features: tuple[int, int], rows: Axis, columns: Axis) -> Tensor:
    """Read the pixel under the centre of each feature.

    Args:
        pixel_BHW: values of shape (..., H, W) at the pixels of the image, of any type.
        features: size (h, w) of the feature map.
        rows: positions of the features along the rows.
        columns: positions of the features along the columns.

    Returns:
        Values of shape (..., h, w) and of the same type.

    Example:
        >>> even = Axis(first=0.25, step=0.5)
        >>> at_features(torch.arange(16).view(1, 4, 4), (2, 2), even, even)
        tensor([[[ 0,  2],
                 [ 8, 10]]])
    """
    under = [
        _places(count, axis, pixels, pixel_BHW.device)
        for count, axis, pixels in zip(features, (rows, columns), pixel_BHW.shape[-2:], strict=True)
    ]
    return pixel_BHW[..., under[0][:, None], under[1]]


def enlarge(map_BCHW: Tensor, height: int, width: int, rows: Axis, columns: Axis) -> Tensor:
    """Enlarge features to the pixels of the image by linear interpolation. Differentiable.

    Args:
        map_BCHW: features of shape (..., h, w).
        height: rows of the image.
        width: columns of the image.
        rows: positions of the features along the rows.
        columns: positions of the features along the columns.

    Returns:
        Values of shape (..., height, width). Beyond the outermost features they are constant.

    Example:
        >>> middle = Axis(first=0.25, step=0.5)
        >>> enlarge(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]), 2, 4, middle, middle)[0, 0, 0]
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    pixels = (Axis(first=0.5 / height, step=1 / height), Axis(first=0.5 / width, step=1 / width))
    return resample(map_BCHW, (height, width), source=(rows, columns), target=pixels)


def resample(map_BCHW: Tensor, size: tuple[int, int], *, source: tuple[Axis, Axis], target: tuple[Axis, Axis]) -> Tensor:
    """Interpolate linearly from one grid on an image to another. Two matrix products give the same result on every device.

    Args:
        map_BCHW: values of shape (..., h, w) on the source grid.
        size: rows and columns of the target grid.
        source: row and column positions of the source grid.
        target: row and column positions of the target grid.

    Returns:
        Values of shape (..., *size). Beyond the outermost source points they are constant.

    Example:
        >>> fine, coarse = Axis(first=0.125, step=0.25), Axis(first=0.25, step=0.5)
        >>> resample(torch.rand(1, 8, 4, 4), (2, 2), source=(fine, fine), target=(coarse, coarse)).shape
        torch.Size([1, 8, 2, 2])
    """
    tall, wide = (
        _weights(count, to, cells, of, map_BCHW)
        for count, to, cells, of in zip(size, target, map_BCHW.shape[-2:], source, strict=True)
    )
    return tall @ (map_BCHW @ wide.t())


def _places(count: int, axis: Axis, pixels: int, device: torch.device) -> Tensor:
    """Return the nearest pixel to each of `count` features. Computed on the device: a copy to a GPU would make the host wait."""
    centre = (axis.first + torch.arange(count, dtype=torch.float64, device=device) * axis.step) * pixels - 0.5
    return centre.round().long().clamp(0, pixels - 1)


def _weights(count: int, to: Axis, cells: int, of: Axis, like: Tensor) -> Tensor:
    """Return weights (count, cells): row i holds the shares of the two source points around target point i."""
    exact: Any = {"dtype": torch.float64, "device": like.device}
    # divide by a tensor: to divide by a number, CUDA multiplies by its inverse, which rounds differently
    place = (to.first + torch.arange(count, **exact) * to.step - of.first) / torch.full((), of.step, **exact)
    distance = (place.clamp(0, cells - 1)[:, None] - torch.arange(cells, **exact)).abs()
    return (1 - distance).clamp(min=0).to(like.dtype)
