"""RRM: Reliability Does Matter, an end-to-end weakly supervised semantic segmentation approach (Zhang et al., AAAI 2020).

One network with two branches. The classification branch's multi-scale maps (Eqs. 1 to 4) and a dense CRF (Eq. 5) agree on few but
reliable pixels (Eqs. 6 and 7); the segmentation branch learns those by cross-entropy and all others by the dense energy loss
(Eqs. 8 to 14). As a second step (Table 5), its predictions are the labels of a DeepLab.

Values and orders of operations follow the authors' code where it says more than the paper: the CRF runs twice, with background
(1 - max)^4 for objects and (1 - max)^32 for background, and decides only above a probability of .8; sigma of colours 15, of
positions 100 (the paper has the symbols the other way round); weight of the energy 1e-7. Differences: the maps are made in
evaluation mode, and by default one step ahead (`ahead`), so that CPUs run the CRF while the step before trains; `ahead: 0` is the
paper's order. An image without background or without objects among its labels has 0 for that term, not NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import (
    Augment,
    Batch,
    Evidence,
    Learner,
    Maps,
    Metric,
    OnlineSegmenter,
    Relabel,
    SeedRule,
    SeedScore,
    Segmenter,
    Trunk,
)
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Optimizer, Poly, Schedule, Sgd
from wsss_ray.core.plan import Data, Stage, evaluate, evaluate_seeds, relabel, train
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.segmentation import MultiScale, PredictedLabels, SegNetLearner, begins_with_one
from wsss_ray.nets.deeplab import DilatedPair, Head
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.ops.background import PowerBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core.contracts import ImageArray, LabelArray, MapArray
    from wsss_ray.nets.rrm import RrmNet


class ReliableRegions(SeedRule):
    """Pixels whose maps are among the surest of their class and whose label the CRF confirms (Eqs. 4 to 7)."""

    ratio: float = Field(default=0.4, gt=0, le=1, description="Share of a class's pixels that counts as sure (Table 1).")
    floor: float = Field(default=0.1, ge=0, le=1, description="A map says nothing below it.")
    gamma: float = Field(default=32.0, ge=1, description="Of the maps' own background, (1 - max) ** gamma.")
    background_floor: float = Field(default=0.8, ge=0, le=1, description="Background is sure above it.")
    crf: DenseCrf | None = Field(default=DenseCrf(), description="null: the maps alone decide (Table 2, CAM).")
    crf_gammas: tuple[float, float] = Field(default=(4.0, 32.0), description="Of the CRF that decides objects, and background.")
    crf_floor: float = Field(default=0.8, ge=0, le=1, description="The CRF's label counts from this probability on.")

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import reliable, seeds

        height, width = image_HWC.shape[:2]
        cam_CHW = seeds.resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        own_HW = PowerBackground(gamma=self.gamma).score(cam_CHW, None)
        places_HW, keep_HW = reliable.surest(
            cam_CHW, own_HW, ratio=self.ratio, floor=self.floor, background_floor=self.background_floor
        )
        if self.crf is not None:
            scores = [PowerBackground(gamma=g).score(cam_CHW, None)[None] for g in self.crf_gammas]
            low, high = self.crf.refine_all(image_HWC, [np.concatenate([score_1HW, cam_CHW]) for score_1HW in scores])
            keep_HW &= np.isin(places_HW, np.unique(low.argmax(axis=0)))  # a class that the CRF dropped is not sure anywhere
            places_HW, decided_HW = reliable.agreed(low, high, self.crf_floor)
            keep_HW &= decided_HW
        return reliable.combine(places_HW, keep_HW, maps.classes)


class DenseEnergy(Component):
    """The dense energy loss (Eqs. 10 to 14): neighbours of like colour want like labels, most where there is no label."""

    weight: float = Field(
        default=1e-7, gt=0, description="The sum runs over pairs of pixels: for another crop multiply by (321 / crop) ** 4."
    )
    sigma_rgb: float = Field(default=15.0, gt=0, description="Colours, 0..255.")
    sigma_xy: float = Field(default=100.0, gt=0, description="Positions, pixels of the crop.")
    scale: float = Field(default=0.5, gt=0, le=1, description="The loss is computed on a crop shrunk by it.")


class JointSegmenter(SegNetLearner):
    """The joint loss of the segmentation branch (Eq. 8) on seeds made beforehand, for any network."""

    loss_at: Literal["image"] = "image"
    energy: DenseEnergy | None = Field(default=DenseEnergy(), description="null: cross-entropy alone.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms background, foreground and energy."""
        logits_BLHW, label_BEHW = self.scored(net, batch)
        return joint_terms(logits_BLHW, label_BEHW[:, 0], batch.image_BCHW, batch.valid_BHW, self.energy)


