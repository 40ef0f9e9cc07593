"""DSRG: Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing (Huang et al., CVPR 2018).

Seeds come from class activation maps and saliency. In every step, the segmentation network refines its prediction with a dense
CRF and grows the static seeds into the refined prediction. It is trained on the grown seeds (balanced seed loss) and towards
the refined prediction (boundary loss). Afterwards the network is trained again on its own predictions. FickleNet uses the same
two trainings.

Where the paper is silent, values and order of operations follow the authors' released configuration: four ASPP branches, a
softmax with a floor of 1e-4, and the CRF on the reduced grid with its spatial widths divided by 12.

Differences:
- Their CRF takes -p as the unary energy. Ours takes -log p, as the CRF is defined. `crf.unary: probability` gives theirs.
- The CRF's result is a constant in the boundary loss: no gradient flows through it, as in the later revision of SEC.
- Their cues come from a classifier that is not released. Here it is the CAM network of SEC, whose cues DSRG started from: two
  3x3 layers of 1024 channels behind VGG16, foreground above 0.2. SEC trains it in Caffe, whose loss sums over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsss_ray.core import (
    Augment,
    Batch,
    Data,
    Decay,
    Learner,
    Localizer,
    Method,
    Metric,
    Optimizer,
    Refiner,
    Relabel,
    Schedule,
    SeedRule,
    Segmenter,
    Sgd,
    SinceThen,
    Stage,
)
from wsss_ray.data.transforms import Warp
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.common.segmentation import MultiScale, SegNetLearner, SummedScores
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, LabelArray, MapArray


Init = Annotated[
    Literal["trunk", "classifier"],
    Field(description="Weights that the segmenter starts from: those of its trunk, or the trunk of the trained classifier."),
]


class DsrgSegmenter(SegNetLearner):
    """DeepLab trained with the balanced seed loss, the boundary loss and seeded region growing (sections 3.1 to 3.3).

    For images with human masks, `full_weight` times their cross-entropy is added (FickleNet, Eqs. 2 and 3).
    """

    batch_size: int = Field(default=20, ge=1)
    steps: int | None = Field(default=8000, ge=0)
    augment: Augment = Warp(size=321)
    optimizer: Optimizer = Sgd(lr=5e-4, weight_decay=5e-4)
    schedule: Schedule = Decay(gamma=0.33, every_steps=1000)
    foreground_threshold: float = Field(default=0.85, ge=0, le=1, description="Probability above which an object seed grows.")
    background_threshold: float = Field(default=0.99, ge=0, le=1, description="Probability above which a background seed grows.")
    crf: DenseCrf = DenseCrf(scale=12.0)
    floor: float = Field(default=1e-4, ge=0, lt=0.01, description="Added to every probability.")
    full_weight: float = Field(default=2.0, ge=0, description="Weight of the human masks: alpha in Eq. 2 of FickleNet.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms seed and boundary, and full if the batch has images with human masks."""
        import torch

        from wsss_ray.ops import losses

        logits_BLHW, seeds_BEHW = self.scored(net, batch)
        image_BCHW = self.on_grid(net, batch.image_BCHW, logits_BLHW)
        prob_BLHW = losses.softmax_floor(logits_BLHW, self.floor)
        seeds_BHW = seeds_BEHW[:, 0]
        # CRF and growing run on the host: every tensor is copied once for the batch, since a GPU lets the host wait for each copy
        given = (image_BCHW.permute(0, 2, 3, 1).byte(), prob_BLHW.detach().float(), seeds_BHW, batch.tags_BK, batch.strong_B)
        *images, strong_B = (tensor.cpu().numpy() for tensor in given)
        grown, refined = zip(*(self._targets(*one) for one in zip(*images, strict=True)), strict=True)
        terms = {
            "seed": losses.seed_loss(prob_BLHW.log(), torch.stack(grown).to(prob_BLHW.device)),
            "boundary": losses.boundary_loss(prob_BLHW, torch.stack(refined).to(prob_BLHW.device)),
        }
        if strong_B.any():
            full_B = losses.full_loss(logits_BLHW, seeds_BHW)
            terms["full"] = torch.where(batch.strong_B, self.full_weight * full_B, torch.zeros_like(full_B))
        return terms

    def _targets(
        self, image_HWC: ImageArray, prob_LHW: MapArray, seeds_HW: LabelArray, tags_K: MapArray
    ) -> tuple[Tensor, Tensor]:
        """Return the grown seeds_LHW (bool) and the CRF's prob_LHW of one image, on the network's grid."""
        import numpy as np
        import torch

        from wsss_ray.ops.growing import grow

        refined = self.crf.refine(image_HWC, prob_LHW)
        refined = np.maximum(refined, max(self.floor, 1e-8))
        refined /= refined.sum(axis=0, keepdims=True)
        present = [0, *(int(tag) + 1 for tag in np.flatnonzero(tags_K))]
        grown = grow(
            refined,
            seeds_HW,
            present,
            fg_threshold=self.foreground_threshold,
            bg_threshold=self.background_threshold,
        )
        return torch.from_numpy(grown), torch.from_numpy(refined.astype(np.float32))


class DsrgRelabel(SummedScores):
    """Pseudo-labels for the retrain stage: scores summed over squares of several sizes, then a dense CRF on -log p."""

    sizes: tuple[int, ...] = Field(
        default=(241, 321, 401), min_length=1, description="Sides of the squares that the image is resized to."
    )
    only_tags: bool = Field(default=False, description="Allow only background and the image's tags.")

    def input_sizes(self, images: Sequence[ImageArray]) -> Sequence[Sequence[tuple[int, int]]]:
        """Return the squares, for every image. See `SummedScores.input_sizes`."""
        return [[(size, size) for size in self.sizes]] * len(images)


class Dsrg(Method):
    """The chain of DSRG: classifier, class activation maps, seeds, training with region growing, retraining."""

    classifier: Learner = CamClassifier(
        hidden=1024,
        layers=2,
        dropout=0.5,
        over_classes="sum",
        batch_size=15,
        epochs=None,
        steps=8000,
        augment=Warp(size=321),
        schedule=Decay(gamma=0.1, every_steps=4000),
    )
    localizer: Localizer = CamLocalizer(size=321)
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = ThresholdSeeds(theta=0.2)
    segmenter: Segmenter = DsrgSegmenter()
    segmenter_init: Init = "trunk"
    relabel: Relabel | None = Field(
        default=DsrgRelabel(), description="Rule for the pseudo-labels of the retrain stage; null leaves this stage out."
    )
    retrain: Segmenter = DeeplabSegmenter()
    metric: Metric = MultiScale()

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifier, maps, seeds, segmenter, its pseudo-labels, retraining and score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            refine=self.refine,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            from_classifier=self.segmenter_init == "classifier",
            relabel_rule=self.relabel,
            retrain=self.retrain,
            metric=self.metric,
        )
