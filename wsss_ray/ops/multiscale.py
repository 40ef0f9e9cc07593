"""Run a network on images at several sizes, and sum predictions at the resolution of each image.

Inputs of one size and their mirror images share batches. A batch has at most as many inputs as there are images. So the memory
grows with the number of images only, and a single image is computed exactly as without batches: one input at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray

Size = tuple[int, int]
"""Rows and columns of an image."""

_MOST_THREADS = 8


def to_tensor(image_HWC: ImageArray, device: torch.device) -> Tensor:
    """Convert an image to a batch of one.

    Args:
        image_HWC: uint8 RGB.
        device: device of the result.

    Returns:
        image_1CHW, float32 with values 0..255.

    Example:
        >>> to_tensor(np.zeros((32, 48, 3), np.uint8), torch.device("cpu")).shape
        torch.Size([1, 3, 32, 48])
    """
    return _moved(np.ascontiguousarray(image_HWC), device).permute(2, 0, 1).unsqueeze(0).float()


def to_batch(images: Sequence[ImageArray], device: torch.device) -> Tensor:
    """Convert images of one size to a batch.

    They go to a GPU as bytes and from pinned memory, so that the CPU does not wait for them.

    Args:
        images: uint8 RGB images (H, W, 3); at least one.
        device: device of the result.

    Returns:
        image_BCHW, float32 with values 0..255.

    Example:
        >>> to_batch([np.zeros((32, 48, 3), np.uint8)] * 4, torch.device("cpu")).shape
        torch.Size([4, 3, 32, 48])
    """
    if len(images) == 1:
        return to_tensor(images[0], device)
    return _moved(np.stack(images), device).permute(0, 3, 1, 2).float().contiguous()


def _moved(pixels: ImageArray, device: torch.device) -> Tensor:
    pixel = torch.from_numpy(pixels)
    return pixel.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixel.to(device)


def scaled_sizes(height: int, width: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Compute the size of an image at each scale.

    Args:
        height: rows of the image.
        width: columns of the image.
        scales: factors.

    Returns:
        (height, width) for each scale, rounded, at least 1 x 1.

    Example:
        >>> scaled_sizes(321, 200, (0.5, 1.0))
        [(160, 100), (321, 200)]
    """
    return [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]


def resize_image(image_HWC: ImageArray, height: int, width: int) -> ImageArray:
    """Resize an image bilinearly, with smoothing if it shrinks.

    Args:
        image_HWC: uint8 RGB.
        height: rows of the result.
        width: columns of the result.

    Returns:
        The resized image; `image_HWC` itself if it already has that size.

    Example:
        >>> resize_image(np.zeros((32, 48, 3), np.uint8), 16, 24).shape
        (16, 24, 3)
    """
    if image_HWC.shape[:2] == (height, width):
        return image_HWC
    return np.array(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))


def resize_images(images: Sequence[ImageArray], sizes: Sequence[Size]) -> list[ImageArray]:
    """Resize several images, in threads, each to its own size. See `resize_image`.

    Example:
        >>> [image.shape for image in resize_images([image_HWC, other_HWC], [(16, 24), (24, 16)])]
        [(16, 24, 3), (24, 16, 3)]
    """
    run = map if len(images) == 1 else _threads().map
    return list(run(lambda image, size: resize_image(image, *size), images, sizes))


def run_inputs(
    run: Callable[[Tensor], Tensor],
    images: Sequence[ImageArray],
    *,
    sizes: Sequence[Sequence[Size]],
    flip: bool,
    device: torch.device,
) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
    """Run a function on images at several sizes, with inputs of equal size in one batch.

    Args:
        run: function image_BCHW -> tensor with one entry per image, such as a network.
        images: uint8 RGB images (H, W, 3), which may differ in size.
        sizes: for each image, the sizes of its inputs.
        flip: also run the function on the mirror image of every input.
        device: device of the network.

    Yields:
        For every input, in any order: number of the image, number of the size, the output as a batch of one, and the output for
        the mirror image, not mirrored back; None without `flip`.

    Example:
        >>> for place, number, logits_1LHW, _ in run_inputs(net, images, sizes=[[(64, 64)]] * 8, flip=False, device=device):
        ...     found[place] = logits_1LHW
    """
    groups: dict[Size, list[tuple[int, int]]] = {}
    for number in range(max(map(len, sizes), default=0)):  # all inputs of one scale before those of the next
        for place, own in enumerate(sizes):
            if number < len(own):
                groups.setdefault(own[number], []).append((place, number))
    for size, members in groups.items():
        inputs = resize_images([images[place] for place, _ in members], [size] * len(members))
        found, mirrored = _run_both(run, to_batch(inputs, device), flip=flip, most=len(images))
        for k, (place, number) in enumerate(members):
            yield place, number, found[k : k + 1], None if mirrored is None else mirrored[k : k + 1]


