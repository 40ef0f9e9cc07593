"""Share steps of localizers: bring images to the size of the network, and wrap maps with a single estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_ray.core import Maps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, MapArray


def at_size(images: Sequence[ImageArray], size: int | None) -> list[ImageArray]:
    """Resize images to a square.

    Args:
        images: the images.
        size: side of the square; None keeps the size of each image.

    Example:
        >>> [image.shape for image in at_size([np.zeros((20, 30, 3), np.uint8)], 16)]
        [(16, 16, 3)]
    """
    from wsss_ray.ops.multiscale import resize_images

    return list(images) if size is None else resize_images(images, [(size, size)] * len(images))


def one_map(map_CHW: Tensor, trunk: nn.Module, size: Sequence[int], classes: Sequence[int]) -> Maps:
    """Wrap maps with a single estimate, whose maximum and mean are the same.

    Args:
        map_CHW: maps in [0, 1] on the grid of the trunk.
        trunk: the trunk, which knows where its features are on the image.
        size: rows and columns of the image that the trunk saw.
        classes: tags (0-based) of the maps.
    """
    from wsss_ray.ops.grid import axes

    rows, columns = axes(trunk, size[0], size[1])
    found: MapArray = map_CHW.float().cpu().numpy()
    return Maps(tuple(classes), peak_CHW=found, mean_CHW=found, rows=rows, columns=columns)
