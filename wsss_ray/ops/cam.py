"""Compute class activation maps (Zhou et al., CVPR 2016) at several scales, and fuse maps.

With global average pooling after a 1x1 convolution, the class score is the mean of that convolution's output. The output is
therefore the map, and no gradient is needed.
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
    """Merge the positive parts of the maps of one batch at several sizes (RRM, Eqs. 1 and 2).

    Args:
        cams: function image_BCHW -> raw maps of shape (..., h, w).
        trunk: the network's trunk; its `centres` gives the positions of the features.
        images: the batch at each size.
        flip: average the maps with those of the mirror image at every size.
        merge: take the mean over the sizes, or the maximum (Multi-Estimations, Table 3).

    Returns:
        Maps of shape (..., h, w) on the grid of the first size, at least 0 and not normalised.

    Example:
        >>> maps_BGKhw = merge_scales(net.cams, net.trunk, [image_BCHW, half_BCHW], flip=True)
    """
    each = [(cams(image), cams(image.flip(-1)) if flip else None) for image in images]
    return merge_maps(each, trunk, [(image.shape[-2], image.shape[-1]) for image in images], merge=merge)


def merge_maps(
    maps: Sequence[tuple[Tensor, Tensor | None]],
    trunk: nn.Module,
    sizes: Sequence[tuple[int, int]],
    *,
    merge: Merge = "mean",
    normalised: bool = False,
) -> Tensor:
    """Merge raw maps that a network has made at several sizes. See `merge_scales`, which also runs the network.

    Args:
        maps: for each size, raw maps of shape (..., h, w), and those of the mirror image, not mirrored back, or None.
        trunk: the network's trunk.
        sizes: rows and columns of the network's input at each size.
        merge: see `merge_scales`.
        normalised: divide the maps of each size by their maxima first.

    Returns:
        Maps of shape (..., h, w) on the grid of the first size, at least 0 and not normalised.

    Example:
        >>> maps_BKhw = merge_maps([(net.cams(image_BCHW), net.cams(image_BCHW.flip(-1)))], net.trunk, [(64, 64)])
    """
    found: list[Tensor] = []
    target = grid.axes(trunk, *sizes[0])
    for (raw, mirrored), at in zip(maps, sizes, strict=True):
        one = raw.relu()
        rows, columns = grid.axes(trunk, *at)
        if mirrored is not None:  # its features lie at other places, unless the side is a multiple of the stride plus 1
            size = (one.shape[-2], one.shape[-1])
            there = grid.mirrored(columns, size[1])
            other = grid.resample(mirrored.relu().flip(-1), size, source=(rows, there), target=(rows, columns))
            one = (one + other) / 2
        if found:
            size = (found[0].shape[-2], found[0].shape[-1])
            one = grid.resample(one, size, source=(rows, columns), target=target)
        found.append(normalise(one) if normalised else one)
    stack = torch.stack(found)
    return stack.mean(dim=0) if merge == "mean" else stack.amax(dim=0)


def normalise(map_CHW: Tensor) -> Tensor:
    """Set negative values to 0 and divide each map by its maximum (RRM, Eq. 3; Multi-Estimations, Eq. 3).

    Args:
        map_CHW: maps of shape (..., H, W).

    Returns:
        Maps in [0, 1]. A map without positive values is 0 everywhere. A maximum below 1e-5 counts as 1e-5.

    Example:
        >>> normalise(torch.tensor([[[-1.0, 1.0, 2.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000]]])
    """
    positive = map_CHW.clamp(min=0)
    return positive / positive.flatten(-2).amax(dim=-1)[..., None, None].clamp(min=1e-5) if positive.numel() else positive


def anti_noise(map_GCHW: Tensor) -> Tensor:
    """Fuse the maps of MDC's blocks: H = H0 + mean of the others (MDC, section 3.2).

    Args:
        map_GCHW: maps of G blocks. The first block is the one without dilation.

    Returns:
        map_CHW, not normalised.

    Example:
        >>> anti_noise(torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1))
        tensor([[[4.]]])
    """
    return map_GCHW[0] + map_GCHW[1:].mean(dim=0) if len(map_GCHW) > 1 else map_GCHW[0]
