"""Pilot experiment of "Employing Multi-Estimations" (Fan, Zhang and Tan, ECCV 2020, section 3): training on noisy human masks.

Blocks of random sizes turn a share of the foreground of the human masks into background. The segmentation network is trained on
one such set of labels, or on two sets with different blocks (Table 1).

Where the paper is silent: blocks are centred on foreground pixels and added until the share is reached. With `exact`, which the
jobs and the method's default have, this is done object by object, the sides of a block are between 1/16 and 1/4 of the object's
sides, and the last block is clipped, so that exactly the share is lost. An object is a connected region of one class. Without
`exact`, the sides are relative to the image and the last block is whole, so that small objects lose far more than the share: at
a ratio of 0.3 a third of an object of half the image, a half of one of 3% and four fifths of one of 1%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from wsss_ray.core import (
    IGNORE,
    Data,
    MaskNoise,
    Method,
    Metric,
    SeedScore,
    Segmenter,
    SinceThen,
    Stage,
    evaluate,
    evaluate_seeds,
    spoil,
    train,
)
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.multi_estimations import WeightedSegmenter
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsss_ray.core import LabelArray


class BlockNoise(MaskNoise):
    """Noise that covers the foreground with blocks of background until the share `ratio` of it is gone.

    By default the share is only a lower bound, and small objects lose most of their pixels. Set `exact` to lose the share itself.
    """

    ratio: float = Field(default=0.3, ge=0, lt=1, description="Share of the foreground pixels that become background.")
    min_side: float = Field(default=1 / 16, gt=0, le=1, description="Smallest side of a block, as a share of the image's.")
    max_side: float = Field(default=1 / 4, gt=0, le=1, description="Largest side of a block, as a share of the image's.")
    exact: Annotated[bool, SinceThen()] = Field(
        default=False,
        description="True: each object loses exactly `ratio`; sides are shares of its box, and its last block is clipped. "
        "False: the image loses at least `ratio`.",
    )

    def spoil(self, mask_HW: LabelArray, rng: np.random.Generator) -> LabelArray:
        """Cover a copy of the mask with blocks. See `MaskNoise.spoil`."""
        import numpy as np

        if self.exact:
            return self._spoil_objects(mask_HW, rng)
        spoilt: LabelArray = np.array(mask_HW)
        left_HW = (mask_HW != 0) & (mask_HW != IGNORE)
        allowed = left_HW.sum() * (1 - self.ratio)
        while self.ratio and left_HW.sum() > allowed:
            y, x = np.argwhere(left_HW)[rng.integers(left_HW.sum())]
            half = [max(1, round(side * rng.uniform(self.min_side, self.max_side) / 2)) for side in mask_HW.shape]
            block = np.s_[max(0, y - half[0]) : y + half[0], max(0, x - half[1]) : x + half[1]]
            spoilt[block] = np.where(left_HW[block], 0, spoilt[block])
            left_HW[block] = False
        return spoilt

    def _spoil_objects(self, mask_HW: LabelArray, rng: np.random.Generator) -> LabelArray:
        """Cover every object of a copy of the mask. Fractions of a pixel are carried on to the next object."""
        import numpy as np
        from scipy import ndimage

        spoilt: LabelArray = np.array(mask_HW)
        seen = lost = 0
        for label in np.unique(mask_HW[(mask_HW != 0) & (mask_HW != IGNORE)]):
            place_HW, _ = ndimage.label(mask_HW == label, structure=np.ones((3, 3)))
            for place, box in enumerate(ndimage.find_objects(place_HW), start=1):
                left_HW = place_HW[box] == place
                seen += int(left_HW.sum())
                wanted = round(self.ratio * seen) - lost
                lost += wanted
                while wanted:
                    taken = self._block(left_HW, rng)[:wanted]
                    left_HW[tuple(taken.T)] = False
                    spoilt[box][tuple(taken.T)] = 0
                    wanted -= len(taken)
        return spoilt

    def _block(self, left_HW: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw a block around one of the pixels that are left; return those in it as rows of (y, x), in reading order."""
        import numpy as np

        centre = np.argwhere(left_HW)[rng.integers(left_HW.sum())]
        sides = np.maximum(1, np.round(rng.uniform(self.min_side, self.max_side, size=2) * left_HW.shape).astype(int))
        start = np.maximum(0, centre - sides // 2)
        stop = centre - sides // 2 + sides
        inside: NDArray[np.intp] = np.argwhere(left_HW[tuple(map(slice, start, stop))]) + start
        return inside


def realised(mask_HW: LabelArray, noisy_HW: LabelArray) -> float:
    """Return the share of a mask's foreground that is background in its noisy copy.

    Over a data set, it is the share of the foreground's rows of the confusion matrix that lies in the column of background: the
    record of `quality-1` has that matrix.

    Args:
        mask_HW: human mask, with `IGNORE`.
        noisy_HW: its noisy copy.

    Returns:
        The share in [0, 1]; NaN if the mask has no foreground.

    Example:
        >>> realised(np.array([[0, 1, 2, 2, 255]]), np.array([[0, 0, 2, 2, 255]]))
        0.3333333333333333
    """
    foreground_HW = (mask_HW != 0) & (mask_HW != IGNORE)
    return float((noisy_HW[foreground_HW] == 0).mean()) if foreground_HW.any() else math.nan


class NoisyMasks(Method):
    """One training on `labels` noisy versions of the human masks of the weak split."""

    noise: BlockNoise = BlockNoise(exact=True)
    labels: int = Field(default=2, ge=1, description="Number of label sets, each with its own blocks (Table 1: one or two).")
    segmenter: Segmenter = WeightedSegmenter(sharpness=0.0)
    metric: Metric = MultiScale(flip=True, crf=DenseCrf(iterations=5))

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan noisy labels, one training and its score. Raise ValueError if the weak split has no masks."""
        if not data.weak_has_masks:
            raise ValueError("data.masks: noisy_masks needs human masks, but the weak split has none. Give data.masks.")
        draws = [self.noise.model_copy(update={"draw": self.noise.draw + k}) for k in range(self.labels)]
        seeds = [spoil(noise, data.weak, name=f"labels-{k}") for k, noise in enumerate(draws, start=1)]
        wanted = [evaluate_seeds(SeedScore(), one, data.weak, name=one.name.replace("labels", "quality")) for one in seeds]
        segmenter = train(self.segmenter, data.weak, seeds=seeds, name="segmenter")
        return (*wanted, evaluate(self.metric, segmenter, data.val) if data.val else segmenter)
