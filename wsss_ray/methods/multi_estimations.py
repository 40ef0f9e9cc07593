"""Employing Multi-Estimations for Weakly-Supervised Semantic Segmentation (Fan, Zhang and Tan, ECCV 2020).

The method makes many imperfect seeds instead of one perfect seed. Two types (4.2), three scales (4.3) and two architectures
(4.4) give twelve label maps per image. The segmentation network learns from all of them at once. At each pixel, seeds that
agree with the network's own prediction get a higher weight (4.5). For the merged maps of Table 3, use one localizer with
several scales and `merge: max` or `mean`.

The classifiers' loss is a sum over the classes (Eq. 1), and their learning rate changes once per epoch (5.2). "The last two
downsampling layers' strides to 1" (5.2) keeps pool5; here the classifier's VGG16 ends before it.

Where the paper is silent:
- The CAM network of VGG16 is that of SEC: two 3x3 layers of 1024 channels, dropout 0.5. ResNet38 has only a class layer.
- The CRF of type C runs on [1 - saliency, maps] with 10 iterations. Its smoothness kernel has weight 3 and width 3. Its
  appearance kernel has weight 10, and widths 80 (positions) and 13 (colours).

Where the defaults differ from the printed equations, and fields give the printed form:
- Eqs. 4 and 5 divide by all pixels. The loss here is averaged over the pixels that some seed decides (`over`).
- In Eqs. 4 to 6, a seed that is unknown at a pixel counts among the N_k seeds there and takes its share of the weights. Here the
  other seeds share it, because section 4.2 says that unknown pixels are ignored (`unknown`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from wsss_ray.core import (
    Augment,
    Batch,
    Component,
    Data,
    Learner,
    Localizer,
    Method,
    Metric,
    Poly,
    Refiner,
    Schedule,
    SeedRule,
    SeedScore,
    Segmenter,
    SinceThen,
    Stage,
    evaluate,
    evaluate_seeds,
    localize,
    seed,
    train,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.chain import REFINE, refined, tag_quality
from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.methods.common.segmentation import MultiScale, SegNetLearner
from wsss_ray.methods.mdc import RegionSeeds
from wsss_ray.nets.deeplab import Head, LargeFov
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.ops.background import SaliencyBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightedSegmenter(SegNetLearner):
    """DeepLab with weighted selective training on all seeds of an image (Eqs. 5 to 7); `sharpness` 0: the plain loss (Eq. 4)."""

    reads_seeds: ClassVar[int | None] = None
    head: Head = LargeFov()
    batch_size: int = Field(default=16, ge=1)
    epochs: float | None = Field(default=20.0, gt=0)
    steps: int | None = Field(default=None, ge=0)
    augment: Augment = RandomCrop(size=321, min_scale=0.5, max_scale=1.5)
    schedule: Schedule = Poly(power=0.9)
    sharpness: float = Field(default=1.0, ge=0, description="Sharpness of the weights, s of Eq. 6.")
    over: Literal["labelled", "pixels"] = Field(
        default="labelled",
        description="Divide by the pixels that some seed decides, or by all pixels, as printed in Eqs. 4 and 5.",
    )
    unknown: Annotated[Literal["left_out", "counted"], SinceThen()] = Field(
        default="left_out",
        description="Seeds that are unknown at a pixel. left_out: the other seeds share their weight; counted: they keep it and "
        "add no loss, so that each seed has 1 / N_k in Eq. 4, as printed.",
    )

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the term selective, a cross-entropy with weighted seeds."""
        from wsss_ray.ops.losses import selective_cross_entropy

        logits_BLHW, seeds_BEHW = self.scored(net, batch)
        loss_B, _ = selective_cross_entropy(
            logits_BLHW, seeds_BEHW, sharpness=self.sharpness, over=self.over, unknown=self.unknown
        )
        return {"selective": loss_B}


class Estimates(Component):
    """One classifier with the localizers and seed rules that make its seeds. Every localizer is used with every seed rule."""

    classifier: Learner
    localizers: tuple[Localizer, ...] = Field(default=(CamLocalizer(),), min_length=1)
    seed_rules: tuple[SeedRule, ...] = Field(default=(CrfSeeds(),), min_length=1)


AS_PRINTED: dict[str, Any] = {"epochs": 20.0, "over_classes": "sum", "schedule": Poly(power=0.9, every="epoch")}
"""The loss and the length of the classifiers' trainings (Eq. 1 and section 5.2)."""


class MultiEstimations(Method):
    """One training on the seeds of every classifier with every localizer and every seed rule, and on the `extra` estimates."""

    classifiers: tuple[Learner, ...] = Field(
        default=(
            CamClassifier(hidden=1024, layers=2, hidden_std=0.01, dropout=0.5, **AS_PRINTED),
            CamClassifier(trunk=ResNet38(), **AS_PRINTED),
        ),
        description="Classifiers, one per architecture (Table 4).",
    )
    localizers: tuple[Localizer, ...] = Field(
        default=(CamLocalizer(), CamLocalizer(scales=(0.75,)), CamLocalizer(scales=(0.5,))),
        description="Localizers, one per scale (Table 3).",
    )
    seed_rules: tuple[SeedRule, ...] = Field(
        default=(RegionSeeds(share=0.1, background=SaliencyBackground(threshold=0.06)), CrfSeeds()),
        description="Seed rules, one per type: T (threshold) and C (CRF) (Table 2).",
    )
    extra: tuple[Estimates, ...] = Field(default=(), description="More estimates, such as those of other papers.")
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    segmenter: Segmenter = WeightedSegmenter()
    metric: Metric = MultiScale(flip=True, crf=DenseCrf(iterations=5))

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifiers, their maps, all seeds, one training and its score. Raise ValueError if there is no seed at all."""
        of_each = [*(Estimates.model_construct(classifier=one, localizers=self.localizers, seed_rules=self.seed_rules)
                     for one in self.classifiers), *self.extra]  # fmt: skip
        seeds: list[Stage] = []
        wanted: list[Stage] = []
        for a, estimates in enumerate(of_each, start=1):
            classifier = train(estimates.classifier, data.weak, name=f"classifier-{a}")
            wanted += tag_quality(classifier, data, name=f"tag_quality-{a}")
            for b, localizer in enumerate(estimates.localizers, start=1):
                maps = localize(localizer, classifier, data.weak, name=f"maps-{a}.{b}")
                maps = refined(self.refine, "maps", data, classifier=classifier, maps=maps, suffix=f"-{a}.{b}")
                for c, rule in enumerate(estimates.seed_rules, start=1):
                    one = seed(rule, maps, data.weak, saliency=data.saliency, name=f"seeds-{a}.{b}.{c}")
                    suffix = f"-{a}.{b}.{c}"
                    seeds.append(refined(self.refine, "seeds", data, classifier=classifier, maps=maps, seeds=one, suffix=suffix))
                    if data.weak_has_masks:
                        wanted.append(evaluate_seeds(SeedScore(), seeds[-1], data.weak, name=f"quality-{a}.{b}.{c}"))
        if not seeds:
            raise ValueError("method: it makes no seeds. Give classifiers with localizers and seed_rules, or extra.")
        segmenter = train(self.segmenter, data.weak, seeds=seeds, strong=data.strong, name="segmenter")
        return (*wanted, evaluate(self.metric, segmenter, data.val) if data.val else segmenter)
