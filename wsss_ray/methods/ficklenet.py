"""FickleNet: Weakly and Semi-supervised Semantic Image Segmentation using Stochastic Inference (Lee et al., CVPR 2019).

The classifier keeps only a random selection of the hidden units in each window of its last convolution (3.1). It selects in
training and in inference, so that one image gives N different localization maps (3.2.1). A pixel belongs to a class if any of
these maps exceeds theta there (3.2.2). DSRG then trains the segmentation network (3.3) and trains it again on its own
predictions.

The selection is computed in closed form (`ops/selection/`). The result equals the paper's map expansion.

Where the paper is silent:
- The kept units are not scaled by 1/(1-p), neither in training nor in inference.
- Each map is divided by its own maximum before the threshold theta.
- For inference, the image is resized to the training size.
- The classifier is trained for 30 epochs.
- Background cues are those of DSRG, with the saliency threshold that this family of papers uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from wsss_ray.core import (
    Adam,
    Augment,
    Batch,
    Classifier,
    Data,
    Decay,
    Learner,
    Localizer,
    Maps,
    Method,
    Metric,
    Optimizer,
    Refiner,
    Relabel,
    Schedule,
    SeedRule,
    Segmenter,
    SinceThen,
    Stage,
    Trunk,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.chain import REFINE, from_tags
from wsss_ray.methods.common.localization import at_size
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.methods.dsrg import DsrgRelabel, DsrgSegmenter, Init
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray
    from wsss_ray.nets.selection import SelectionClassifier

Selection = Literal["stochastic", "general_dropout", "deterministic"]


class StochasticClassifier(Classifier):
    """The classifier of section 3.1: its scores come from randomly selected hidden units; sigmoid cross-entropy."""

    revision: ClassVar[int] = 2  # since 2, masks are drawn by counter

    trunk: Trunk = Vgg16()
    weights: Weights = Field(
        default=Weights(), description="Weights of the whole classifier: none, or a file from an earlier run."
    )
    selection: Selection = Field(default="stochastic", description="Selection of hidden units in training (Table 6).")
    kernel_size: int = Field(default=9, ge=1, description="Side s of the window, an odd number.")
    dropout_rate: float = Field(
        default=0.9, ge=0, le=1, description="p, the rate at which units of a window are dropped (Table 5)."
    )
    head_lr_scale: float = Field(default=1.0, gt=0, description="Learning rate of the class kernels, relative to the trunk.")
    epochs: float | None = Field(default=30.0, gt=0)
    augment: Augment = RandomCrop(size=321)
    optimizer: Optimizer = Adam(lr=1e-3)
    schedule: Schedule = Decay(gamma=0.5, every_epochs=10)

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that a window has a centre. Use a number such as 9.")
        return value

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        from wsss_ray.nets.selection import SelectionClassifier

        net = SelectionClassifier(
            self.trunk.build(), num_classes=num_classes, kernel_size=self.kernel_size, mode=self.selection, rate=self.dropout_rate
        )
        if state := load_weights(self.weights):
            copy_weights(net, state)
        return net

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the sigmoid cross-entropy, averaged over classes."""
        from wsss_ray.nets.modules import set_dropout_keys
        from wsss_ray.ops.losses import multilabel_bce

        set_dropout_keys(net, batch.keys_B)
        return {"classification": multilabel_bce(net(batch.image_BCHW, batch.keys_B), batch.tags_BK)}

    def tag_scores(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the probabilities of the mean logits over all selections. See `Classifier.tag_scores`."""
        classifier: SelectionClassifier = net  # type: ignore[assignment]
        return classifier.mean_logits(image_BCHW).sigmoid()

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: the trunk, and the class kernels with their own learning rate."""
        head: list[object] = [net.weight]
        trunk = [p for p in net.parameters() if p.requires_grad and p is not net.weight]
        groups: list[dict[str, object]] = [{"params": head, "lr_scale": self.head_lr_scale}]
        return [{"params": trunk}, *groups] if trunk else groups


class StochasticGradCam(Localizer):
    """Grad-CAMs (Eq. 1) of N random selections of one image, kept as their maximum and mean (section 3.2)."""

    revision: ClassVar[int] = 2  # since 2, masks are drawn by counter

    selections: int = Field(
        default=200, ge=1, description="N, the number of selections (Figure 5b); deterministic always uses one."
    )
    selection: Selection = Field(default="stochastic", description="Selection of hidden units in inference (Table 6).")
    dropout_rate: float = Field(default=0.9, ge=0, le=1, description="p in inference.")
    size: int | None = Field(default=321, ge=8, description="Side of the square that the image is resized to; null: no resize.")
    normalize: Literal["per_map", "per_image"] = Field(
        default="per_map", description="Divide by the maximum of each map, or by that of all maps of the class in this image."
    )

    def check(self, classifier: Learner) -> None:
        """Accept only a `StochasticClassifier`. See `Localizer.check`."""
        if not isinstance(classifier, StochasticClassifier):
            raise ValueError(
                f"method.localizer: stochastic_grad_cam needs a stochastic_classifier, not {classifier.kind()}. "
                "Change one of them."
            )

    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Make the maps of one image. See `Localizer.localize`."""
        return self._maps(net, [image_HWC], [classes], [key])[0]

    def localize_batch(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        """Make the maps of several images. Inputs of equal size share a batch of the trunk. See `Localizer.localize_batch`."""
        return self._maps(net, images, classes, keys)

    def _maps(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        import torch

        from wsss_ray.ops.grid import axes
        from wsss_ray.ops.multiscale import run_inputs, scaled_sizes

        classifier: SelectionClassifier = net  # type: ignore[assignment]
        inputs, device = at_size(images, self.size), classifier.weight.device
        sizes = [scaled_sizes(image.shape[0], image.shape[1], (1.0,)) for image in inputs]
        found: dict[int, Maps] = {}
        with torch.inference_mode():
            for place, _, x_1CHW, _ in run_inputs(classifier.trunk, inputs, sizes=sizes, flip=False, device=device):
                peak, mean = self._peak_and_mean(x_1CHW[0], classifier.weight[list(classes[place])], keys[place])
                rows, columns = axes(classifier.trunk, *inputs[place].shape[:2])
                found[place] = Maps(
                    tuple(classes[place]), peak_CHW=peak.cpu().numpy(), mean_CHW=mean.cpu().numpy(), rows=rows, columns=columns
                )
        return [found[place] for place in range(len(inputs))]

    def _peak_and_mean(self, x_CHW: Tensor, weight_CKSS: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return maximum and mean of the maps over all selections, normalised, each (C, h, w)."""
        import torch

        total = 1 if self.selection == "deterministic" else self.selections
        peak_CHW = mean_CHW = torch.zeros(())
        for place, cams_NCHW in enumerate(self._cams(x_CHW, weight_CKSS, total, key)):
            if self.normalize == "per_map" and len(weight_CKSS):
                cams_NCHW = cams_NCHW / cams_NCHW.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
            peak, part = cams_NCHW.amax(dim=0), cams_NCHW.sum(dim=0) / total
            peak_CHW, mean_CHW = (torch.maximum(peak_CHW, peak), mean_CHW + part) if place else (peak, part)
        if self.normalize == "per_image" and len(weight_CKSS):
            highest = peak_CHW.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
            peak_CHW, mean_CHW = peak_CHW / highest, mean_CHW / highest
        return peak_CHW, mean_CHW

    def _cams(self, x_CHW: Tensor, weight_CKSS: Tensor, total: int, key: int) -> Iterator[Tensor]:
        """Yield cams_NCHW of all selections, in one or several pieces along N."""
        from wsss_ray.nets.selection import draw_keep
        from wsss_ray.ops.selection.closed_form import selection_cams, stochastic_cams

        if self.selection == "stochastic":
            yield from stochastic_cams(x_CHW, weight_CKSS, key=key, n=total, dropout_rate=self.dropout_rate)
            return
        keep_NDHW = draw_keep(
            self.selection,
            key=key,
            n=total,
            size=weight_CKSS.shape[-1],
            height=x_CHW.shape[1],
            width=x_CHW.shape[2],
            rate=self.dropout_rate,
            device=x_CHW.device,
        )
        yield selection_cams(x_CHW, weight_CKSS, keep_NDHW)


class FickleNet(Method):
    """The chain of FickleNet: stochastic classifier, its maps, seeds, DSRG, and the retrain stage of DSRG."""

    classifier: Learner = StochasticClassifier()
    localizer: Localizer = StochasticGradCam()
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = ThresholdSeeds()
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
