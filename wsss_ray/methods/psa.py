"""PSA: Learning Pixel-level Semantic Affinity with Image-level Supervision (Ahn and Kwak, CVPR 2018).

Maps of a classifier mark parts of objects. Where two dense CRFs on them agree, with a strong and a weak background, pixels are
certain. From these pixels a network learns which neighbours have the same class (AffinityNet, Eqs. 3 to 7), and a random walk on
its affinities (Eqs. 8 and 9) carries the maps over whole objects. `AffinityWalk` is a refiner: it takes any method's maps.

The background walks too, from (1 - max) ** alpha of the maps. A walked map is written as M_c / (M_c + M_bg): it exceeds .5 where
class c exceeds background, and classes keep their order, so a threshold of .5 is the paper's argmax. `crf_seeds` with the
background (1 - max) ** 1 gives the dense CRF the odds of M_c and M_bg, as in the paper.

Paper and code (jiwoon-ahn/psa) differ in three values. An affinity's exponent is an L1 norm in Eq. 3, which the code divides by
the number of channels (`distance`); Eq. 7 is L_fg + L_bg + 2 L_neg, the code takes a quarter: both are as in the code here. The
weak background's exponent is 24, as in the paper; the code has 32 (`gammas`).

Differences from both:
- The means of Eqs. 5 and 6 are over the pairs of an image and then over images, so that workers change nothing; the code takes
  all pairs of a batch. Pairs near the left, right and lower border count; the code has none that begin there.
- Labels are read under the features, and maps are interpolated to them. The code averages both over cells of 8 x 8 pixels.
- Walked maps are enlarged, not the scores of classes and background. Colours are not jittered in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from wsss_ray.core import (
    Augment,
    Batch,
    Data,
    Given,
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
    seed,
    train,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.localization import at_size
from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.nets.deeplab import DilatedPair
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.ops.background import PowerBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import Axis, ImageArray, LabelArray, MapArray
    from wsss_ray.nets.affinity import AffinityNet
    from wsss_ray.ops.sparse_rows import SparseRows


class AffinityLabels(SeedRule):
    """Labels of confident pixels for the affinities (section 3.2.1): two backgrounds, and a dense CRF on each.

    A pixel is an object if the CRF with the strong background says so, background if that with the weak one does, else undecided.
    """

    gammas: tuple[float, float] = Field(default=(4.0, 24.0), description="Exponents of the strong and the weak background.")
    crf: DenseCrf = Field(default=DenseCrf(), description="Dense CRF on classes and background.")

    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Label one image. See `SeedRule.seed`."""
        import numpy as np

        from wsss_ray.ops import reliable, seeds

        height, width = image_HWC.shape[:2]
        cam_CHW = seeds.resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        backgrounds = [PowerBackground(gamma=gamma).score(cam_CHW, None) for gamma in self.gammas]
        strong, weak = self.crf.refine_all(image_HWC, [np.concatenate([one[None], cam_CHW]) for one in backgrounds])
        return reliable.combine(*reliable.agreed(strong, weak, floor=0.0), maps.classes)


