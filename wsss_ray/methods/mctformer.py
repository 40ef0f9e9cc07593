"""MCTformer: Multi-class Token Transformer for Weakly Supervised Semantic Segmentation (Xu et al., CVPR 2022), its form V2.

A vision transformer has one class token for each class. The score of a class is the mean of its token over the channels, so the
token must gather what is of its class. A convolution on the patch tokens gives CAMs ("PatchCAM") with a loss of their own. The
map of a class is the attention of its token to the patches in the last layers, times its PatchCAM, spread by the attention
between patches of all layers.

The maps go through PSA's affinity network and its walk (`refine`), and the larger of class and background wins, without a CRF.

Where the paper is silent, values are those of the authors' code: AdamW and its rates, 60 epochs, maps of the image and its mirror
image, each stretched from its minimum to its maximum. Their code sums over layers where the paper averages; the stretch makes
both the same.

Differences:
- Training samples are scaled and cropped at random. The paper's have DeiT's augmentation, with random colours and erasing.
- There is no stochastic depth: its randomness would not come from the images' keys.
- The learning rate warms up by step and not by epoch.
- A class token and its positional embedding are one parameter: only their sum is ever read.
- Predictions sum the scores of all scales; the authors' code takes the largest probability.
- timm resizes positional embeddings with smoothing. Partly covered patches at the border are padded, not cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core import (
    Adam,
    Augment,
    Batch,
    Classifier,
    Data,
    Learner,
    Localizer,
    Maps,
    Method,
    Metric,
    OneCycle,
    Optimizer,
    Poly,
    Refiner,
    Schedule,
    SeedRule,
    Segmenter,
    Sgd,
    Stage,
    TokenTrunk,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.localization import merged_maps
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.methods.psa import AffinityLabels, AffinityLearner, AffinityWalk
from wsss_ray.nets.deeplab import DilatedPair
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.nets.timm_vit import TimmVit
from wsss_ray.nets.weights import Weights, copy_weights, load_weights
from wsss_ray.ops.background import CamBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray
    from wsss_ray.nets.mctformer import MctNet


class MctClassifier(Classifier):
    """A transformer with one class token per class, and a 3x3 convolution on its patch tokens. Both branches learn the tags."""

    trunk: TokenTrunk = TimmVit()
    weights: Weights = Field(
        default=Weights(), description="Weights of the whole classifier: none, or a file from an earlier run."
    )
    batch_size: int = Field(default=64, ge=1)
    epochs: float | None = Field(default=60.0, gt=0)
    augment: Augment = RandomCrop(size=224, min_scale=0.5, max_scale=1.0)
    optimizer: Optimizer = Adam(decoupled=True, lr=6.25e-5, weight_decay=0.05)
    schedule: Schedule = OneCycle(warmup=5 / 60, final=0.16)

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        from wsss_ray.nets.mctformer import MctNet

        net = MctNet(self.trunk.build_tokens(num_classes), num_classes=num_classes)
        if state := load_weights(self.weights):
            copy_weights(net, state)
        return net

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the sigmoid cross-entropy of the class tokens and that of the PatchCAMs, averaged over classes."""
        from wsss_ray.ops.losses import multilabel_bce

        token_BK, patch_BK = net(batch.image_BCHW).unbind(dim=1)
        return {"class_tokens": multilabel_bce(token_BK, batch.tags_BK), "patches": multilabel_bce(patch_BK, batch.tags_BK)}

    def tag_scores(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the probabilities by the class tokens, which the authors' code scores too. See `Classifier.tag_scores`."""
        scores_BK: Tensor = net(image_BCHW)[:, 0].sigmoid()
        return scores_BK

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: biases, norms, tokens and positional embeddings have no weight decay."""
        decays: dict[bool, list[object]] = {True: [], False: []}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                decays[parameter.ndim > 1 and not name.endswith(("cls_token", "pos_embed"))].append(parameter)
        return [{"params": decays[True]}, {"params": decays[False], "weight_decay": 0.0}]


class MctLocalizer(Localizer):
    """Attention of the class tokens, times PatchCAM, spread by the attention between patches."""

    layers: int = Field(default=3, ge=1, description="K, the number of last layers whose attention of class tokens is averaged.")
    fuse: Literal["product", "attention", "patches"] = Field(
        default="product", description="Attention times PatchCAM, or one of the two alone."
    )
    affinity: bool = Field(default=True, description="Spread the maps by the attention between patches.")
    size: int | None = Field(
        default=None, ge=8, description="Side of the square that the image is resized to first; null: no resize."
    )
    scales: tuple[float, ...] = Field(
        default=(1.0,), min_length=1, description="Sizes of the network's input, relative to this size; the maps are averaged."
    )
    flip: bool = Field(default=True, description="Average with the maps of the mirrored image.")

    def check(self, classifier: Learner) -> None:
        """Accept only an `MctClassifier`. See `Localizer.check`."""
        if not isinstance(classifier, MctClassifier):
            raise ValueError(
                f"method.localizer: mct_localizer needs an mct_classifier, not {classifier.kind()}. Change one of them."
            )

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Make the maps of one image. See `Localizer.localize`."""
        return self.localize_batch(net, [image_HWC], [classes], [key])[0]

    def localize_batch(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        """Make the maps of several images, with inputs of equal size in one batch. See `Localizer.localize_batch`."""
        from wsss_ray.ops.tokens import stretch

        mctnet: MctNet = net  # type: ignore[assignment]
        return merged_maps(
            lambda image_BCHW: mctnet.maps(image_BCHW, layers=self.layers, fuse=self.fuse, affinity=self.affinity),
            mctnet.trunk,
            images,
            classes,
            device=next(net.parameters()).device,
            size=self.size,
            scales=self.scales,
            flip=self.flip,
            scaled=stretch,
        )


class Mctformer(Method):
    """The chain of MCTformer: transformer with class tokens, its maps, PSA's walk, seeds, DeepLab."""

    classifier: Learner = MctClassifier()
    localizer: Localizer = MctLocalizer()
    refine: tuple[Refiner, ...] = Field(
        default=(
            AffinityWalk(
                labels=AffinityLabels(gammas=(1.0, 12.0)),
                network=AffinityLearner(
                    epochs=5.0,
                    augment=RandomCrop(size=448, min_scale=1.0, max_scale=1.0),
                    optimizer=Sgd(lr=0.01, momentum=0.0, weight_decay=5e-4),
                ),
                background=0.39,
                log_steps=6,
            ),
        ),
        description=REFINE,
    )
    seed_rule: SeedRule = ThresholdSeeds(theta=0.5, background=CamBackground(threshold=0.5))
    segmenter: Segmenter = DeeplabSegmenter(
        trunk=ResNet38(),
        head=DilatedPair(),
        batch_size=4,
        epochs=30.0,
        steps=None,
        augment=RandomCrop(size=321, min_scale=0.7, max_scale=1.3),
        optimizer=Sgd(lr=7e-4, momentum=0.0, weight_decay=1e-5),
        schedule=Poly(power=0.9),
        loss_at="image",
    )
    metric: Metric = MultiScale(
        scales=(0.5, 0.75, 1.0, 1.25, 1.5), crf=DenseCrf(bilateral_weight=4.0, bilateral_sxy=83.0, bilateral_srgb=5.0)
    )

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifier, maps, affinity network and walk, seeds, segmenter and score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            refine=self.refine,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            metric=self.metric,
        )