def _run_both(run: Callable[[Tensor], Tensor], image_BCHW: Tensor, *, flip: bool, most: int) -> tuple[Tensor, Tensor | None]:
    """Run a function on a batch and on its mirror images, on at most `most` inputs at a time."""
    if not flip:
        return _run_parts(run, image_BCHW, most), None
    mirror_BCHW, count = image_BCHW.flip(-1), len(image_BCHW)
    if 2 * count > most:
        return _run_parts(run, image_BCHW, most), _run_parts(run, mirror_BCHW, most)
    both = run(torch.cat([image_BCHW, mirror_BCHW]))
    return both[:count], both[count:]


def _run_parts(run: Callable[[Tensor], Tensor], image_BCHW: Tensor, most: int) -> Tensor:
    parts = [run(part) for part in torch.split(image_BCHW, most)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def sum_logits(
    predict: Callable[[Tensor], Tensor],
    image_HWC: ImageArray,
    *,
    sizes: Sequence[Size],
    flip: bool,
    device: torch.device,
) -> Tensor:
    """Predict an image at several sizes and sum the logits at its own resolution.

    Args:
        predict: function image_BCHW -> logits_BLHW at the resolution of its input, such as `Segmenter.predict`.
        image_HWC: uint8 RGB.
        sizes: sizes (height, width) to predict at; at least one.
        flip: average the logits of each size with those of the mirror image.
        device: device of the network.

    Returns:
        logits_LHW, float32.

    Example:
        >>> sizes = scaled_sizes(*image_HWC.shape[:2], (0.5, 1.0))
        >>> logits_LHW = sum_logits(predict, image_HWC, sizes=sizes, flip=True, device=torch.device("cpu"))
        >>> label_HW = logits_LHW.argmax(dim=0)
    """
    return sum_logits_of(predict, [image_HWC], sizes=[sizes], flip=flip, device=device)[0]


@torch.inference_mode()
def sum_logits_of(
    predict: Callable[[Tensor], Tensor],
    images: Sequence[ImageArray],
    *,
    sizes: Sequence[Sequence[Size]],
    flip: bool,
    device: torch.device,
) -> list[Tensor]:
    """Predict several images at several sizes, in batches, and sum the logits of each at its own resolution.

    Args:
        predict: see `sum_logits`.
        images: uint8 RGB images, which may differ in size.
        sizes: for each image, the sizes (height, width) to predict at; at least one.
        flip: see `sum_logits`.
        device: device of the network.

    Returns:
        logits_LHW, float32, of each image.

    Example:
        >>> sizes = [scaled_sizes(*image_HWC.shape[:2], (0.5, 1.0)) for image_HWC in images]
        >>> logits = sum_logits_of(predict, images, sizes=sizes, flip=True, device=torch.device("cpu"))
    """
    totals: list[Tensor | None] = [None] * len(images)
    waiting: list[dict[int, Tensor]] = [{} for _ in images]
    summed = [0] * len(images)
    for place, number, logits, mirrored in run_inputs(predict, images, sizes=sizes, flip=flip, device=device):
        if mirrored is not None:
            logits = (logits + mirrored.flip(-1)) / 2
        height, width = images[place].shape[:2]
        waiting[place][number] = F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)[0]
        while summed[place] in waiting[place]:  # always in the order of the sizes: floating-point sums depend on it
            term, total = waiting[place].pop(summed[place]), totals[place]
            totals[place] = term if total is None else total + term
            summed[place] += 1
    found = [total for total in totals if total is not None]
    assert len(found) == len(images), "an image without sizes"
    return found


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="resize")
