"""Train and use a DeepLab-style segmenter: a learner without a loss, predictions over several scales, and pseudo-labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core import Augment, Batch, Metric, Optimizer, Poly, Relabel, Schedule, Segmenter, Sgd, Trunk
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.nets.deeplab import Aspp, Head, build_segmenter
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core import ImageArray, LabelArray
    from wsss_ray.nets.segnet import SegNet


def begins_with_one(scales: tuple[float, ...]) -> tuple[float, ...]:
    """Return the scales if the first is 1, else raise ValueError: the results of all scales are brought to its grid."""
    if scales[0] != 1.0:
        raise ValueError(f"{scales} must begin with 1.0, to whose grid the results of all scales are brought. Put 1.0 first.")
    return scales


class SegNetLearner(Segmenter):
    """A segmenter with a trunk and a DeepLab head. It has everything but the loss, which a subclass adds.

    Example:
        class MySegmenter(SegNetLearner):
            def loss(self, net, batch):
                logits_BLHW, label_BEHW = self.scored(net, batch)
                return {"cross_entropy": cross_entropy(logits_BLHW, label_BEHW[:, 0])}
    """

    trunk: Trunk = Vgg16(pool5=True)
    head: Head = Aspp()
    batch_size: int = Field(default=10, ge=1)
    steps: int | None = Field(default=20000, ge=0)
    augment: Augment = RandomCrop(size=321)
    optimizer: Optimizer = Sgd(lr=1e-3, weight_decay=5e-4)
    schedule: Schedule = Poly(power=0.9)
    head_lr_scale: float = Field(default=10.0, gt=0, description="Learning rate of the new layers, relative to the trunk.")
    loss_at: Literal["stride", "image"] = Field(
        default="stride",
        description="Grid of the loss. stride: labels under the features of the network; image: scores enlarged to the crop.",
    )

    def build(self, num_classes: int) -> nn.Module:
        """Build the network. See `Learner.build`."""
        return build_segmenter(self.trunk, self.head, num_classes)

    def scored(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the network on a batch and bring its label maps to the grid of the logits (see `loss_at`).

        Returns:
            Logits (B, L, h, w) and label maps (B, E, h, w). Several input scales give logits_SBLhw, the fused scores last.
        """
        from wsss_ray.nets.modules import set_dropout_keys, unwrapped

        set_dropout_keys(net, batch.keys_B)
        logits = net(batch.image_BCHW)
        if self.loss_at == "image":
            segnet: SegNet = unwrapped(net)  # type: ignore[assignment]
            logits = segnet.enlarge(logits, *batch.seeds_BEHW.shape[-2:])
        return logits, self.on_grid(net, batch.seeds_BEHW, logits)

    def on_grid(self, net: nn.Module, pixel_BHW: Tensor, logits_BLHW: Tensor) -> Tensor:
        """Bring values at the pixels of the crop, (..., H, W), to the grid of the logits of `scored`.

        Example:
            >>> valid_BHW = self.on_grid(net, batch.valid_BHW, logits_BLHW)
        """
        from wsss_ray.nets.modules import unwrapped

        segnet: SegNet = unwrapped(net)  # type: ignore[assignment]
        return pixel_BHW if self.loss_at == "image" else segnet.under(pixel_BHW, logits_BLHW)

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the logits, enlarged to the image. See `Segmenter.predict`."""
        segnet: SegNet = net  # type: ignore[assignment]
        return segnet.enlarge(segnet(image_BCHW), *image_BCHW.shape[-2:])

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Group the parameters: new layers and biases learn faster than pretrained weights, and biases have no weight decay."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        segnet: SegNet = net  # type: ignore[assignment]
        return param_groups_deeplab(net, segnet.head.new_parameters(), head_scale=self.head_lr_scale)


class MultiScale(Metric):
    """Predictions from scores summed over scales and mirrored images at the mask's resolution, optionally with a dense CRF."""

    scales: tuple[float, ...] = Field(default=(0.75, 1.0, 1.25), min_length=1)
    flip: bool = False
    crf: DenseCrf | None = DenseCrf()

    def predict(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray) -> LabelArray:
        """Label one image. See `Metric.predict`."""
        return self._labels(segmenter, net, [image_HWC])[0]

    def predict_batch(self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray]) -> list[LabelArray]:
        """Label several images, with inputs of equal size in one batch. See `Metric.predict_batch`."""
        return self._labels(segmenter, net, images)

    def _labels(self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray]) -> list[LabelArray]:
        sizes = _sizes(images, self.scales)
        return label_images(segmenter, net, images, sizes=sizes, flip=self.flip, crf=self.crf, only=None)

    def with_crf(self, crf: bool) -> MultiScale:
        """Return the metric with its own CRF, or the default one, or none. See `Metric.with_crf`."""
        return self.model_copy(update={"crf": (self.crf or DenseCrf()) if crf else None})


