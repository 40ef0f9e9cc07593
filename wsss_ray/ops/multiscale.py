"""Predict one image at several sizes and sum the predictions at its resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray


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
    return torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).unsqueeze(0).float()


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


@torch.inference_mode()
def sum_logits(
    predict: Callable[[Tensor], Tensor],
    image_HWC: ImageArray,
    *,
    sizes: Sequence[tuple[int, int]],
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
    height, width = image_HWC.shape[:2]
    total: Tensor | None = None
    for rows, columns in sizes:
        image_1CHW = to_tensor(resize_image(image_HWC, rows, columns), device)
        logits = predict(image_1CHW)
        if flip:
            logits = (logits + predict(image_1CHW.flip(-1)).flip(-1)) / 2
        logits = F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)[0]
        total = logits if total is None else total + logits
    assert total is not None
    return total
