"""Employing Multi-Estimations for Weakly-Supervised Semantic Segmentation (Fan, Zhang and Tan, ECCV 2020).

Instead of one perfect seed, many: two types (4.2) x three scales (4.3) x two architectures (4.4) are twelve estimates of the same
truth. The segmentation network learns from all at once, each pixel's seeds weighted by whether they agree with the network's own
label (4.5). Table 3's merged maps are a localizer with several scales, `merge: max` or `mean`.

Where the paper is silent: VGG16's CAM network is that of SEC (two 3x3 layers of 1024 channels, dropout .5), ResNet38 has its
class layer alone; the CRF of type C is 10 iterations, 3 / 3 and 10 / 80 / 13, on [1 - saliency, maps]; a seed that is
undecided at a pixel has no part in it, neither in the softmax nor in the sum, and the loss is the mean over decided pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Augment, Batch, Learner, Localizer, Metric, SeedRule, SeedScore, Segmenter
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Poly, Schedule
from wsss_ray.core.plan import Data, Stage, evaluate, evaluate_seeds, localize, seed, train
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
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
    """Weighted selective training on all seeds of an image (Eqs. 5 to 7); with `sharpness` 0 their plain mean (Eq. 4)."""

    reads_seeds: ClassVar[int | None] = None
    head: Head = LargeFov()
    batch_size: int = Field(default=16, ge=1)
    epochs: float | None = 20.0
    steps: int | None = None
    augment: Augment = RandomCrop(size=321, min_scale=0.5, max_scale=1.5)
    schedule: Schedule = Poly(power=0.9)
    sharpness: float = Field(default=1.0, ge=0, description="s of Eq. 6.")
    over: Literal["labelled", "pixels"] = Field(
        default="labelled", description="Divide by the pixels that some seed decides, or by all, as Eqs. 4 and 5 are printed."
    )

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The selective cross-entropy."""
        from wsss_ray.ops.losses import selective_cross_entropy

        logits_BLHW, seeds_BEHW = self.scored(net, batch)
        loss_B, _ = selective_cross_entropy(logits_BLHW, seeds_BEHW, sharpness=self.sharpness, over=self.over)
        return {"selective": loss_B}


class Estimates(Component):
    """Seeds of one classifier: each of its localizers with each of its seed rules."""

    classifier: Learner
    localizers: tuple[Localizer, ...] = Field(default=(CamLocalizer(),), min_length=1)
    seed_rules: tuple[SeedRule, ...] = Field(default=(CrfSeeds(),), min_length=1)


class MultiEstimations(Method):
    """Every classifier with every localizer and every seed rule, and `extra` estimates of any other kind, into one training."""

    classifiers: tuple[Learner, ...] = Field(
        default=(CamClassifier(hidden=1024, layers=2, dropout=0.5, epochs=20.0), CamClassifier(trunk=ResNet38(), epochs=20.0)),
        description="The architectures (Table 4).",
    )
    localizers: tuple[Localizer, ...] = Field(
        default=(CamLocalizer(), CamLocalizer(scales=(0.75,)), CamLocalizer(scales=(0.5,))), description="The scales (Table 3)."
    )
    seed_rules: tuple[SeedRule, ...] = Field(
        default=(RegionSeeds(share=0.1, background=SaliencyBackground(threshold=0.06)), CrfSeeds()),
        description="The types, T and C (Table 2).",
    )
    extra: tuple[Estimates, ...] = Field(default=(), description="Seeds of other papers beside them.")
    segmenter: Segmenter = WeightedSegmenter()
    metric: Metric = MultiScale(flip=True, crf=DenseCrf(iterations=5))

    def plan(self, data: Data) -> Sequence[Stage]:
        """Classifiers, their maps, all seeds, one training, the score. Raises ValueError if that makes no seed at all."""
        of_each = [*(Estimates.model_construct(classifier=one, localizers=self.localizers, seed_rules=self.seed_rules)
                     for one in self.classifiers), *self.extra]  # fmt: skip
        seeds = []
        for a, estimates in enumerate(of_each, start=1):
            classifier = train(estimates.classifier, data.weak, name=f"classifier-{a}")
            for b, localizer in enumerate(estimates.localizers, start=1):
                maps = localize(localizer, classifier, data.weak, name=f"maps-{a}.{b}")
                for c, rule in enumerate(estimates.seed_rules, start=1):
                    seeds.append(seed(rule, maps, data.weak, saliency=data.saliency, name=f"seeds-{a}.{b}.{c}"))
        if not seeds:
            raise ValueError("method: no seeds; give classifiers with localizers and seed_rules, or extra")
        wanted = []
        if data.weak_has_masks:
            wanted = [evaluate_seeds(SeedScore(), one, data.weak, name=one.name.replace("seeds", "quality")) for one in seeds]
        segmenter = train(self.segmenter, data.weak, seeds=seeds, strong=data.strong, name="segmenter")
        return (*wanted, evaluate(self.metric, segmenter, data.val) if data.val else segmenter)
