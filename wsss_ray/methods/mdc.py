"""MDC: Revisiting Dilated Convolution for weakly- and semi-supervised semantic segmentation (Wei et al., CVPR 2018).

The classifier has several convolutional blocks behind conv5, each with its own dilation and its own class layer. The block with
the smallest dilation finds the discriminative parts, and the large dilations transfer them to the rest of the object. The maps
of the blocks are fused, H = H0 + mean of the dilated maps (3.2). Pixels above a share of the maximum are object seeds, saliency
gives the background. DeepLab is trained on the seeds and on its own current predictions (3.3.1).

Where the paper is silent or unclear:
- A block is one 3x3 layer of 1024 channels.
- Each map is divided by its maximum before the fusion, and so is the fused map.
- We read "the top 30% of the unique largest value" as more than 0.3 of the maximum. `reading` offers two other readings.
- The classifier's loss is summed over classes and blocks: the authors trained in Caffe, whose loss sums over the classes, and
  each block probably has its own. At the printed learning rate, the mean over both would be 80 times weaker.
- "a fully-connected layer" after the average pooling is read as one class layer for each block.
- A "normalized saliency value" is the value over the maximum of its map.
- In the printed equation of J_w, both sums run over the online mask. The first sum here runs over the seeds, as the paper's
  text says.
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
    Maps,
    Method,
    Metric,
    Recipe,
    Refiner,
    Schedule,
    SeedRule,
    Segmenter,
    Sgd,
    SinceThen,
    Stage,
    Threshold,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.cam import CamClassifier
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.localization import at_size, one_map
from wsss_ray.methods.common.segmentation import SegNetLearner
from wsss_ray.methods.deeplab import LARGE_FOV_CRF
from wsss_ray.nets.deeplab import Head, LargeFov
from wsss_ray.ops.background import WITHOUT_SALIENCY, Background, SaliencyBackground

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, LabelArray, MapArray
    from wsss_ray.nets.cam import CamNet


class DilatedCam(Localizer):
    """Class activation maps of all blocks, fused into one map per class (section 3.2)."""

    fusion: Literal["anti_noise", "average"] = Field(
        default="anti_noise", description="anti_noise: H0 + mean of the dilated maps; average: mean of all maps (section 4.3.2)."
    )
    blocks: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Indices of the blocks to use, from 0; null: all. One index is a row of Table 3."
    )
    size: int | None = Field(default=None, ge=8, description="Side of the square that the image is resized to; null: no resize.")

    def check(self, classifier: Learner) -> None:
        """Accept only a `CamClassifier` that has all of `blocks`. See `Localizer.check`."""
        if not isinstance(classifier, CamClassifier):
            raise ValueError(
                f"method.localizer: dilated_cam needs a cam_classifier, not {classifier.kind()}. Change one of them."
            )
        count = len(classifier.rates)
        if self.blocks is not None and not all(0 <= place < count for place in self.blocks):
            raise ValueError(
                f"method.localizer.blocks: {list(self.blocks)}, but the classifier has {count} blocks. Use 0 to {count - 1}."
            )

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Make the maps of one image. See `Localizer.localize`."""
        return self._maps(net, [image_HWC], [classes])[0]

    def localize_batch(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        """Make the maps of several images, with inputs of equal size in one batch. See `Localizer.localize_batch`."""
        return self._maps(net, images, classes)

    def _maps(self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]]) -> list[Maps]:
        import torch

        from wsss_ray.ops.cam import anti_noise, normalise
        from wsss_ray.ops.multiscale import run_inputs, scaled_sizes

        camnet: CamNet = net  # type: ignore[assignment]
        places = list(range(len(camnet.blocks)) if self.blocks is None else self.blocks)
        inputs, device = at_size(images, self.size), next(net.parameters()).device
        sizes = [scaled_sizes(image.shape[0], image.shape[1], (1.0,)) for image in inputs]
        found: dict[int, Maps] = {}
        with torch.inference_mode():
            for place, _, cams, _ in run_inputs(camnet.cams, inputs, sizes=sizes, flip=False, device=device):
                each_GCHW = normalise(cams[0][places][:, list(classes[place])])
                fused = anti_noise(each_GCHW) if self.fusion == "anti_noise" else each_GCHW.mean(dim=0)
                found[place] = one_map(normalise(fused), camnet.trunk, inputs[place].shape, classes[place])
        return [found[place] for place in range(len(inputs))]