class RrmSegmenter(SegNetLearner, OnlineSegmenter):
    """Both branches at once: the tags' cross-entropy, and the joint loss on labels made from the present maps."""

    trunk: Trunk = ResNet38(frozen="none")
    head: Head = DilatedPair()
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Of whole channels, before the class layer.")
    scales: tuple[float, ...] = Field(default=(1.0, 0.5, 1.5, 2.0), min_length=1, description="Of the maps (Eq. 2).")
    labels: SeedRule = ReliableRegions()
    energy: DenseEnergy | None = Field(default=DenseEnergy(), description="null: cross-entropy alone.")
    batch_size: int = Field(default=4, ge=1)
    augment: Augment = RandomCrop(size=321, min_scale=0.7, max_scale=1.3)
    optimizer: Optimizer = Sgd(lr=7e-4, momentum=0.0, weight_decay=1e-5)
    schedule: Schedule = Poly(power=0.9)
    loss_at: Literal["image"] = "image"

    @field_validator("scales")
    @classmethod
    def _from_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return begins_with_one(value)

    @field_validator("labels")
    @classmethod
    def _from_maps_alone(cls, value: SeedRule) -> SeedRule:
        if value.needs_saliency:
            raise ValueError("labels made online have no saliency map; give the rule another background")
        return value

    def build(self, num_classes: int) -> nn.Module:
        """See `Learner.build`."""
        from wsss_ray.nets.rrm import RrmNet

        trunk = self.trunk.build()
        head = self.head.build(trunk.channels, num_classes + 1)  # type: ignore[arg-type]
        return RrmNet(trunk, head, num_classes=num_classes, dropout=self.dropout)

    def evidence(self, net: nn.Module, batch: Batch) -> list[Evidence]:
        """See `OnlineSegmenter.evidence`."""
        from wsss_ray.nets.rrm import class_maps
        from wsss_ray.ops.cam import normalise
        from wsss_ray.ops.grid import axes

        rrm: RrmNet = net  # type: ignore[assignment]
        maps_BKHW = class_maps(rrm, batch.image_BCHW, self.scales)
        rows, columns = axes(rrm.trunk, batch.image_BCHW.shape[-2], batch.image_BCHW.shape[-1])
        found = []
        for image_CHW, map_KHW, tags_K in zip(batch.image_BCHW, maps_BKHW, batch.tags_BK, strict=True):
            classes = tuple(tags_K.nonzero().flatten().tolist())
            one_CHW = normalise(map_KHW[list(classes)]).float().cpu().numpy()
            image_HWC = image_CHW.permute(1, 2, 0).byte().cpu().numpy()
            found.append(Evidence(image_HWC, Maps(classes, peak_CHW=one_CHW, mean_CHW=one_CHW, rows=rows, columns=columns)))
        return found

    def online_label(self, evidence: Evidence) -> LabelArray:
        """See `OnlineSegmenter.online_label`."""
        return self.labels.seed(evidence.image_HWC, evidence.maps, None)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms classification, background, foreground and energy; all of them reach the trunk, the labels carry no gradient."""
        from wsss_ray.nets.modules import bare, set_dropout_keys
        from wsss_ray.ops.losses import multilabel_bce

        set_dropout_keys(net, batch.keys_B)
        logits_BK, small_BLHW = net(batch.image_BCHW)
        rrm: RrmNet = bare(net)  # type: ignore[assignment]
        logits_BLHW = rrm.enlarge(small_BLHW, *batch.image_BCHW.shape[-2:])
        terms = {"classification": multilabel_bce(logits_BK, batch.tags_BK)}
        return terms | joint_terms(logits_BLHW, batch.seeds_BEHW[:, 0], batch.image_BCHW, batch.valid_BHW, self.energy)

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """See `Segmenter.predict`: the segmentation branch."""
        rrm: RrmNet = net  # type: ignore[assignment]
        return rrm.enlarge(rrm.segment(image_BCHW), *image_BCHW.shape[-2:])

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """New layers and biases faster than pretrained ones, no weight decay on biases."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        rrm: RrmNet = net  # type: ignore[assignment]
        new = [*rrm.head.new_parameters(), *rrm.blocks.parameters()]
        return param_groups_deeplab(net, new, head_scale=self.head_lr_scale)


def joint_terms(
    logits_BLHW: Tensor, label_BHW: Tensor, image_BCHW: Tensor, valid_BHW: Tensor, energy: DenseEnergy | None
) -> dict[str, Tensor]:
    """The segmentation branch's loss (Eq. 8) by its terms, each (B,)."""
    from wsss_ray.ops.energy import dense_energy
    from wsss_ray.ops.losses import two_sided_cross_entropy

    background_B, foreground_B = two_sided_cross_entropy(logits_BLHW, label_BHW)
    terms = {"background": background_B, "foreground": foreground_B}
    if energy is not None:
        value_B = dense_energy(
            logits_BLHW.softmax(dim=1),
            image_BCHW,
            label_BHW,
            valid_BHW,
            sigma_rgb=energy.sigma_rgb,
            sigma_xy=energy.sigma_xy,
            scale=energy.scale,
        )
        terms["energy"] = energy.weight * value_B
    return terms


class Rrm(Method):
    """Image tags to a segmentation model in one training; and in a second on its predictions, where one is given."""

    classifier: Learner | None = Field(
        default=None, description="Train this first and start from its trunk and class layer, as the authors advise; null: no."
    )
    segmenter: Segmenter = RrmSegmenter()
    relabel: Relabel = Field(default=PredictedLabels(), description="The first step's predictions as labels of the second.")
    second: Segmenter | None = Field(default=None, description="The second step's network (Table 5); null: one step.")
    metric: Metric = MultiScale(scales=(1.0,))

    def plan(self, data: Data) -> Sequence[Stage]:
        """One training and its score; with a second step its labels, the training on them, and that one's score."""
        classifier = train(self.classifier, data.weak, name="classifier") if self.classifier else None
        final = train(self.segmenter, data.weak, strong=data.strong, init=classifier, name="segmenter")
        wanted: list[Stage] = []
        if self.second is not None:
            labels = relabel(self.relabel, final, data.weak)
            if data.val:
                wanted.append(evaluate(self.metric, final, data.val, name="first_miou"))
            final = train(self.second, data.weak, seeds=(labels,), strong=data.strong, name="second")
            if data.weak_has_masks:
                wanted.append(evaluate_seeds(SeedScore(), labels, data.weak, name="relabel_quality"))
        return (*wanted, evaluate(self.metric, final, data.val) if data.val else final)