class AffinityLearner(Learner):
    """AffinityNet, trained on label maps: pairs of near features with one label are alike, others are not (Eqs. 3 to 7)."""

    trunk: Trunk = ResNet38()
    widths: tuple[int, ...] = Field(
        default=(64, 128, 256), min_length=1, description="Channels of each of the trunk's layers; the last one for the last."
    )
    grouped: bool = Field(default=False, description="Group norms behind these layers, as in the authors' code on VGG16.")
    radius: int = Field(default=5, ge=2, description="Features nearer than this are pairs.")
    distance: Literal["mean", "sum"] = Field(default="mean", description="L1 norm: sum of channels (Eq. 3), or mean (code).")
    head_lr_scale: float = Field(default=10.0, gt=0, description="Learning rate of the new layers, relative to the trunk.")
    batch_size: int = Field(default=8, ge=1)
    epochs: float | None = Field(default=8.0, gt=0)
    augment: Augment = RandomCrop(size=256, min_scale=1.0, max_scale=1.0)
    optimizer: Optimizer = Sgd(lr=0.07, momentum=0.0, weight_decay=5e-4)
    schedule: Schedule = Poly(power=0.9)

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`. A frozen trunk whose features are computed once gives its last layer only."""
        from wsss_ray.nets.affinity import AffinityNet

        if self.frozen_trunk is None:
            trunk, channels = self.trunk.build_levels()
        else:
            trunk = self.trunk.build()
            channels = (trunk.channels,)  # type: ignore[assignment]
        if len(self.widths) < len(channels):
            raise ValueError(f"widths: has {len(self.widths)} entries, the trunk {len(channels)} layers. Give one for each.")
        return AffinityNet(trunk, channels, widths=self.widths[-len(channels) :], grouped=self.grouped)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms background, foreground and negative."""
        from wsss_ray.nets.modules import set_dropout_keys, unwrapped
        from wsss_ray.ops import affinity, grid

        set_dropout_keys(net, batch.keys_B)
        feature_BFHW = net(batch.image_BCHW)
        trunk: nn.Module = unwrapped(net).trunk  # type: ignore[assignment]
        height, width = feature_BFHW.shape[-2:]
        label_BHW = grid.at_features(batch.seeds_BEHW[:, 0], (height, width), *grid.axes(trunk, *batch.image_BCHW.shape[-2:]))
        offsets = affinity.pair_offsets(self.radius)
        affinity_BOHW = affinity.affinities(feature_BFHW, offsets, distance=self.distance)
        background_B, foreground_B, negative_B = affinity.pair_losses(affinity_BOHW, label_BHW, offsets)
        return {"background": background_B / 4, "foreground": foreground_B / 4, "negative": negative_B / 2}

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: new layers and biases learn faster than the trunk, and biases have no weight decay."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        one: AffinityNet = net  # type: ignore[assignment]
        return param_groups_deeplab(net, [*one.levels.parameters(), *one.joined.parameters()], head_scale=self.head_lr_scale)


class AffinityWalk(Refiner):
    """The random walk of maps on the affinities of a network that learned from them (Eqs. 8 and 9), with its training."""

    makes: ClassVar[Literal["maps", "seeds"]] = "maps"

    labels: SeedRule = AffinityLabels()
    network: AffinityLearner = AffinityLearner()
    network_init: Literal["trunk", "classifier"] = Field(default="trunk", description="Where the network's trunk starts from.")
    size: int | None = Field(default=None, ge=8, description="Side of the square that the image is resized to; null: no resize.")
    alpha: float = Field(default=16.0, ge=1, description="The background (1 - max) ** alpha walks with the maps.")
    background: Annotated[float | None, SinceThen()] = Field(default=None, ge=0, le=1, description="Constant score in its place.")
    beta: float = Field(default=8.0, gt=0, description="Power of the affinities (Eq. 8).")
    log_steps: int = Field(default=8, ge=0, le=16, description="The walk takes 2 to this power steps (Eq. 9: 256).")

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the maps and the network. See `Refiner.reads`."""
        return ("maps", "model")

    def plan_model(
        self, data: Data, *, classifier: Stage | None, maps: Stage | None, seeds: Stage | None, suffix: str = ""
    ) -> Stage:
        """Plan the affinity labels of the maps, and the training on them. See `Refiner.plan_model`."""
        assert maps is not None
        labels = seed(self.labels, maps, data.weak, saliency=data.saliency, name=f"affinity_labels{suffix}")
        if self.network_init == "classifier" and classifier is None:
            raise ValueError("method.refine: network_init is classifier, and this method trains none. Set network_init to trunk.")
        init = classifier if self.network_init == "classifier" else None
        return train(self.network, data.weak, seeds=(labels,), strong=data.strong, init=init, name=f"affinity{suffix}")

    def refine(self, net: nn.Module | None, given: Given) -> Maps:
        """Walk the maps of one image. See `Refiner.refine`."""
        return self.refine_batch(net, [given])[0]

    def refine_batch(self, net: nn.Module | None, given: Sequence[Given]) -> list[Maps]:
        """Walk the maps of several images. Inputs of equal size share a batch of the network. See `Refiner.refine_batch`."""
        import torch

        from wsss_ray.ops import affinity, grid
        from wsss_ray.ops.multiscale import run_inputs, scaled_sizes

        assert net is not None
        trunk: nn.Module = net.trunk  # type: ignore[assignment]
        inputs, device = at_size([one.image_HWC for one in given], self.size), next(net.parameters()).device
        sizes = [scaled_sizes(image.shape[0], image.shape[1], (1.0,)) for image in inputs]
        offsets, found = affinity.pair_offsets(self.network.radius), {}
        with torch.inference_mode():
            for place, _, feature_1FHW, _ in run_inputs(net, inputs, sizes=sizes, flip=False, device=device):
                affinity_OHW = affinity.affinities(feature_1FHW, offsets, distance=self.network.distance)[0]
                matrix = affinity.transitions(affinity_OHW, offsets, beta=self.beta)
                axes = grid.axes(trunk, *inputs[place].shape[:2])
                found[place] = self._walked(given[place].maps, matrix, axes, affinity_OHW.shape[1:])
        return [found[place] for place in range(len(given))]

    def _walked(self, maps: Maps | None, matrix: SparseRows, axes: tuple[Axis, Axis], size: Sequence[int]) -> Maps:
        """Walk maximum and mean of an image's maps with one background, that of the maximum, and take their odds against it."""
        import numpy as np
        import torch

        from wsss_ray.ops import affinity, grid

        assert maps is not None
        estimates = [maps.peak_CHW] if np.array_equal(maps.mean_CHW, maps.peak_CHW) else [maps.peak_CHW, maps.mean_CHW]
        map_CHW = torch.from_numpy(np.concatenate(estimates).astype(np.float32)).to(matrix.weight_P.device)
        map_CHW = grid.resample(map_CHW, (size[0], size[1]), source=(maps.rows, maps.columns), target=axes)
        count, none_1HW = len(maps.classes), map_CHW.new_zeros(1, *size)
        background_1HW = (1 - torch.cat([map_CHW[:count], none_1HW]).amax(dim=0, keepdim=True)).clamp(min=0) ** self.alpha
        if self.background is not None:
            background_1HW = torch.full_like(none_1HW, self.background)
        walked_CHW = affinity.random_walk(torch.cat([map_CHW, background_1HW]), matrix, steps=2**self.log_steps)
        odds_CHW = walked_CHW[:-1] / (walked_CHW[:-1] + walked_CHW[-1:]).clamp(min=1e-12)
        found: MapArray = odds_CHW.cpu().numpy()
        return replace(maps, peak_CHW=found[:count], mean_CHW=found[-count:] if count else found, rows=axes[0], columns=axes[1])


class Psa(Method):
    """The chain of PSA: classifier, its maps, their walk, seeds, and a segmenter on ResNet38."""

    classifier: Learner = CamClassifier(
        trunk=ResNet38(),
        dropout=0.5,
        whole_channels=True,
        augment=RandomCrop(size=448, min_scale=0.5, max_scale=1.0),
        optimizer=Sgd(lr=0.1, momentum=0.0, weight_decay=5e-4),
    )
    localizer: Localizer = CamLocalizer(scales=(1.0, 0.5, 1.5, 2.0), flip=True)
    refine: tuple[Refiner, ...] = Field(default=(AffinityWalk(),), description=REFINE)
    seed_rule: SeedRule = CrfSeeds(background=PowerBackground(gamma=1.0))
    segmenter: Segmenter = DeeplabSegmenter(trunk=ResNet38(), head=DilatedPair(), loss_at="image")
    metric: Metric = MultiScale(scales=(0.5, 0.75, 1.0, 1.25, 1.5))

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifier, maps, the affinity network and its walk, seeds, segmenter and score."""
        return from_tags(
            data,
            classifier=self.classifier,
            localizer=self.localizer,
            refine=self.refine,
            seed_rule=self.seed_rule,
            segmenter=self.segmenter,
            metric=self.metric,
        )
