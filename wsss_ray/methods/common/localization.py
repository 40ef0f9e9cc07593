"""Pieces of localizers that several papers share: one image at several scales, and maps with one estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_ray.core.contracts import Maps

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from wsss_ray.core.contracts import ImageArray, MapArray


def at_scales(image_HWC: ImageArray, size: int | None, scales: Sequence[float], device: torch.device) -> list[Tensor]:
    """The image, warped to `size` if given, at each of `scales`, as batches of one."""
    from wsss_ray.ops.multiscale import resize_image, scaled_sizes, to_tensor

    base = image_HWC if size is None else resize_image(image_HWC, size, size)
    return [to_tensor(resize_image(base, *at), device) for at in scaled_sizes(base.shape[0], base.shape[1], scales)]


def one_map(map_CHW: Tensor, trunk: nn.Module, image_1CHW: Tensor, classes: Sequence[int]) -> Maps:
    """Maps with one estimate: its maximum is its mean."""
    from wsss_ray.ops.grid import axes

    rows, columns = axes(trunk, image_1CHW.shape[-2], image_1CHW.shape[-1])
    found: MapArray = map_CHW.float().cpu().numpy()
    return Maps(tuple(classes), peak_CHW=found, mean_CHW=found, rows=rows, columns=columns)
