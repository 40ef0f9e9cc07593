"""Define the seed rules that several papers share: a threshold on the localization maps, or a dense CRF on them.

The threshold is that of FickleNet (section 3.2.2). With one map per class it is the plain threshold of CAM. The dense CRF is
type C of Multi-Estimations (section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsss_ray.core import IGNORE, Maps, Recipe, SeedRule, SinceThen, Threshold
from wsss_ray.ops.background import WITHOUT_SALIENCY, Background, SaliencyBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from wsss_ray.core import ImageArray, LabelArray, MapArray


class ThresholdSeeds(SeedRule):
    """Seeds by a threshold: a pixel belongs to a class if any map of the class exceeds `theta` (FickleNet, section 3.2.2).

    If several classes claim a pixel, the one with the highest mean map wins. Background cues come next, then optionally a dense
    CRF.
    """

    theta: float = Field(
        default=0.35, ge=0, le=1, description="Threshold: a pixel belongs to a class if any of its maps exceeds theta."
    )
    background: Background | None = Field(default=SaliencyBackground(), description="Background cues; null for none.")
    conflict: Literal["class", "background", "ignore"] = Field(
        default="class", description="Label of a pixel that is both a class and a background cue."
    )
    crf: DenseCrf | None = Field(default=None, description="Refine with a dense CRF over the labels present; null for none.")
    crf_confidence: float = Field(default=0.7, gt=0, lt=1, description="Probability of a seed's own label in the CRF's unary.")

    @property
    def needs_saliency(self) -> bool:
        """Return True if the background needs saliency. See `SeedRule.needs_saliency`."""
        return self.background is not None and self.background.needs_saliency

    @property
    def without_saliency(self) -> str:
        """Return advice on the background. See `SeedRule.without_saliency`."""
        return WITHOUT_SALIENCY

    @property
    def by_threshold(self) -> Threshold:
        """Return `theta`, which acts before the CRF. See `SeedRule.by_threshold`."""
        cues = self.background.cues if self.background is not None else None
        recipe = Recipe(winner="mean", conflict=self.conflict)
        return Threshold(field="theta", recipe=recipe, cues=cues, crf=self.crf is not None)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Label one image. See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops.seeds import cut

        label_HW = cut(self, image_HWC, maps, saliency_HW)
        if self.crf is None:
            return label_HW
        present, prob_CHW = self.crf.refine_labels(image_HWC, label_HW, self.crf_confidence)
        return np.asarray(present, np.uint8)[prob_CHW.argmax(axis=0)] if present else label_HW


class CrfSeeds(SeedRule):
    """Seeds by a dense CRF on a background score and the maps: each pixel gets its most probable label.

    With the background score from saliency, this is type C of Multi-Estimations (section 4.2). With `power_background`, it is the
    CRF of PSA and RRM (Eqs. 4 and 5). With a `confidence`, unsure pixels are undecided, as in CLIP-ES.
    """

    background: Background = SaliencyBackground()
    crf: DenseCrf | None = Field(
        default=DenseCrf(), description="CRF that refines the scores; null: take the largest score as it is."
    )
    salient_objects: Annotated[bool, SinceThen()] = Field(
        default=False,
        description="True: the score of a class is the mean of its map and the saliency map. It is ours, not of a paper: CAMs "
        "find the most telling part of an object, and saliency fills in the rest.",
    )
    confidence: Annotated[float, SinceThen()] = Field(
        default=0.0, ge=0, le=1, description="Score of the label, after the CRF, below which a pixel is undecided; 0: none is."
    )

    @property
    def needs_saliency(self) -> bool:
        """Return True if background or objects need saliency. See `SeedRule.needs_saliency`."""
        return self.background.needs_saliency or self.salient_objects

    @property
    def without_saliency(self) -> str | None:
        """Return advice on the background, if that is all that needs saliency. See `SeedRule.without_saliency`."""
        return None if self.salient_objects else WITHOUT_SALIENCY

    @property
    def by_threshold(self) -> Threshold | None:
        """Return the score of a background with a constant score, which acts as a threshold; None for other backgrounds."""
        if self.background.constant is None or self.salient_objects or self.confidence:
            return None
        recipe = Recipe(winner="peak", unclaimed="background")
        return Threshold(field=f"background.{self.background.constant}", recipe=recipe, crf=self.crf is not None)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Label one image. See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import seeds

        height, width = image_HWC.shape[:2]
        peak_CHW = seeds.resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        object_CHW = peak_CHW
        if self.salient_objects:
            assert saliency_HW is not None
            object_CHW = (peak_CHW + saliency_HW) * np.float32(0.5)
        score_CHW = np.concatenate([self.background.score(peak_CHW, saliency_HW)[None], object_CHW])
        if self.crf is not None:
            score_CHW = self.crf.refine(image_HWC, score_CHW)
        labels = np.array([0, *(tag + 1 for tag in maps.classes)], np.uint8)
        label_HW = np.asarray(labels[score_CHW.argmax(axis=0)])
        return np.where(score_CHW.max(axis=0) < self.confidence, np.uint8(IGNORE), label_HW)
