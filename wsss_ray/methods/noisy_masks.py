"""Pilot experiment of "Employing Multi-Estimations" (Fan, Zhang and Tan, ECCV 2020, section 3): training on noisy human masks.

Blocks of random sizes turn a share of the foreground of the human masks into background. The segmentation network is trained on
one such set of labels, or on two sets with different blocks (Table 1).

Where the paper is silent: the sides of a block are between 1/16 and 1/4 of the image's sides. Blocks are centred on foreground
pixels and added until the share is reached, so the last block may exceed it a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.core import (
    IGNORE,
    Data,
    MaskNoise,
    Method,
    Metric,
    SeedScore,
    Segmenter,
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

    from wsss_ray.core import LabelArray


class BlockNoise(MaskNoise):
    """Noise that covers the foreground with blocks of background until the share `ratio` of it is gone."""

    ratio: float = Field(default=0.3, ge=0, lt=1, description="Share of the foreground pixels that become background.")
    min_side: float = Field(default=1 / 16, gt=0, le=1, description="Smallest side of a block, as a share of the image's side.")
    max_side: float = Field(default=1 / 4, gt=0, le=1, description="Largest side of a block, as a share of the image's side.")

    def spoil(self, mask_HW: LabelArray, rng: np.random.Generator) -> LabelArray:
        """Cover a copy of the mask with blocks. See `MaskNoise.spoil`."""
        import numpy as np

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


class NoisyMasks(Method):
    """One training on `labels` noisy versions of the human masks of the weak split."""

    noise: BlockNoise = BlockNoise()
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
