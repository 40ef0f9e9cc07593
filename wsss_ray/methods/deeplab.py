"""DeepLab (Chen et al., ICLR 2015 and TPAMI 2017): cross-entropy on label maps, and the fully supervised ceiling.

As a part it is the retrain stage of DSRG and the second stage of other methods; as a method it trains on human masks. The loss
is the mean over the labelled pixels of each image, then over images, so that no worker count changes it; the Caffe original
takes the mean over all labelled pixels of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.contracts import Augment, Batch, Learner, Method, Metric, Segmenter, Trunk
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.nets.deeplab import Aspp, Head, build_segmenter
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.optim import Optimizer, Poly, Schedule, Sgd
from wsss_ray.plan import Data, Stage, evaluate, train

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.contracts import ImageArray, LabelArray


class DeeplabSegmenter(Segmenter):
    """A trunk and a DeepLab head, trained with cross-entropy on the first label map of each image."""

    trunk: Trunk = Vgg16(pool5=True)
    head: Head = Aspp()
    batch_size: int = Field(default=10, ge=1)
    steps: int | None = 20000
    augment: Augment = RandomCrop(size=321)
    optimizer: Optimizer = Sgd(lr=1e-3, weight_decay=5e-4)
    schedule: Schedule = Poly(power=0.9)
    head_lr_scale: float = Field(default=10.0, gt=0)
    loss_at: Literal["stride", "image"] = Field(
        default="stride", description="Shrink labels to the network's grid, or enlarge its scores to the crop."
    )

    def build(self, num_classes: int) -> nn.Module:
        """See `Learner.build`."""
        return build_segmenter(self.trunk, self.head, num_classes)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy over labelled pixels."""
        from torch.nn.functional import interpolate

        from wsss_ray.nets.modules import set_dropout_keys
        from wsss_ray.ops.losses import cross_entropy, shrink_labels

        set_dropout_keys(net, batch.keys_B)
        logits_BLHW = net(batch.image_BCHW)
        label_BHW = batch.seeds_BEHW[:, 0]
        if self.loss_at == "image":
            logits_BLHW = interpolate(logits_BLHW, label_BHW.shape[1:], mode="bilinear", align_corners=False)
        else:
            label_BHW = shrink_labels(label_BHW, logits_BLHW)
        return {"cross_entropy": cross_entropy(logits_BLHW, label_BHW)}

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """See `Segmenter.predict`."""
        logits: Tensor = net(image_BCHW)
        return logits

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """New layers and biases faster than pretrained ones, no weight decay on biases."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        return param_groups_deeplab(net, head_scale=self.head_lr_scale)


class MultiScale(Metric):
    """Scores summed over scales and mirror images at the mask's resolution, and optionally a dense CRF."""

    scales: tuple[float, ...] = Field(default=(0.75, 1.0, 1.25), min_length=1)
    flip: bool = False
    crf: DenseCrf | None = DenseCrf()

    def predict(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray) -> LabelArray:
        """See `Metric.predict`."""
        import numpy as np

        from wsss_ray.ops.multiscale import sum_logits

        height, width = image_HWC.shape[:2]
        logits_LHW = sum_logits(
            lambda image: segmenter.predict(net, image),
            image_HWC,
            sizes=[(max(1, round(height * s)), max(1, round(width * s))) for s in self.scales],
            flip=self.flip,
            device=next(net.parameters()).device,
        )
        if self.crf is None:
            label_HW: LabelArray = logits_LHW.argmax(dim=0).byte().cpu().numpy()
            return label_HW
        prob_LHW = self.crf.refine(image_HWC, logits_LHW.softmax(dim=0).cpu().numpy())
        return np.asarray(prob_LHW.argmax(axis=0), np.uint8)


class DeepLab(Method):
    """Fully supervised training on the human masks of one split: the ceiling of the weakly supervised methods."""

    classifier: Learner | None = Field(default=None, description="Train this first and start from its trunk; null: do not.")
    segmenter: Segmenter = DeeplabSegmenter()
    masks: Literal["weak", "strong"] = Field(default="weak", description="The split whose masks are used.")
    metric: Metric = MultiScale()

    def plan(self, data: Data) -> Sequence[Stage]:
        """One training, one score. Raises ValueError if the split has no masks."""
        split = data.strong if self.masks == "strong" else data.weak if data.weak_has_masks else None
        if split is None:
            raise ValueError(f"method.masks: the {self.masks} split has no masks; give data.masks or choose the other split")
        classifier = train(self.classifier, data.weak, name="classifier") if self.classifier else None
        segmenter = train(self.segmenter, split, strong=split, init=classifier, name="segmenter")
        return (evaluate(self.metric, segmenter, data.val) if data.val else segmenter,)
