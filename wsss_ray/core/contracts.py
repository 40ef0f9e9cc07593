"""Define the roles that the parts of a method play.

Shape legend, used as name suffixes everywhere:

    B images of a batch   K object classes (tags), background not among them   L = K + 1 labels, background is label 0
    C channels, or the classes present in one image   E estimates (label maps) of one image   N random selections
    D positions of a window, row by row   S side of a window   H, W rows and columns

Images are RGB with values 0..255; every network normalises its own input. A tag k (0-based) has the label k + 1 in seeds and
masks. Modules that define components import torch only inside the functions that compute, so that planning a job stays quick.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wsss_ray.core.component import Component, SinceThen
from wsss_ray.core.optim import Constant, Optimizer, Schedule, Sgd

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from wsss_ray.core.values import Batch, Evidence, ImageArray, LabelArray

Precision = Literal["float32", "bfloat16"]
Inference = Literal["plain", "fused", "bfloat16"]
Outcomes = Literal["one", "mirrored", "many"]


class Trunk(Component):
    """A network without a head, from images to a feature map. A job file may name it in short: `vgg16`, `timm:resnet50d`."""

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """Return the block that `KIND` or `KIND:NAME` stands for. See `Component.from_text`."""
        kind, colon, name = text.partition(":")
        return {"kind": kind} | ({"name": name} if colon else {})

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network and load its weights, if it has any.

        Returns:
            A module image_BCHW (RGB, 0..255) -> features_BCHW. It has an int attribute `channels` and a method
            `centres(size) -> (first, step)`. For a side of `size` pixels, `first` is the pixel under the centre of feature 0, and
            `step` the number of pixels from one feature to the next.

        Raises:
            ValueError: if the weights are missing or do not fit.

        Example:
            >>> SmallNet().build().channels
            96
        """

    def build_levels(self) -> tuple[nn.Module, tuple[int, ...]]:
        """Build the network so that it returns the features of several layers, one after the other along the channels.

        All lie on one grid, those of `build` stand last, and the parameters have the same names. By default there are no others.

        Returns:
            The module, and the channels of each layer.

        Example:
            >>> ResNet38().build_levels()[1]
            (512, 1024, 4096)
        """
        trunk = self.build()
        return trunk, (int(trunk.channels),)  # type: ignore[arg-type]

    @property
    def is_frozen(self) -> bool:
        """Return True if no part of the trunk is trained or random, and its weights come from a file or a package.

        All networks with this trunk then have the same features of an image.
        """
        return False

    def hidden_layers(self, hidden: int) -> dict[str, Tensor]:
        """Return the pretrained weights and biases of fc6 and fc7 for a head; an empty dict if the trunk has none.

        Args:
            hidden: output channels of both layers. fc6 is (`hidden`, channels, 3, 3), fc7 is 1x1.
        """
        return {}


class Augment(Component):
    """A rule that cuts a training sample from an image. Label maps get the same geometry as the image."""

    @property
    def outcomes(self) -> Outcomes:
        """Return which samples the rule cuts from one image: always the same one, that and its mirror image, or many."""
        return "many"

    @abstractmethod
    def __call__(self, image_HWC: ImageArray, seeds_EHW: LabelArray, rng: np.random.Generator) -> tuple[ImageArray, LabelArray]:
        """Cut one sample.

        Args:
            image_HWC: the whole image.
            seeds_EHW: its label maps; E may be 0.
            rng: source of all randomness.

        Returns:
            Image and label maps at the training size. Resize images bilinearly and labels by the nearest pixel, and give pixels
            beyond the image the label `IGNORE`.

        Example:
            def __call__(self, image_HWC, seeds_EHW, rng):  # mirror half of them
                return (image_HWC[:, ::-1], seeds_EHW[..., ::-1]) if rng.random() < 0.5 else (image_HWC, seeds_EHW)
        """

    def whole(self, image_HWC: ImageArray) -> ImageArray:
        """Return a whole image as the network scores its tags: as it is, unless the rule resizes whole images.

        Example:
            >>> Warp(size=321).whole(np.zeros((375, 500, 3), np.uint8)).shape
            (321, 321, 3)
        """
        return image_HWC