class RegionSeeds(SeedRule):
    """Object regions above a share of the maximum, background from cues; conflicts and other pixels are undecided (4.1)."""

    share: float = Field(default=0.3, gt=0, lt=1)
    reading: Literal["of_maximum", "below_maximum", "of_pixels"] = Field(
        default="of_maximum",
        description="More than `share` of the maximum, more than 1 - `share` of it, or the top `share` of the pixels.",
    )
    background: Background = SaliencyBackground()

    @property
    def needs_saliency(self) -> bool:
        """Return True if the background needs saliency. See `SeedRule.needs_saliency`."""
        return self.background.needs_saliency

    @property
    def without_saliency(self) -> str:
        """Return advice on the background. See `SeedRule.without_saliency`."""
        return WITHOUT_SALIENCY

    @property
    def by_threshold(self) -> Threshold:
        """Return `share`. See `SeedRule.by_threshold`."""
        recipe = Recipe(region=self.reading, winner="nobody", conflict="ignore")
        return Threshold(field="share", recipe=recipe, cues=self.background.cues)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Label one image. See `SeedRule.seed`."""
        from wsss_ray.ops.seeds import cut

        return cut(self, image_HWC, maps, saliency_HW)


class OnlineMaskSegmenter(SegNetLearner):
    """DeepLab trained with J_w (section 3.3.1): cross-entropy on the seeds, and on the labels that the network predicts itself.

    The network predicts among background and the tags of the image. Each term is averaged over its own pixels. An image with a
    human mask uses J_s instead (3.3.2): the cross-entropy on its mask.
    """

    head: Head = LargeFov()
    batch_size: int = Field(default=30, ge=1)
    epochs: float | None = Field(default=15.0, gt=0)
    steps: int | None = Field(default=None, ge=0)
    augment: Augment = RandomCrop(size=321)
    schedule: Schedule = Decay(gamma=0.1, every_epochs=6, times=1)
    online_weight: float = Field(default=1.0, ge=0, description="Weight of the term online; 0 leaves it out.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms seed and online."""
        from wsss_ray.ops.losses import cross_entropy, online_labels

        logits_BLHW, label_BEHW = self.scored(net, batch)
        terms = {"seed": cross_entropy(logits_BLHW, label_BEHW[:, 0])}
        if self.online_weight:
            valid_BHW = self.on_grid(net, batch.valid_BHW, logits_BLHW)
            own_B = cross_entropy(logits_BLHW, online_labels(logits_BLHW, batch.tags_BK, valid_BHW))
            terms["online"] = self.online_weight * own_B * ~batch.strong_B
        return terms


class Mdc(Method):
    """The chain of MDC: classifier with dilated blocks, its fused maps, seeds, and DeepLab with an online term."""

    classifier: Learner = CamClassifier(
        rates=(1, 3, 6, 9),
        hidden=1024,
        batch_size=30,
        epochs=15.0,
        augment=RandomCrop(size=321),
        optimizer=Sgd(lr=1e-3, weight_decay=5e-4),
        schedule=Decay(gamma=0.1, every_epochs=6, times=1),
        over_classes="sum",
        over_blocks="sum",
    )
    localizer: Localizer = DilatedCam()
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = RegionSeeds(background=SaliencyBackground(normalised=True))
    segmenter: Segmenter = OnlineMaskSegmenter()
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
