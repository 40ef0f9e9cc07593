"""Share steps of localizers: bring one image to several scales, and wrap maps with a single estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_ray.core import Maps

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, MapArray


def at_scales(image_HWC: ImageArray, size: int | None, scales: Sequence[float], device: torch.device) -> list[Tensor]:
    """Resize an image to several scales.

    Args:
        image_HWC: the image.
        size: side of the square that the image is resized to first; None keeps its size.
        scales: sizes relative to this.
        device: device of the result.

    Returns:
        One batch image_1CHW per scale, RGB 0..255.

    Example:
        >>> [image.shape[-2:] for image in at_scales(np.zeros((20, 30, 3), np.uint8), None, (1.0, 0.5), torch.device("cpu"))]
        [torch.Size([20, 30]), torch.Size([10, 15])]
    """
    from wsss_ray.ops.multiscale import resize_image, scaled_sizes, to_tensor

    base = image_HWC if size is None else resize_image(image_HWC, size, size)
    return [to_tensor(resize_image(base, *at), device) for at in scaled_sizes(base.shape[0], base.shape[1], scales)]


def one_map(map_CHW: Tensor, trunk: nn.Module, image_1CHW: Tensor, classes: Sequence[int]) -> Maps:
    """Wrap maps with a single estimate, whose maximum and mean are the same.

    Args:
        map_CHW: maps in [0, 1] on the grid of the trunk.
        trunk: the trunk, which knows where its features are on the image.
        image_1CHW: the image that the trunk saw; only its size is used.
        classes: tags (0-based) of the maps.
    """
    from wsss_ray.ops.grid import axes

    rows, columns = axes(trunk, image_1CHW.shape[-2], image_1CHW.shape[-1])
    found: MapArray = map_CHW.float().cpu().numpy()
    return Maps(tuple(classes), peak_CHW=found, mean_CHW=found, rows=rows, columns=columns)
