"""CAM: Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016), the baseline of the other methods.

A classifier with global average pooling is trained on the tags. Its class layer, applied to the last features, gives the
localization maps. A threshold turns them into seeds, and DeepLab is trained on the seeds. With one map per class, FickleNet's
aggregation in `ThresholdSeeds` is a plain threshold.

Other papers build on these parts: `CamLocalizer` can merge the maps of several scales as in RRM and Multi-Estimations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsss_ray.core import (
    Augment,
    Batch,
    Classifier,
    Data,
    Learner,
    Localizer,
    Maps,
    Method,
    Metric,
    Optimizer,
    Poly,
    Refiner,
    Schedule,
    SeedRule,
    Segmenter,
    Sgd,
    SinceThen,
    Stage,
    Trunk,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.localization import merged_maps
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.deeplab import LARGE_FOV, LARGE_FOV_CRF
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights, copy_weights, load_weights
from wsss_ray.ops.background import CamBackground

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray
    from wsss_ray.nets.cam import CamNet


Over = Literal["mean", "sum"]


class CamClassifier(Classifier):
    """A trunk with one or more convolutional blocks, each followed by global average pooling and a class layer.

    One block is the usual CAM network. Several blocks with dilations are the classifier of MDC. The loss is the sigmoid
    cross-entropy. Beside the mean, its sum over K classes has K times the gradient: a learning rate belongs to one of the two.
    """

    trunk: Trunk = Vgg16()
    weights: Weights = Field(
        default=Weights(), description="Weights of the whole classifier: none, or a file from an earlier run."
    )
    rates: tuple[int, ...] = Field(
        default=(1,), min_length=1, description="Dilation of each block. In MDC, the first block is H0."
    )
    hidden: int | None = Field(
        default=None, ge=1, description="Channels of the 3x3 layers of a block; null: only the class layer."
    )
    layers: int = Field(default=1, ge=1, description="Number of 3x3 layers in a block.")
    hidden_std: Annotated[float | None, SinceThen()] = Field(
        default=None, gt=0, description="Deviation of the initial weights of the 3x3 layers; null: as He et al."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout rate before the class layers.")
    whole_channels: Annotated[bool, SinceThen()] = Field(
        default=False, description="Drop whole channels instead of elements, as PSA's classifier does."
    )
    over_classes: Annotated[Over, SinceThen()] = Field(
        default="mean", description="Mean of the loss over the classes, or its sum (Multi-Estimations, Eq. 1, and Caffe)."
    )
    over_blocks: Annotated[Over, SinceThen()] = Field(
        default="mean", description="Mean of the loss over the blocks, or its sum, as if each block had its own loss."
    )
    head_lr_scale: float = Field(default=10.0, gt=0, description="Learning rate of the new layers, relative to the trunk.")
    batch_size: int = Field(default=16, ge=1)
    epochs: float | None = Field(default=15.0, gt=0)
    augment: Augment = RandomCrop(size=321, min_scale=0.5, max_scale=1.5)
    optimizer: Optimizer = Sgd(lr=1e-3, weight_decay=5e-4)
    schedule: Schedule = Poly(power=0.9)

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        from wsss_ray.nets.cam import CamNet

        net = CamNet(
            self.trunk.build(),
            num_classes=num_classes,
            rates=self.rates,
            hidden=self.hidden,
            layers=self.layers,
            dropout=self.dropout,
            whole_channels=self.whole_channels,
            hidden_std=self.hidden_std,
        )
        if state := load_weights(self.weights):
            copy_weights(net, state)
        return net

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the sigmoid cross-entropy, averaged or summed over classes and blocks."""
        from wsss_ray.nets.modules import set_dropout_keys
        from wsss_ray.ops.losses import multilabel_bce

        set_dropout_keys(net, batch.keys_B)
        logits_BGK = net(batch.image_BCHW)
        blocks = [multilabel_bce(logits_BK, batch.tags_BK, over=self.over_classes) for logits_BK in logits_BGK.unbind(dim=1)]
        total_B = sum(blocks[1:], start=blocks[0])
        return {"classification": total_B if self.over_blocks == "sum" else total_B / len(blocks)}

    def tag_scores(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the mean probability over the blocks, each of which is a classifier. See `Classifier.tag_scores`."""
        scores_BK: Tensor = net(image_BCHW).sigmoid().mean(dim=1)
        return scores_BK

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: new layers and biases learn faster than the trunk, and biases have no weight decay."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        return param_groups_deeplab(net, net.blocks.parameters(), head_scale=self.head_lr_scale)  # type: ignore[union-attr]


class CamLocalizer(Localizer):
    """Class activation maps of a classifier with one block, at one scale or merged over several scales."""

    size: int | None = Field(
        default=None, ge=8, description="Side of the square that the image is resized to first; null: no resize."
    )
    scales: tuple[float, ...] = Field(
        default=(1.0,), min_length=1, description="Sizes of the network's input, relative to this size."
    )
    merge: Literal["mean", "max"] = Field(default="mean", description="Rule that merges the maps of several scales.")
    flip: bool = Field(default=False, description="Average with the maps of the mirrored image.")
    normalise_each: Annotated[bool, SinceThen()] = Field(
        default=False, description="Divide the map of each scale by its maximum before they are merged."
    )

    def check(self, classifier: Learner) -> None:
        """Accept only a `CamClassifier` with one block. See `Localizer.check`."""
        if not isinstance(classifier, CamClassifier):
            raise ValueError(
                f"method.localizer: cam_localizer needs a cam_classifier, not {classifier.kind()}. Change one of them."
            )
        if len(classifier.rates) > 1:
            raise ValueError("method.localizer: the classifier has several blocks. Use kind: dilated_cam.")

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Make the maps of one image. See `Localizer.localize`."""
        return self._maps(net, [image_HWC], [classes])[0]

    def localize_batch(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        """Make the maps of several images, with inputs of equal size in one batch. See `Localizer.localize_batch`."""
        return self._maps(net, images, classes)

    def _maps(self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]]) -> list[Maps]:
        from wsss_ray.ops.cam import normalise

        camnet: CamNet = net  # type: ignore[assignment]
        return merged_maps(
            lambda image_BCHW: camnet.cams(image_BCHW)[:, 0],
            camnet.trunk,
            images,
            classes,
            device=next(net.parameters()).device,
            size=self.size,
            scales=self.scales,
            flip=self.flip,
            scaled=normalise,
            merge=self.merge,
            normalise_each=self.normalise_each,
        )


class Cam(Method):
    """The shortest chain from image tags to a segmentation model: classifier, class activation maps, seeds, DeepLab."""

    classifier: Learner = CamClassifier(hidden=1024)
    localizer: Localizer = CamLocalizer()
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = ThresholdSeeds(theta=0.2, background=CamBackground(threshold=0.2))
    segmenter: Segmenter = LARGE_FOV
    metric: Metric = LARGE_FOV_CRF

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifier, maps, seeds, segmenter and score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            refine=self.refine,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            metric=self.metric,
        )
