"""RRM: Reliability Does Matter, an end-to-end weakly supervised semantic segmentation approach (Zhang et al., AAAI 2020).

One network has two branches. The classification branch makes multi-scale maps (Eqs. 1 to 4). The pixels of which the maps are
most certain (Eq. 6), and which a dense CRF (Eq. 5) decides, are few but reliable (Eq. 7). The segmentation branch learns them
by cross-entropy. The dense energy loss adds all pixels, with the highest weight on unlabelled ones (Eqs. 8 to 14). In an
optional second step (Table 5), the predictions of this branch are the pseudo-labels of a DeepLab.

Where the paper is silent, values and order of operations follow the authors' code: the weight of the energy is 1e-7. Where the
two differ, the defaults follow the code, and `jobs/rrm_as_printed.yaml` follows the paper:
- Eq. 7 keeps a pixel if maps and CRF give it the same label. In the code, the CRF labels all pixels of which the maps are
  certain.
- Eq. 4 is 1 - max^gamma, with one gamma (4) and one CRF. In the code, a CRF with (1 - max)^4 decides objects, one with
  (1 - max)^32 decides background, both only above a probability of 0.8.
- Eq. 6 takes its share of "each class", the code takes it of objects only.
- Sigma is 15 for positions and 100 for colours. The code gives the two values the other way round.
- The loss of the tags is "softmax", and Eq. 13 leaves out i = j. Here, as in the code, the loss is a sigmoid cross-entropy for
  each class, and the sum has i = j: no field changes these two.

Differences from both:
- The maps are made in evaluation mode, and by default one step ahead (`ahead`): CPUs run the CRF while the GPU trains the
  previous step. `ahead: 0` gives the order of the paper.
- If the labels of an image contain no background, or no object, the term for it is 0. In the authors' code it is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from wsss_ray.core import (
    Augment,
    Batch,
    Classifier,
    Component,
    Data,
    Evidence,
    Learner,
    Maps,
    Method,
    Metric,
    OnlineSegmenter,
    Optimizer,
    Poly,
    Relabel,
    Schedule,
    SeedRule,
    SeedScore,
    Segmenter,
    Sgd,
    SinceThen,
    Stage,
    Trunk,
    evaluate,
    evaluate_seeds,
    relabel,
    train,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.chain import tag_quality
from wsss_ray.methods.common.segmentation import MultiScale, PredictedLabels, SegNetLearner, begins_with_one
from wsss_ray.nets.deeplab import DilatedPair, Head
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.ops.background import PowerBackground, PowerOf
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, LabelArray, MapArray
    from wsss_ray.nets.rrm import RrmNet


class ReliableRegions(SeedRule):
    """Labels of the pixels of which the maps are most certain and which the CRF decides (Eqs. 4 to 7).

    By default, as in the authors' code, such a pixel gets the CRF's label even if the maps give it another one. `agreement:
    equal` is Eq. 7 as printed.
    """

    ratio: float = Field(default=0.4, gt=0, le=1, description="Share of the pixels of a class that counts as certain (Table 1).")
    floor: float = Field(default=0.1, ge=0, le=1, description="Value that a map must exceed to claim a pixel.")
    gamma: float = Field(default=32.0, ge=1, description="Exponent of the background score that the maps compete with.")
    power_of: Annotated[PowerOf, SinceThen()] = Field(
        default="rest", description="Background scores. rest: (1 - max) ** gamma, as in the code; max: 1 - max ** gamma (Eq. 4)."
    )
    background_floor: float = Field(default=0.8, ge=0, le=1, description="Score above which background is certain.")
    background_by: Annotated[Literal["floor", "ratio"], SinceThen()] = Field(
        default="floor", description="Certain background: all above background_floor (the code), or `ratio` of these (Eq. 6)."
    )
    crf: DenseCrf | None = Field(default=DenseCrf(), description="Decides labels; null: the maps decide alone (Table 2, CAM).")
    crf_gammas: tuple[float, float] = Field(
        default=(4.0, 32.0), description="Exponents in the CRF for objects and in the CRF for background; equal: one CRF."
    )
    crf_floor: float = Field(default=0.8, ge=0, le=1, description="Least probability of a label after the CRF.")
    agreement: Annotated[Literal["code", "equal"], SinceThen()] = Field(
        default="code", description="code: the CRF's label, whatever the maps say; equal: only if both are the same (Eq. 7)."
    )

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Label one image. See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import reliable, seeds

        height, width = image_HWC.shape[:2]
        cam_CHW = seeds.resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        own_HW = self._background(cam_CHW, self.gamma)
        share = self.ratio if self.background_by == "ratio" else None
        places_HW, keep_HW = reliable.surest(
            cam_CHW, own_HW, ratio=self.ratio, floor=self.floor, background_floor=self.background_floor, background_ratio=share
        )
        if self.crf is not None:
            gammas = dict.fromkeys(self.crf_gammas)  # equal ones need one CRF
            scores = [np.concatenate([self._background(cam_CHW, gamma)[None], cam_CHW]) for gamma in gammas]
            refined = self.crf.refine_all(image_HWC, scores)
            places_HW, decided_HW = reliable.confirmed(places_HW, refined[0], refined[-1], self.crf_floor, self.agreement)
            keep_HW &= decided_HW
        return reliable.combine(places_HW, keep_HW, maps.classes)

    def _background(self, cam_CHW: MapArray, gamma: float) -> MapArray:
        """Return the background score (Eq. 4)."""
        return PowerBackground(gamma=gamma, power_of=self.power_of).score(cam_CHW, None)


class DenseEnergy(Component):
    """The dense energy loss (Eqs. 10 to 14): near pixels of similar colour should have similar labels, unlabelled ones most."""

    weight: float = Field(
        default=1e-7,
        gt=0,
        description="Weight of the term. It is a sum over pairs of pixels: for another crop size, multiply by (321 / size) ** 4.",
    )
    sigma_rgb: float = Field(default=15.0, gt=0, description="Width of the Gaussian in colours, 0..255.")
    sigma_xy: float = Field(default=100.0, gt=0, description="Width of the Gaussian in positions, pixels of the crop.")
    scale: float = Field(default=0.5, gt=0, le=1, description="Factor by which the crop is shrunk before the loss is computed.")


class JointSegmenter(SegNetLearner):
    """A segmenter trained with the joint loss of the segmentation branch (Eq. 8), but on seeds that are made beforehand."""

    loss_at: Literal["image"] = "image"
    energy: DenseEnergy | None = Field(default=DenseEnergy(), description="Dense energy loss; null: only cross-entropy.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms background, foreground and energy. See `joint_terms`."""
        logits_BLHW, label_BEHW = self.scored(net, batch)
        return joint_terms(logits_BLHW, label_BEHW[:, 0], batch.image_BCHW, batch.valid_BHW, self.energy)


