"""Class activation maps (Zhou et al., CVPR 2016) at several scales, and how maps are fused.

With global average pooling behind a 1x1 convolution the class score is the mean of that convolution's output: the output is the
map, no gradient is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wsss_ray.ops import grid

Merge = Literal["mean", "max"]


def merge_scales(
    cams: Callable[[Tensor], Tensor], trunk: nn.Module, images: Sequence[Tensor], *, flip: bool = False, merge: Merge = "mean"
) -> Tensor:
    """The positive part of the maps of one batch at several sizes, merged on the grid of the first (RRM, Eqs. 1 and 2).

    Args:
        cams: image_BCHW -> raw maps, (..., h, w).
        trunk: tells where features lie (`centres`).
        images: the batch at each size.
        flip: take the mean with the mirror image at every size.
        merge: the mean over the sizes, or the maximum (Multi-Estimations, Table 3).
    """
    found: list[Tensor] = []
    target = grid.axes(trunk, *images[0].shape[-2:])
    for image in images:
        maps = cams(image).relu()
        rows, columns = grid.axes(trunk, *image.shape[-2:])
        if flip:  # the features of the mirror image lie elsewhere, unless the side is a multiple of the stride and one
            size = (maps.shape[-2], maps.shape[-1])
            there = grid.mirrored(columns, size[1])
            other = grid.resample(cams(image.flip(-1)).relu().flip(-1), size, source=(rows, there), target=(rows, columns))
            maps = (maps + other) / 2
        if found:
            size = (found[0].shape[-2], found[0].shape[-1])
            maps = grid.resample(maps, size, source=(rows, columns), target=target)
        found.append(maps)
    stack = torch.stack(found)
    return stack.mean(dim=0) if merge == "mean" else stack.amax(dim=0)


def normalise(map_CHW: Tensor) -> Tensor:
    """Each map over its maximum, negative values cut (RRM, Eq. 3; Multi-Estimations, Eq. 3): in [0, 1]; an empty map stays 0."""
    positive = map_CHW.clamp(min=0)
    return positive / positive.flatten(-2).amax(dim=-1)[..., None, None].clamp(min=1e-5) if positive.numel() else positive


def anti_noise(map_GCHW: Tensor) -> Tensor:
    """MDC's fusion of G dilated blocks, the first of them undilated: H = H0 + mean of the others (section 3.2)."""
    return map_GCHW[0] + map_GCHW[1:].mean(dim=0) if len(map_GCHW) > 1 else map_GCHW[0]
