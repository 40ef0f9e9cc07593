"""DeepLab (Chen et al., ICLR 2015 and TPAMI 2017): cross-entropy on human masks, the upper bound of the weak methods.

The method trains on human masks. Its segmenter is also a part of other methods: it is the retrain stage of DSRG and the second
stage of RRM.

Difference: the loss is averaged over the labelled pixels of each image first, then over the images, so that the number of
workers does not change it. The original Caffe code averages over all labelled pixels of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from wsss_ray.core import Batch, Data, Decay, Learner, Method, Metric, Segmenter, Stage, evaluate, train
from wsss_ray.methods.common.chain import tag_quality
from wsss_ray.methods.common.segmentation import MultiScale, SegNetLearner, begins_with_one
from wsss_ray.nets.deeplab import LargeFov, build_segmenter
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn


class DeeplabSegmenter(SegNetLearner):
    """A segmenter trained by cross-entropy on the first label map of each image.

    With several `input_scales` (the multi-scale inputs of DeepLab v2), the scores of all scales are fused by their maximum. Each
    scale then has its own cross-entropy, and so has the maximum.
    """

    input_scales: tuple[float, ...] = Field(
        default=(1.0,), min_length=1, description="Relative sizes of the inputs; DeepLab v2 uses 1, 0.75 and 0.5."
    )

    _from_one = field_validator("input_scales")(begins_with_one)

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        return build_segmenter(self.trunk, self.head, num_classes, scales=self.input_scales)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy on labelled pixels; with several scales, of each scale and of the fused scores."""
        from wsss_ray.ops.losses import cross_entropy

        logits, label_BEHW = self.scored(net, batch)
        if self.input_scales == (1.0,):
            return {"cross_entropy": cross_entropy(logits, label_BEHW[:, 0])}
        names = [*(f"scale_{scale:g}" for scale in self.input_scales), "fused"]
        return {name: cross_entropy(part, label_BEHW[:, 0]) for name, part in zip(names, logits, strict=True)}

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the logits; with several scales, the fused ones. See `Segmenter.predict`."""
        logits = super().predict(net, image_BCHW)
        return logits if self.input_scales == (1.0,) else logits[-1]


LARGE_FOV = DeeplabSegmenter(head=LargeFov(), batch_size=20, steps=6000, schedule=Decay(gamma=0.1, every_steps=2000))
"""DeepLab-CRF-LargeFOV with the released settings (ICLR 2015)."""

LARGE_FOV_CRF = MultiScale(scales=(1.0,), crf=DenseCrf(bilateral_weight=4.0, bilateral_sxy=49.0, bilateral_srgb=5.0))
"""Predictions for the score as in the released scripts."""


class DeepLab(Method):
    """Fully supervised training on the human masks of one split: the upper bound of the weakly supervised methods."""

    classifier: Learner | None = Field(
        default=None, description="Classifier to train first; the segmenter starts from its trunk. null: none."
    )
    segmenter: Segmenter = LARGE_FOV
    masks: Literal["weak", "strong"] = Field(default="weak", description="Split whose masks are used.")
    metric: Metric = LARGE_FOV_CRF

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan one training and its score. Raise ValueError if the split has no masks."""
        split = data.strong if self.masks == "strong" else data.weak if data.weak_has_masks else None
        if split is None:
            raise ValueError(f"method.masks: the {self.masks} split has no masks. Give data.masks or choose the other split.")
        classifier = train(self.classifier, data.weak, name="classifier") if self.classifier else None
        segmenter = train(self.segmenter, split, strong=split, init=classifier, name="segmenter")
        return (*tag_quality(classifier, data), evaluate(self.metric, segmenter, data.val) if data.val else segmenter)
