"""Seed rules that several papers share: a threshold on the localization maps, or a dense CRF on them.

The threshold is FickleNet's (section 3.2.2), which for a single map is the plain threshold of CAM. The dense CRF is type C of
Multi-Estimations (section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Maps, SeedRule
from wsss_ray.core.threshold import Recipe, Threshold
from wsss_ray.ops.background import Background, CamBackground, SaliencyBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from wsss_ray.core.contracts import ImageArray, LabelArray, MapArray


class ThresholdSeeds(SeedRule):
    """A pixel belongs to a class where its map exceeds `theta` (FickleNet, 3.2.2: where any of its maps does).

    Where several do, the class with the highest mean map wins. Then background cues, and optionally a dense CRF.
    """

    theta: float = Field(default=0.35, ge=0, le=1, description="A pixel belongs to a class where some map exceeds theta.")
    background: Background | None = Field(default=SaliencyBackground(), description="Background cues; null for none.")
    conflict: Literal["class", "background", "ignore"] = Field(
        default="class", description="Who wins where a pixel is both a class and a background cue."
    )
    crf: DenseCrf | None = Field(default=None, description="Refine with a dense CRF over the labels present; null for none.")
    crf_confidence: float = Field(default=0.7, gt=0, lt=1, description="Probability of a seed's own label in the CRF's unary.")

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return self.background is not None and self.background.needs_saliency

    @property
    def by_threshold(self) -> Threshold:
        """See `SeedRule.by_threshold`: `theta`, before the CRF."""
        cues = self.background.cues if self.background is not None else None
        recipe = Recipe(winner="mean", conflict=self.conflict)
        return Threshold(field="theta", recipe=recipe, cues=cues, crf=self.crf is not None)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops.seeds import cut

        label_HW = cut(self, image_HWC, maps, saliency_HW)
        if self.crf is None:
            return label_HW
        present, prob_CHW = self.crf.refine_labels(image_HWC, label_HW, self.crf_confidence)
        return np.asarray(present, np.uint8)[prob_CHW.argmax(axis=0)] if present else label_HW


class CrfSeeds(SeedRule):
    """The likeliest label after a dense CRF on the maps and a background score: every pixel is decided.

    Type C of Multi-Estimations (section 4.2), with the background's score from saliency; with `power_background` the CRF of PSA
    and RRM (Eqs. 4 and 5).
    """

    background: Background = SaliencyBackground()
    crf: DenseCrf | None = Field(default=DenseCrf(), description="null: the largest score, unrefined.")

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return self.background.needs_saliency

    @property
    def by_threshold(self) -> Threshold | None:
        """See `SeedRule.by_threshold`: the score of a `cam_background`, the same at every pixel, is one. Others are none."""
        if not isinstance(self.background, CamBackground):
            return None
        recipe = Recipe(winner="peak", unclaimed="background")
        return Threshold(field="background.threshold", recipe=recipe, crf=self.crf is not None)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import seeds

        height, width = image_HWC.shape[:2]
        peak_CHW = seeds.resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        score_CHW = np.concatenate([self.background.score(peak_CHW, saliency_HW)[None], peak_CHW])
        if self.crf is not None:
            score_CHW = self.crf.refine(image_HWC, score_CHW)
        labels = np.array([0, *(tag + 1 for tag in maps.classes)], np.uint8)
        return np.asarray(labels[score_CHW.argmax(axis=0)])
