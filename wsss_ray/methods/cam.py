"""CAM: Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016), the baseline that all the others improve.

A classifier with global average pooling; the weights of its class layer on the last features are the localization maps; a
threshold makes seeds, DeepLab is trained on them. The parts serve the other papers: multi-scale maps as RRM and Multi-Estimations
have them, seeds by a threshold (with FickleNet's aggregation, which for one map is the plain threshold) or by a dense CRF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import (
    Augment,
    Batch,
    Learner,
    Localizer,
    Maps,
    Method,
    Metric,
    SeedRule,
    Segmenter,
    Trunk,
)
from wsss_ray.core.optim import Optimizer, Poly, Schedule, Sgd
from wsss_ray.core.plan import Data, Stage
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.deeplab import LARGE_FOV, LARGE_FOV_CRF, from_tags
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights, copy_weights, load_weights
from wsss_ray.ops.background import Background, CamBackground, SaliencyBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from wsss_ray.core.contracts import ImageArray, LabelArray, MapArray
    from wsss_ray.nets.cam import CamNet


class CamClassifier(Learner):
    """A trunk, one or more blocks of convolutions, global average pooling and a class layer each; sigmoid cross-entropy.

    One block is the usual CAM network; several, with dilations, are MDC's, and the loss is the mean over the blocks.
    """

    trunk: Trunk = Vgg16()
    weights: Weights = Field(default=Weights(), description="Weights of the whole classifier: none, or a file of an earlier run.")
    rates: tuple[int, ...] = Field(default=(1,), min_length=1, description="Dilation of each block; the first is H0 in MDC.")
    hidden: int | None = Field(default=None, ge=1, description="Channels of a block's 3x3 layers; null: the class layer alone.")
    layers: int = Field(default=1, ge=1, description="3x3 layers of a block.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Before the class layers.")
    head_lr_scale: float = Field(default=10.0, gt=0, description="Learning rate of new layers over that of the trunk.")
    batch_size: int = Field(default=16, ge=1)
    epochs: float | None = 15.0
    augment: Augment = RandomCrop(size=321, min_scale=0.5, max_scale=1.5)
    optimizer: Optimizer = Sgd(lr=1e-3, weight_decay=5e-4)
    schedule: Schedule = Poly(power=0.9)

    def build(self, num_classes: int) -> nn.Module:
        """See `Learner.build`."""
        from wsss_ray.nets.cam import CamNet

        net = CamNet(
            self.trunk.build(),
            num_classes=num_classes,
            rates=self.rates,
            hidden=self.hidden,
            layers=self.layers,
            dropout=self.dropout,
        )
        if state := load_weights(self.weights):
            copy_weights(net, state)
        return net

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Sigmoid cross-entropy, the mean over classes and blocks."""
        from wsss_ray.nets.modules import set_dropout_keys
        from wsss_ray.ops.losses import multilabel_bce

        set_dropout_keys(net, batch.keys_B)
        logits_BGK = net(batch.image_BCHW)
        blocks = [multilabel_bce(logits_BK, batch.tags_BK) for logits_BK in logits_BGK.unbind(dim=1)]
        return {"classification": sum(blocks[1:], start=blocks[0]) / len(blocks)}

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """The trunk and the new layers, biases faster and without weight decay."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        return param_groups_deeplab(net, net.blocks.parameters(), head_scale=self.head_lr_scale)  # type: ignore[union-attr]


class CamLocalizer(Localizer):
    """The class activation maps of a classifier with one block, at one scale or merged over several."""

    size: int | None = Field(default=None, ge=8, description="Side the image is warped to first; null keeps the native size.")
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1, description="Sizes of the input, relative to that.")
    merge: Literal["mean", "max"] = Field(default="mean", description="How the maps of several scales become one.")
    flip: bool = Field(default=False, description="Take the mean with the mirror image.")

    def check(self, classifier: Learner) -> None:
        """See `Localizer.check`."""
        if not isinstance(classifier, CamClassifier):
            raise ValueError(f"method.localizer: cam_localizer wants a cam_classifier, not {classifier.kind()}")
        if len(classifier.rates) > 1:
            raise ValueError("method.localizer: the classifier has several blocks; use kind: dilated_cam")

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """See `Localizer.localize`."""
        import torch

        from wsss_ray.ops.cam import merge_scales, normalise

        camnet: CamNet = net  # type: ignore[assignment]
        images = at_scales(image_HWC, self.size, self.scales, next(net.parameters()).device)
        with torch.inference_mode():
            cams = merge_scales(
                lambda image: camnet.cams(image)[:, 0, list(classes)], camnet.trunk, images, flip=self.flip, merge=self.merge
            )
            return one_map(normalise(cams[0]), camnet.trunk, images[0], classes)


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

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import seeds

        height, width = image_HWC.shape[:2]
        peak, mean = (
            seeds.resize_maps(part, height, width, maps.rows, maps.columns) for part in (maps.peak_CHW, maps.mean_CHW)
        )
        label_HW = seeds.any_above(peak, mean, maps.classes, self.theta)
        if self.background is not None:
            label_HW = seeds.add_background(label_HW, self.background.cues(peak, saliency_HW), self.conflict)
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


class Cam(Method):
    """Image tags to a segmentation model the shortest way: classifier, class activation maps, seeds, DeepLab."""

    classifier: Learner = CamClassifier(hidden=1024)
    localizer: Localizer = CamLocalizer()
    seed_rule: SeedRule = ThresholdSeeds(theta=0.2, background=CamBackground(threshold=0.2))
    segmenter: Segmenter = LARGE_FOV
    metric: Metric = LARGE_FOV_CRF

    def plan(self, data: Data) -> Sequence[Stage]:
        """Classifier, maps, seeds, segmenter, the score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            metric=self.metric,
        )


def at_scales(image_HWC: ImageArray, size: int | None, scales: Sequence[float], device: torch.device) -> list[Tensor]:
    """The image, warped to `size` if given, at each of `scales`, as batches of one."""
    from wsss_ray.ops.multiscale import resize_image, scaled_sizes, to_tensor

    base = image_HWC if size is None else resize_image(image_HWC, size, size)
    return [to_tensor(resize_image(base, *at), device) for at in scaled_sizes(base.shape[0], base.shape[1], scales)]


def one_map(map_CHW: Tensor, trunk: nn.Module, image_1CHW: Tensor, classes: Sequence[int]) -> Maps:
    """Maps with one estimate: its maximum is its mean."""
    from wsss_ray.ops.grid import axes

    rows, columns = axes(trunk, image_1CHW.shape[-2], image_1CHW.shape[-1])
    found: MapArray = map_CHW.float().cpu().numpy()
    return Maps(tuple(classes), peak_CHW=found, mean_CHW=found, rows=rows, columns=columns)
