"""MDC: Revisiting Dilated Convolution for weakly- and semi-supervised semantic segmentation (Wei et al., CVPR 2018).

A classifier with convolutional blocks of several dilations behind conv5, each with its own class layer: the large ones carry what
the small one found to the rest of the object. Their maps are fused, H = H0 + mean of the dilated ones (3.2), a share of the
maximum makes seeds, saliency makes background. DeepLab is trained on the seeds and on its own masks of the moment (3.3.1).

Where the paper is silent: a block is one 3x3 layer of 1024 channels; each map is divided by its maximum before it is fused, the
fused one again; "the top 30 % of the unique largest value" is read as more than .3 of the maximum (`reading` has two others). In
the printed equation of J_w both sums run over the online mask; the first is over the seeds, as the text around it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Augment, Batch, Learner, Localizer, Maps, Metric, SeedRule, Segmenter
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Decay, Schedule, Sgd
from wsss_ray.core.plan import Data, Stage
from wsss_ray.core.threshold import Recipe, Threshold
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.cam import CamClassifier
from wsss_ray.methods.common.chain import from_tags
from wsss_ray.methods.common.localization import at_scales, one_map
from wsss_ray.methods.common.segmentation import SegNetLearner
from wsss_ray.methods.deeplab import LARGE_FOV_CRF
from wsss_ray.nets.deeplab import Head, LargeFov
from wsss_ray.ops.background import Background, SaliencyBackground

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core.contracts import ImageArray, LabelArray, MapArray
    from wsss_ray.nets.cam import CamNet


class DilatedCam(Localizer):
    """The class activation maps of every block, fused (section 3.2)."""

    fusion: Literal["anti_noise", "average"] = Field(
        default="anti_noise", description="H0 + mean of the dilated maps, or the plain average of all (section 4.3.2)."
    )
    blocks: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Places of the blocks to use; null: all. One place is a row of Table 3."
    )
    size: int | None = Field(default=None, ge=8, description="Side the image is warped to; null keeps the native size.")

    def check(self, classifier: Learner) -> None:
        """See `Localizer.check`."""
        if not isinstance(classifier, CamClassifier):
            raise ValueError(f"method.localizer: dilated_cam wants a cam_classifier, not {classifier.kind()}")
        count = len(classifier.rates)
        if self.blocks is not None and not all(0 <= place < count for place in self.blocks):
            raise ValueError(f"method.localizer.blocks: {list(self.blocks)}, but the classifier has {count} blocks, from 0 on")

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """See `Localizer.localize`."""
        import torch

        from wsss_ray.ops.cam import anti_noise, normalise

        camnet: CamNet = net  # type: ignore[assignment]
        places = list(range(len(camnet.blocks)) if self.blocks is None else self.blocks)
        (image,) = at_scales(image_HWC, self.size, (1.0,), next(net.parameters()).device)
        with torch.inference_mode():
            each_GCHW = normalise(camnet.cams(image)[0][places][:, list(classes)])
            fused = anti_noise(each_GCHW) if self.fusion == "anti_noise" else each_GCHW.mean(dim=0)
            return one_map(normalise(fused), camnet.trunk, image, classes)


class RegionSeeds(SeedRule):
    """Object regions by a share of the maximum, background by cues; what is claimed twice or by nobody is undecided (4.1)."""

    share: float = Field(default=0.3, gt=0, lt=1)
    reading: Literal["of_maximum", "below_maximum", "of_pixels"] = Field(
        default="of_maximum",
        description="More than `share` of the maximum, more than 1 - `share` of it, or the top `share` of the pixels.",
    )
    background: Background = SaliencyBackground()

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return self.background.needs_saliency

    @property
    def by_threshold(self) -> Threshold:
        """See `SeedRule.by_threshold`: `share`."""
        recipe = Recipe(region=self.reading, winner="nobody", conflict="ignore")
        return Threshold(field="share", recipe=recipe, cues=self.background.cues)

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """See `SeedRule.seed`."""
        from wsss_ray.ops.seeds import cut

        return cut(self, image_HWC, maps, saliency_HW)


class OnlineMaskSegmenter(SegNetLearner):
    """J_w (section 3.3.1): cross-entropy on the seeds, and on the network's own labels among background and the image's tags.

    Each is a mean over its own pixels. An image with a human mask has J_s in place of both (3.3.2): cross-entropy on its mask.
    """

    head: Head = LargeFov()
    batch_size: int = Field(default=30, ge=1)
    epochs: float | None = 15.0
    steps: int | None = None
    augment: Augment = RandomCrop(size=321)
    schedule: Schedule = Decay(gamma=0.1, every_epochs=6)
    online_weight: float = Field(default=1.0, ge=0, description="Weight of the online term; 0 leaves it out.")

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms seed and online."""
        from wsss_ray.ops.losses import cross_entropy, online_labels

        logits_BLHW, label_BEHW = self.scored(net, batch)
        terms = {"seed": cross_entropy(logits_BLHW, label_BEHW[:, 0])}
        if self.online_weight:
            valid_BHW = self.on_grid(net, batch.valid_BHW, logits_BLHW)
            own_B = cross_entropy(logits_BLHW, online_labels(logits_BLHW, batch.tags_BK, valid_BHW))
            terms["online"] = self.online_weight * own_B * ~batch.strong_B
        return terms


class Mdc(Method):
    """Image tags to a segmentation model: the dilated classifier, its fused maps, seeds, and DeepLab with an online term."""

    classifier: Learner = CamClassifier(
        rates=(1, 3, 6, 9),
        hidden=1024,
        batch_size=30,
        epochs=15.0,
        augment=RandomCrop(size=321),
        optimizer=Sgd(lr=1e-3, weight_decay=5e-4),
        schedule=Decay(gamma=0.1, every_epochs=6),
    )
    localizer: Localizer = DilatedCam()
    seed_rule: SeedRule = RegionSeeds()
    segmenter: Segmenter = OnlineMaskSegmenter()
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