class Learner(Component):
    """A network, its loss, its optimiser and the length of its training.

    The loss gives one value per image and term, and the engine averages over the global batch. No term may couple two images, so
    that neither the micro-batch nor the number of workers changes a result.
    """

    batch_size: int = Field(default=10, ge=1, description="Images per step, over all workers.")
    epochs: float | None = Field(default=None, gt=0, description="Length in passes over the data; give this or steps.")
    steps: int | None = Field(default=None, ge=0, description="Length in steps; give this or epochs.")
    augment: Augment
    optimizer: Optimizer = Sgd(lr=1e-3)
    schedule: Schedule = Constant()
    precision: Annotated[Precision, SinceThen()] = Field(
        default="float32", description="Precision of trunk, head and blocks; weights, gradients and losses stay float32."
    )
    inference: Annotated[Inference, SinceThen()] = Field(
        default="plain",
        description="Form of the trained network, and of a frozen trunk in training. plain: as it is trained; fused: batch norms "
        "folded into convolutions, channels last; bfloat16: also in this precision, for processors that have it.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Learner:
        if (self.epochs is None) == (self.steps is None):
            found = "neither is set" if self.epochs is None else "both are set"
            raise ValueError(f"epochs, steps: {found}. Give exactly one of epochs and steps (set the other to null).")
        return self

    @property
    def frozen_trunk(self) -> Trunk | None:
        """Return the trunk if its features are computed once per image: it is frozen, and `inference` is not plain. Else None.

        The trunk is the field `trunk`, and the module `trunk` of the network.
        """
        trunk = getattr(self, "trunk", None)
        return trunk if isinstance(trunk, Trunk) and trunk.is_frozen and self.inference != "plain" else None

    def total_steps(self, num_images: int) -> int:
        """Return the number of optimiser steps of a training on `num_images` images.

        Example:
            >>> CamClassifier(batch_size=16, epochs=2.0).total_steps(800)
            100
        """
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * num_images / self.batch_size))

    @abstractmethod
    def build(self, num_classes: int) -> nn.Module:
        """Build the network with its pretrained weights, if it has any.

        Args:
            num_classes: number K of object classes; background is not counted.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """

    @abstractmethod
    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            net: the network of `build`. Call it once and as a whole, because it may be wrapped for distributed training.
            batch: one micro-batch.

        Returns:
            Named loss terms, each (B,).

        Example:
            def loss(self, net, batch):
                return {"classification": multilabel_bce(net(batch.image_BCHW), batch.tags_BK)}
        """

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Return the groups of parameters for the optimiser; all trainable ones in one group by default.

        Returns:
            Groups with `params`. `lr_scale` multiplies the learning rate, `weight_decay` replaces that of the optimiser.

        Example:
            def param_groups(self, net):
                return [{"params": net.trunk.parameters()}, {"params": net.head.parameters(), "lr_scale": 10.0}]
        """
        return [{"params": [p for p in net.parameters() if p.requires_grad]}]

    def after_step(self, net: nn.Module, progress: float) -> None:
        """Change the network after an optimiser step, such as a teacher whose weights follow the student's. Nothing by default.

        It is called once per step, without gradients, on every worker, whatever the micro-batches. What it changes must follow
        from the network alone, and be in `net.state_dict()`, which checkpoints and the finished model hold.

        Args:
            net: the network of `build`, not wrapped.
            progress: share of the training's steps that are done, this one included, 0 < progress <= 1.

        Example:
            def after_step(self, net, progress):
                for mean, now in zip(net.teacher.parameters(), net.student.parameters()):
                    mean.lerp_(now, 1 - self.momentum)
        """
        return


class Classifier(Learner):
    """A learner whose network also scores the tags of whole images. Other learners are not scored on held-out tags."""

    @abstractmethod
    def tag_scores(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return the probability that an image has a tag, for each image and class, (B, K). No score may be random.

        Args:
            net: the network of `build`, in evaluation mode.
            image_BCHW: whole images of one size (RGB, 0..255).

        Example:
            def tag_scores(self, net, image_BCHW):
                return net(image_BCHW).sigmoid()
        """


class Segmenter(Learner):
    """A learner whose network scores every pixel. `reads_seeds` is the number of label maps its loss reads; None for any."""

    reads_seeds: ClassVar[int | None] = 1

    @abstractmethod
    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Return logits_BLHW at the resolution of the images.

        Args:
            net: the network of `build`.
            image_BCHW: images of one size (RGB, 0..255).
        """


class OnlineSegmenter(Segmenter):
    """A segmenter that makes its labels during training: the network gives the evidence, CPU processes make labels from it.

    The labels of step t use the network as it is before step t - `ahead`, on every machine. With `ahead` 0 this is its present
    state. With `ahead` 1 the CPUs make the labels while step t - 1 trains. `loss` finds them in the channels of
    `batch.seeds_BEHW`: `online_channels` label maps of each image, one by default.
    """

    reads_seeds: ClassVar[int | None] = 0
    online_channels: ClassVar[int] = 1
    ahead: int = Field(default=1, ge=0, le=8, description="Steps between the network's state and the labels made from it.")

    @abstractmethod
    def evidence(self, net: nn.Module, batch: Batch) -> list[Evidence]:
        """Return the evidence for each image of a batch. It goes to another process: use numpy arrays, not tensors."""

    @abstractmethod
    def online_label(self, evidence: Evidence) -> LabelArray:
        """Return the label map of one crop, with `IGNORE`. Depend on nothing but the evidence and the fields.

        Args:
            evidence: what `evidence` returned for the crop.

        Returns:
            Labels, uint8: (H, W), or (E, H, W) if `online_channels` E is more than 1.

        Example:
            def online_label(self, evidence):
                return self.labels.seed(evidence.image_HWC, evidence.maps, None)  # `labels` is a SeedRule
        """
