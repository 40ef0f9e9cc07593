"""Share steps of localizers: bring images to the size of the network, merge maps of several scales, and wrap maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wsss_ray.core import Maps

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, MapArray
    from wsss_ray.ops.cam import Merge


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


def merged_maps(
    cams: Callable[[Tensor], Tensor],
    trunk: nn.Module,
    images: Sequence[ImageArray],
    classes: Sequence[Sequence[int]],
    *,
    device: torch.device,
    size: int | None,
    scales: Sequence[float],
    flip: bool,
    scaled: Callable[[Tensor], Tensor],
    merge: Merge = "mean",
    normalise_each: bool = False,
) -> list[Maps]:
    """Make the maps of several images with a network's maps of all classes, merged over scales and mirrored images.

    Args:
        cams: function image_BCHW -> raw maps_BKhw of all classes. Inputs of equal size share a batch.
        trunk: the network's trunk.
        images: whole images.
        classes: tags (0-based) of each image.
        device: device of the network.
        size: side of the square that images are resized to first; None keeps their sizes.
        scales: sizes of the network's input, relative to this size.
        flip: average with the maps of the mirror image.
        scaled: function that brings the merged map_CHW of an image to [0, 1].
        merge: take the mean over the scales, or the maximum.
        normalise_each: divide the maps of each scale by their maxima before they are merged.

    Example:
        >>> how = {"size": None, "scales": (1.0, 0.5), "flip": True, "scaled": normalise}
        >>> maps = merged_maps(net.maps, net.trunk, images, classes, device=device, **how)
    """
    import torch

    from wsss_ray.ops.cam import merge_maps
    from wsss_ray.ops.multiscale import run_inputs, scaled_sizes

    bases = at_size(images, size)
    sizes = [scaled_sizes(base.shape[0], base.shape[1], scales) for base in bases]
    raw: list[dict[int, tuple[Tensor, Tensor | None]]] = [{} for _ in bases]
    with torch.inference_mode():
        chosen = [torch.tensor(tags, dtype=torch.long, device=device) for tags in classes]  # once, for all scales
        for place, number, maps, mirrored in run_inputs(cams, bases, sizes=sizes, flip=flip, device=device):
            own = chosen[place]
            raw[place][number] = maps[:, own], None if mirrored is None else mirrored[:, own]
        found = []
        for each, at, tags in zip(raw, sizes, classes, strict=True):
            merged = merge_maps([each[number] for number in range(len(at))], trunk, at, merge=merge, normalised=normalise_each)
            found.append(one_map(scaled(merged[0]), trunk, at[0], tags))
    return found


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