class SummedScores(Relabel):
    """Pseudo-labels from scores of a trained segmenter, summed over sizes and mirrored images, and a dense CRF on -log p."""

    flip: bool = False
    crf: DenseCrf | None = DenseCrf()
    only_tags: bool = Field(default=True, description="Allow only background and the image's tags.")

    @abstractmethod
    def input_sizes(self, images: Sequence[ImageArray]) -> Sequence[Sequence[tuple[int, int]]]:
        """Return rows and columns of the network's inputs for each image."""

    def label(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int]) -> LabelArray:
        """Label one image. See `Relabel.label`."""
        return self._labels(segmenter, net, [image_HWC], [classes])[0]

    def label_batch(
        self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]]
    ) -> list[LabelArray]:
        """Label several images, with inputs of equal size in one batch. See `Relabel.label_batch`."""
        return self._labels(segmenter, net, images, classes)

    def _labels(
        self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]]
    ) -> list[LabelArray]:
        sizes, only = self.input_sizes(images), classes if self.only_tags else None
        return label_images(segmenter, net, images, sizes=sizes, flip=self.flip, crf=self.crf, only=only)


class PredictedLabels(SummedScores):
    """Pseudo-labels from scores at scales of the image."""

    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1)

    def input_sizes(self, images: Sequence[ImageArray]) -> Sequence[Sequence[tuple[int, int]]]:
        """Return the size of each image at each scale. See `SummedScores.input_sizes`."""
        return _sizes(images, self.scales)


def label_images(
    segmenter: Segmenter,
    net: nn.Module,
    images: Sequence[ImageArray],
    *,
    sizes: Sequence[Sequence[tuple[int, int]]],
    flip: bool,
    crf: DenseCrf | None,
    only: Sequence[Sequence[int]] | None,
) -> list[LabelArray]:
    """Label images with a trained segmenter. Inputs of equal size share a batch; one image alone is computed as without batches.

    Args:
        segmenter: the segmenter.
        net: its trained network.
        images: the images, which may differ in size.
        sizes: for each image, (rows, columns) of its inputs; the scores of all inputs are summed at the size of the image.
        flip: add the scores of the mirrored inputs.
        crf: dense CRF on the probabilities; None for none.
        only: for each image, tags (0-based) allowed beside background; None allows all classes.

    Returns:
        Labels (H, W) of each image, without `IGNORE`.

    Example:
        >>> label_images(segmenter, net, [image_HWC], sizes=[[(321, 321)]], flip=False, crf=None, only=[(3, 7)])
    """
    import numpy as np

    from wsss_ray.ops.multiscale import sum_logits_of

    device = next(net.parameters()).device
    logits = sum_logits_of(lambda image: segmenter.predict(net, image), images, sizes=sizes, flip=flip, device=device)
    found: list[LabelArray] = []
    for place, (image_HWC, logits_LHW) in enumerate(zip(images, logits, strict=True)):
        labels = list(range(len(logits_LHW))) if only is None else [0, *(tag + 1 for tag in only[place])]
        if crf is None:
            place_HW = logits_LHW[labels].argmax(dim=0).cpu().numpy()
        else:
            prob_CHW = logits_LHW[labels].softmax(dim=0)
            place_HW = crf.refine(image_HWC, prob_CHW.cpu().numpy(), device=prob_CHW.device).argmax(axis=0)
        found.append(np.asarray(labels, np.uint8)[place_HW])
    return found


def _sizes(images: Sequence[ImageArray], scales: Sequence[float]) -> list[list[tuple[int, int]]]:
    from wsss_ray.ops.multiscale import scaled_sizes

    return [scaled_sizes(image_HWC.shape[0], image_HWC.shape[1], scales) for image_HWC in images]
