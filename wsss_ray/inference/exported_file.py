"""Describe an exported network's file: the inputs that it takes, and how its output compares with the network's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wsss_ray.inference.predictor import Predictor
from wsss_ray.ops.multiscale import resize_image, to_tensor

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray

MOST_DIFFERENT = 1e-4
"""The largest share of pixels whose labels may differ."""

Run = Callable[[Tensor], "np.ndarray[Any, np.dtype[np.float32]]"]
"""image_BCHW -> logits_BLHW, by the program that reads the file."""


class NotTheSame(ValueError):
    """An exported file gives other labels than the network."""


@dataclass(frozen=True)
class InputSizes:
    """The image sizes that a file takes: multiples of `step`, or only `fixed` (height, width) in a batch of one."""

    step: int = 1
    fixed: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Describe the sizes in words."""
        if self.fixed is not None:
            return f"one image of {self.fixed[0]}x{self.fixed[1]} (height x width)"
        return "any height, width and batch" if self.step == 1 else f"any batch, height and width multiples of {self.step}"

    def fit(self, image_HWC: ImageArray) -> ImageArray:
        """Crop the upper left part of an image to a size that the file takes."""
        height, width = self.fixed or (side // self.step * self.step for side in image_HWC.shape[:2])
        return np.ascontiguousarray(image_HWC[:height, :width])


@dataclass(frozen=True)
class Written:
    """An exported file and how it compares with the network.

    Attributes:
        file: The name of the file.
        takes: The sizes that it takes, in words.
        largest_difference: The largest difference of logits.
        pixels: The number of pixels compared.
        pixels_different: How many of them have another label.
        sizes_compared: Batch, height and width of the inputs compared.
        step: See `InputSizes`.
        fixed: See `InputSizes`.
        code_different: On how many pixels, and of how many, the labels of predict.py differ from `predict` without a CRF; None
            if there is no such file.
    """

    file: str
    takes: str
    largest_difference: float
    pixels: int
    pixels_different: int
    sizes_compared: tuple[tuple[int, int, int], ...]
    step: int = 1
    fixed: tuple[int, int] | None = None
    code_different: tuple[int, int] | None = None


def compared(net: Predictor, run: Run, file: str, sizes: InputSizes, image_HWC: ImageArray) -> Written:
    """Compare the file's logits with the network's: on the image and, if sizes are dynamic, resized and in a batch of two.

    Raises NotTheSame if the labels differ on more than `MOST_DIFFERENT` of the pixels.
    """
    found = Written(file, str(sizes), 0.0, 0, 0, (), step=sizes.step, fixed=sizes.fixed)
    for image_BCHW in _examples(sizes, image_HWC):
        with torch.inference_mode():
            ours = net(image_BCHW).numpy()
        theirs = run(image_BCHW)
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            raise NotTheSame(f"{file}: gives {theirs.shape} or no finite values, the network {ours.shape}; nothing was written")
        different = int((ours.argmax(1) != theirs.argmax(1)).sum())
        found = replace(
            found,
            largest_difference=max(found.largest_difference, float(np.abs(ours - theirs).max())),
            pixels=found.pixels + ours[:, 0].size,
            pixels_different=found.pixels_different + different,
            sizes_compared=(*found.sizes_compared, (len(ours), *ours.shape[2:])),
        )
    if found.pixels_different > MOST_DIFFERENT * found.pixels:
        raise NotTheSame(
            f"{file}: its labels differ from the network's on {found.pixels_different} of {found.pixels} pixels (allowed: "
            f"{MOST_DIFFERENT:g} of them; largest difference of logits {found.largest_difference:.2g}); nothing was written"
        )
    return found


def _examples(sizes: InputSizes, image_HWC: ImageArray) -> Iterator[Tensor]:
    least = [max(side, sizes.step) for side in image_HWC.shape[:2]]
    whole = resize_image(image_HWC, *least) if least != list(image_HWC.shape[:2]) else image_HWC
    device = torch.device("cpu")
    image_1CHW = to_tensor(sizes.fit(whole), device)
    yield image_1CHW
    if sizes.fixed is None:
        height, width = (max(sizes.step, round(side * share)) for side, share in zip(least, (0.7, 1.2), strict=True))
        yield to_tensor(sizes.fit(resize_image(whole, height, width)), device)
        yield torch.cat([image_1CHW, image_1CHW.flip(-1)])
