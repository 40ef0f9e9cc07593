"""DSRG: Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing (Huang et al., CVPR 2018).

Seeds from class activation maps and saliency; then every step of the segmentation network grows the static seeds into its own
CRF-refined prediction, trains on the grown seeds (balanced seed loss) and towards the CRF (boundary loss); then the network is
trained again on its own predictions. FickleNet has the same second half. Values and orders of operations follow
the authors' released configuration where the paper leaves them out: four ASPP branches, softmax with a floor of 1e-4, the CRF on
the reduced grid with its spatial widths divided by 12.

Differences: their CRF takes the energy -p, ours -log p as the CRF is defined (`crf.unary: probability` is theirs). Its result is
a constant in the boundary loss, as in SEC's later revision. The classifier behind their cues is not released: here it is the
CAM network of SEC, whose cues DSRG started from (two 3x3 layers of 1024 channels behind VGG16, foreground above .2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsss_ray.core.contracts import Augment, Batch, Learner, Localizer, Metric, Relabel, SeedRule, Segmenter
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Decay, Optimizer, Schedule, Sgd
from wsss_ray.core.plan import Data, Stage
from wsss_ray.data.transforms import Warp
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.chain import from_tags
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.common.segmentation import MultiScale, SegNetLearner, label_image
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core.contracts import ImageArray, LabelArray


Init = Annotated[
    Literal["trunk", "classifier"],
    Field(description="Start the segmenter from its trunk's own weights, or from the classifier's trunk."),
]


class DsrgSegmenter(SegNetLearner):
    """DeepLab trained with the balanced seed loss, the boundary loss and seeded region growing (sections 3.1 to 3.3).

    Images with human masks add `full_weight` times their cross-entropy (FickleNet, Eq. 2 and 3).
    """

    batch_size: int = Field(default=20, ge=1)
    steps: int | None = 8000
    augment: Augment = Warp(size=321)
    optimizer: Optimizer = Sgd(lr=5e-4, weight_decay=5e-4)
    schedule: Schedule = Decay(gamma=0.33, every_steps=1000)
    foreground_threshold: float = Field(default=0.85, ge=0, le=1, description="Probability above which a seed grows.")
    background_threshold: float = Field(default=0.99, ge=0, le=1, description="The same for background.")
    crf: DenseCrf = DenseCrf(scale=12.0)
    floor: float = Field(default=1e-4, ge=0, lt=0.01, description="Added to every probability.")
    full_weight: float = Field(default=2.0, ge=0, description="alpha of FickleNet's Eq. 2.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms seed and boundary, and full for images with human masks."""
        import torch

        from wsss_ray.ops import losses

        logits_BLHW, seeds_BEHW = self.scored(net, batch)
        image_BCHW = self.on_grid(net, batch.image_BCHW, logits_BLHW)
        prob_BLHW = losses.softmax_floor(logits_BLHW, self.floor)
        seeds_BHW = seeds_BEHW[:, 0]
        grown, refined = zip(
            *(self._targets(*one) for one in zip(image_BCHW, prob_BLHW.detach(), seeds_BHW, batch.tags_BK, strict=True)),
            strict=True,
        )
        terms = {
            "seed": losses.seed_loss(prob_BLHW.log(), torch.stack(grown).to(prob_BLHW.device)),
            "boundary": losses.boundary_loss(prob_BLHW, torch.stack(refined).to(prob_BLHW.device)),
        }
        if batch.strong_B.any():
            full_B = losses.full_loss(logits_BLHW, seeds_BHW)
            terms["full"] = torch.where(batch.strong_B, self.full_weight * full_B, torch.zeros_like(full_B))
        return terms

    def _targets(self, image_CHW: Tensor, prob_LHW: Tensor, seeds_HW: Tensor, tags_K: Tensor) -> tuple[Tensor, Tensor]:
        """Grown seeds (bool) and the CRF's probabilities of one image, on the network's grid."""
        import numpy as np
        import torch

        from wsss_ray.ops.growing import grow

        image_HWC = image_CHW.permute(1, 2, 0).byte().cpu().numpy()
        refined = self.crf.refine(image_HWC, prob_LHW.float().cpu().numpy())
        refined = np.maximum(refined, max(self.floor, 1e-8))
        refined /= refined.sum(axis=0, keepdims=True)
        present = [0, *(int(tag) + 1 for tag in tags_K.nonzero().flatten())]
        grown = grow(
            refined,
            seeds_HW.cpu().numpy(),
            present,
            fg_threshold=self.foreground_threshold,
            bg_threshold=self.background_threshold,
        )
        return torch.from_numpy(grown), torch.from_numpy(refined.astype(np.float32))


class DsrgRelabel(Relabel):
    """The trained segmenter's labels for the retrain stage: whole-image warps, summed scores, dense CRF on log p."""

    sizes: tuple[int, ...] = Field(default=(241, 321, 401), min_length=1, description="Sides of the warped squares.")
    flip: bool = False
    crf: DenseCrf | None = DenseCrf()
    only_tags: bool = Field(default=False, description="Allow only background and the image's tags.")

    def label(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int]) -> LabelArray:
        """See `Relabel.label`."""
        sizes = [(size, size) for size in self.sizes]
        only = classes if self.only_tags else None
        return label_image(segmenter, net, image_HWC, sizes=sizes, flip=self.flip, crf=self.crf, only=only)


class Dsrg(Method):
    """Image tags to a segmentation model: classifier, class activation maps, seeds, region growing, and training again."""

    classifier: Learner = CamClassifier(
        hidden=1024,
        layers=2,
        dropout=0.5,
        batch_size=15,
        epochs=None,
        steps=8000,
        augment=Warp(size=321),
        schedule=Decay(gamma=0.1, every_steps=4000),
    )
    localizer: Localizer = CamLocalizer(size=321)
    seed_rule: SeedRule = ThresholdSeeds(theta=0.2)
    segmenter: Segmenter = DsrgSegmenter()
    segmenter_init: Init = "trunk"
    relabel: Relabel | None = Field(default=DsrgRelabel(), description="The segmenter's own pseudo-labels; null skips retrain.")
    retrain: Segmenter = DeeplabSegmenter()
    metric: Metric = MultiScale()

    def plan(self, data: Data) -> Sequence[Stage]:
        """Classifier, maps, seeds, segmenter, its labels, the segmenter retrained, the score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            from_classifier=self.segmenter_init == "classifier",
            relabel_rule=self.relabel,
            retrain=self.retrain,
            metric=self.metric,
        )
