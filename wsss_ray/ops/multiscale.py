"""Predictions of one image at several sizes, summed at the image's resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from wsss_ray.core.contracts import ImageArray


def to_tensor(image_HWC: ImageArray, device: torch.device) -> Tensor:
    """An image as a batch of one, float32 0..255: image_1CHW."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).unsqueeze(0).float()


def scaled_sizes(height: int, width: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """The size (height, width) at each scale, at least a pixel."""
    return [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]


def resize_image(image_HWC: ImageArray, height: int, width: int) -> ImageArray:
    """Bilinear resize, smoothed when it shrinks."""
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
    """The sum over `sizes` (height, width) of the logits, each with `flip` the mean of both mirror images: logits_LHW.

    `predict` gives logits at the resolution of the image that it is handed (`Segmenter.predict`).
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
