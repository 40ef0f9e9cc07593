"""Cut training samples from images, with the same geometry for an image and all its label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.core.contracts import Augment, Outcomes
from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    import numpy as np

    from wsss_ray.core.values import ImageArray, LabelArray

_PAD = (123, 117, 104)
"""The colour of padding: the ImageNet mean, which networks see as nearly zero."""


class Warp(Augment):
    """Resize the whole image to a square, ignoring its aspect ratio, and mirror it with probability 0.5 (as DSRG and SEC do)."""

    size: int = Field(default=321, ge=8, description="Side of the square in pixels.")
    flip: bool = Field(default=True, description="Mirror a sample with probability 0.5.")

    @property
    def outcomes(self) -> Outcomes:
        """Return one or mirrored. See `Augment.outcomes`."""
        return "mirrored" if self.flip else "one"

    def __call__(self, image_HWC: ImageArray, seeds_EHW: LabelArray, rng: np.random.Generator) -> tuple[ImageArray, LabelArray]:
        """See `Augment`."""
        image, seeds = _resize(image_HWC, seeds_EHW, self.size, self.size)
        return _mirror(image, seeds) if self.flip and rng.random() < 0.5 else (image, seeds)

    def whole(self, image_HWC: ImageArray) -> ImageArray:
        """Return the square, not mirrored. See `Augment.whole`."""
        import numpy as np

        return _resize(image_HWC, np.zeros((0, *image_HWC.shape[:2]), np.uint8), self.size, self.size)[0]


class RandomCrop(Augment):
    """Scale by a random factor, cut a square at a random place, and mirror with probability 0.5.

    An image smaller than the square is put at a random place in it. The mean colour pads the image, `IGNORE` its labels.
    """

    size: int = Field(default=321, ge=8, description="Side of the crop in pixels.")
    min_scale: float = Field(default=1.0, gt=0, description="Smallest factor by which an image is scaled.")
    max_scale: float = Field(default=1.0, gt=0, description="Largest factor by which an image is scaled.")
    flip: bool = Field(default=True, description="Mirror a sample with probability 0.5.")

    def __call__(self, image_HWC: ImageArray, seeds_EHW: LabelArray, rng: np.random.Generator) -> tuple[ImageArray, LabelArray]:
        """See `Augment`."""
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, columns = (max(1, round(side * scale)) for side in image_HWC.shape[:2])
        image, seeds = _resize(image_HWC, seeds_EHW, rows, columns)
        top, left = (int(rng.integers(min(0, side - self.size), max(0, side - self.size) + 1)) for side in (rows, columns))
        image, seeds = _window(image, seeds, top, left, self.size)
        return _mirror(image, seeds) if self.flip and rng.random() < 0.5 else (image, seeds)


def _resize(image: ImageArray, seeds: LabelArray, rows: int, columns: int) -> tuple[ImageArray, LabelArray]:
    import numpy as np
    from PIL import Image

    if image.shape[:2] == (rows, columns):
        return image, seeds
    resized = np.array(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    labels = [np.array(Image.fromarray(s).resize((columns, rows), Image.Resampling.NEAREST)) for s in seeds]
    return resized, np.stack(labels) if labels else np.zeros((0, rows, columns), np.uint8)


def _window(image: ImageArray, seeds: LabelArray, top: int, left: int, size: int) -> tuple[ImageArray, LabelArray]:
    import numpy as np

    rows, columns = image.shape[:2]
    crop = np.empty((size, size, 3), np.uint8)
    crop[:] = _PAD
    labels = np.full((len(seeds), size, size), IGNORE, np.uint8)
    source = np.s_[max(0, top) : min(rows, top + size), max(0, left) : min(columns, left + size)]
    target = np.s_[max(0, -top) : min(size, rows - top), max(0, -left) : min(size, columns - left)]
    crop[target] = image[source]
    labels[:, target[0], target[1]] = seeds[:, source[0], source[1]]
    return crop, labels


def _mirror(image: ImageArray, seeds: LabelArray) -> tuple[ImageArray, LabelArray]:
    return image[:, ::-1], seeds[:, :, ::-1]