class RrmSegmenter(SegNetLearner, OnlineSegmenter, Classifier):
    """Both branches in one network: cross-entropy on the tags, and the joint loss on labels that are made during training."""

    trunk: Trunk = ResNet38(frozen="none")
    head: Head = DilatedPair()
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout rate before the class layer; whole channels are dropped."
    )
    scales: tuple[float, ...] = Field(default=(1.0, 0.5, 1.5, 2.0), min_length=1, description="Scales of the maps (Eq. 2).")
    labels: SeedRule = ReliableRegions()
    energy: DenseEnergy | None = Field(default=DenseEnergy(), description="Dense energy loss; null: only cross-entropy.")
    batch_size: int = Field(default=4, ge=1)
    augment: Augment = RandomCrop(size=321, min_scale=0.7, max_scale=1.3)
    optimizer: Optimizer = Sgd(lr=7e-4, momentum=0.0, weight_decay=1e-5)
    schedule: Schedule = Poly(power=0.9)
    loss_at: Literal["image"] = "image"

    _from_one = field_validator("scales")(begins_with_one)

    @field_validator("labels")
    @classmethod
    def _from_maps_alone(cls, value: SeedRule) -> SeedRule:
        if value.needs_saliency:
            raise ValueError("labels made online have no saliency map. Give the rule another background.")
        return value

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        from wsss_ray.nets.rrm import RrmNet

        trunk = self.trunk.build()
        head = self.head.build(trunk.channels, num_classes + 1)  # type: ignore[arg-type]
        return RrmNet(trunk, head, num_classes=num_classes, dropout=self.dropout)

    def evidence(self, net: nn.Module, batch: Batch) -> list[Evidence]:
        """Return the crops with their localization maps. See `OnlineSegmenter.evidence`."""
        import numpy as np

        from wsss_ray.nets.rrm import class_maps
        from wsss_ray.ops.cam import normalise
        from wsss_ray.ops.grid import axes

        rrm: RrmNet = net  # type: ignore[assignment]
        maps_BKHW = normalise(class_maps(rrm, batch.image_BCHW, self.scales)).float()
        rows, columns = axes(rrm.trunk, batch.image_BCHW.shape[-2], batch.image_BCHW.shape[-1])
        given = (batch.image_BCHW.permute(0, 2, 3, 1).byte(), maps_BKHW, batch.tags_BK)
        copied = [tensor.cpu().numpy() for tensor in given]  # at once: a GPU lets the host wait for each copy
        found = []
        for image_HWC, map_KHW, tags_K in zip(*copied, strict=True):
            classes = tuple(np.flatnonzero(tags_K).tolist())
            one_CHW = map_KHW[list(classes)]
            found.append(Evidence(image_HWC, Maps(classes, peak_CHW=one_CHW, mean_CHW=one_CHW, rows=rows, columns=columns)))
        return found

    def online_label(self, evidence: Evidence) -> LabelArray:
        """Label one crop with the rule `labels`. See `OnlineSegmenter.online_label`."""
        return self.labels.seed(evidence.image_HWC, evidence.maps, None)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms classification, background, foreground and energy. All train the trunk; labels carry no gradient."""
        from wsss_ray.nets.modules import set_dropout_keys, unwrapped
        from wsss_ray.ops.losses import multilabel_bce

        set_dropout_keys(net, batch.keys_B)
        logits_BK, small_BLHW = net(batch.image_BCHW)
        rrm: RrmNet = unwrapped(net)  # type: ignore[assignment]
        logits_BLHW = rrm.enlarge(small_BLHW, *batch.image_BCHW.shape[-2:])
        terms = {"classification": multilabel_bce(logits_BK, batch.tags_BK)}
        return terms | joint_terms(logits_BLHW, batch.seeds_BEHW[:, 0], batch.image_BCHW, batch.valid_BHW, self.energy)

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the logits of the segmentation branch. See `Segmenter.predict`."""
        rrm: RrmNet = net  # type: ignore[assignment]
        return rrm.enlarge(rrm.segment(image_BCHW), *image_BCHW.shape[-2:])

    def tag_scores(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the probabilities of the classification branch. See `Classifier.tag_scores`."""
        return net.cams(image_BCHW).mean(dim=(-2, -1)).sigmoid()  # type: ignore[operator, no-any-return]

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: new layers and biases learn faster than pretrained weights, and biases have no weight decay."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        rrm: RrmNet = net  # type: ignore[assignment]
        new = [*rrm.head.new_parameters(), *rrm.blocks.parameters()]
        return param_groups_deeplab(net, new, head_scale=self.head_lr_scale)


def joint_terms(
    logits_BLHW: Tensor, label_BHW: Tensor, image_BCHW: Tensor, valid_BHW: Tensor, energy: DenseEnergy | None
) -> dict[str, Tensor]:
    """Compute the terms of the joint loss (Eq. 8).

    Args:
        logits_BLHW: scores at the size of the crop.
        label_BHW: labels, uint8 with `IGNORE`.
        image_BCHW: the crops, RGB 0..255.
        valid_BHW: False where a crop extends beyond its image.
        energy: settings of the dense energy loss; None leaves this term out.

    Returns:
        The terms background, foreground and energy, each (B,).
    """
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
    """One training from image tags to a segmentation model, and optionally a second training on its predictions."""

    classifier: Learner | None = Field(
        default=None,
        description="Classifier to train first, as the authors advise; its trunk and class layer are the start. null: none.",
    )
    segmenter: Segmenter = RrmSegmenter()
    relabel: Relabel = Field(
        default=PredictedLabels(), description="Rule that turns the predictions of the first step into labels of the second."
    )
    second: Segmenter | None = Field(default=None, description="Segmenter of the second step (Table 5); null: one step.")
    metric: Metric = MultiScale(scales=(1.0,))

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan one training and its score; with a second step also its pseudo-labels, the training on them and its score."""
        classifier = train(self.classifier, data.weak, name="classifier") if self.classifier else None
        final = train(self.segmenter, data.weak, strong=data.strong, init=classifier, name="segmenter")
        wanted = [*tag_quality(classifier, data), *tag_quality(final, data, name="joint_tag_quality")]
        if self.second is not None:
            labels = relabel(self.relabel, final, data.weak)
            if data.val:
                wanted.append(evaluate(self.metric, final, data.val, name="first_miou"))
            final = train(self.second, data.weak, seeds=(labels,), strong=data.strong, name="second")
            if data.weak_has_masks:
                wanted.append(evaluate_seeds(SeedScore(), labels, data.weak, name="relabel_quality"))
        return (*wanted, evaluate(self.metric, final, data.val) if data.val else final)
