"""The roles that parts of a method play, and the shapes that pass between them.

Shape legend, used as name suffixes everywhere:

    B images of a batch   K object classes (tags), background not among them   L = K + 1 labels, background is label 0
    C channels, or the classes present in one image   E estimates (label maps) of one image   N random selections
    D positions of a window, row by row   S side of a window   H, W rows and columns

Images are RGB with values 0..255; every network normalises its own input. A tag k (0-based) has the label k + 1 in seeds and
masks. Modules that define components import torch only where they compute, so that planning a job takes no second for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from wsss_ray.core.component import Component, SinceThen
from wsss_ray.core.optim import Constant, Optimizer, Schedule, Sgd

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsss_ray.core.threshold import Threshold

    ImageArray = NDArray[np.uint8]  # (H, W, 3), RGB
    LabelArray = NDArray[np.uint8]  # (H, W), labels 0..L-1 and IGNORE
    MapArray = NDArray[np.float32]  # (C, H, W) or (H, W), in [0, 1]

Precision = Literal["float32", "bfloat16"]

IGNORE = 255
"""The label of a pixel that belongs to no class as far as one knows; neither trained on nor scored."""


@dataclass(frozen=True)
class Batch:
    """What one training step of one worker sees.

    `seeds_BEHW` is uint8 with `IGNORE`; E is 0 for a classifier, 1 as a rule, more for several estimates. An image with a human
    mask has it in every E channel and `strong_B` set. `valid_BHW` is False where a crop goes beyond its image. `keys_B` holds one
    63-bit random key per image, drawn from (job seed, epoch, image id): all randomness of the step comes from there, so that no
    worker count changes it.
    """

    ids: tuple[str, ...]
    image_BCHW: Tensor
    tags_BK: Tensor
    seeds_BEHW: Tensor
    strong_B: Tensor
    valid_BHW: Tensor
    keys_B: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`; pinned ones are copied while the processor goes on."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU reads by itself; torch's DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = ("image_BCHW", "tags_BK", "seeds_BEHW", "strong_B", "valid_BHW")
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)


@dataclass(frozen=True)
class Axis:
    """Where a network's features lie along one side of the image, as fractions of that side.

    Feature i has its centre at `first` + i * `step`. With padded convolutions that is not the middle of the i-th of n equal
    cells: a map enlarged as if it were is off by up to half a stride.
    """

    first: float
    step: float


@dataclass(frozen=True)
class Maps:
    """Localization maps of one image: for each of its tags (`classes`, 0-based) the maximum and the mean over all estimates.

    Both are (C, h, w) at the network's resolution, each estimate normalised to [0, 1]; `rows` and `columns` say where on the
    image. "Some estimate exceeds theta" is "the maximum exceeds theta", so that theta can change without the network.
    """

    classes: tuple[int, ...]
    peak_CHW: MapArray
    mean_CHW: MapArray
    rows: Axis
    columns: Axis


@dataclass(frozen=True)
class Evidence:
    """One training crop, and the localization maps that its labels are made from."""

    image_HWC: ImageArray
    maps: Maps


class Trunk(Component):
    """A network from images to a feature map, without a head. In a job file also `vgg16`, or `timm:NAME` for a model of timm."""

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """See `Component.from_text`: the kind, and behind a colon the name of the model."""
        kind, colon, name = text.partition(":")
        return {"kind": kind} | ({"name": name} if colon else {})

    @abstractmethod
    def build(self) -> nn.Module:
        """A module image_BCHW (RGB, 0..255) -> features_BCHW. Loads the weights, if any.

        It has an int attribute `channels` and a method `centres(size) -> (first, step)`: along a side of `size` pixels, the pixel
        under the centre of feature 0, and the pixels from one feature to the next.
        """

    def hidden_layers(self, hidden: int) -> dict[str, Tensor]:
        """Pretrained fc6 (`hidden` x channels x 3 x 3) and fc7 (1x1) for a head, weights and biases; empty if there are none."""
        return {}


class Augment(Component):
    """How a training sample is cut from an image; the same geometry for its label maps."""

    @abstractmethod
    def __call__(
        self, image_HWC: ImageArray, seeds_EHW: LabelArray, rng: np.random.Generator
    ) -> tuple[ImageArray, LabelArray]:
        """Image and label maps at the training size. Bilinear for images, nearest for labels."""


class Learner(Component):
    """Something that trains: a network, its loss, and the budget and optimiser it is trained with.

    The loss gives one value per image and term; the engine averages over the global batch. No term may couple two images, so
    that neither the micro-batch nor the number of workers changes a result.
    """

    batch_size: int = Field(default=10, ge=1, description="Images per step, over all workers.")
    epochs: float | None = Field(default=None, gt=0, description="Length in passes over the data; give this or steps.")
    steps: int | None = Field(default=None, ge=0, description="Length in steps; give this or epochs.")
    augment: Augment
    optimizer: Optimizer = Sgd(lr=1e-3)
    schedule: Schedule = Constant()
    precision: Annotated[Precision, SinceThen()] = Field(
        default="float32", description="What trunk, head and blocks compute in; weights, gradients and losses are float32."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Learner:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps (set the other to null)")
        return self

    def total_steps(self, num_images: int) -> int:
        """Optimiser steps of the whole training on `num_images` images."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * num_images / self.batch_size))

    @abstractmethod
    def build(self, num_classes: int) -> nn.Module:
        """The network for `num_classes` object classes (K, background not counted), with pretrained weights where it has any."""

    @abstractmethod
    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms, each of shape (B,). Calls `net` once, as a whole: it may be wrapped for distributed training."""

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """Optimiser groups; `lr_scale` multiplies the learning rate, `weight_decay` overrides. One group unless overridden."""
        return [{"params": [p for p in net.parameters() if p.requires_grad]}]


class Segmenter(Learner):
    """A learner whose network scores every pixel. `reads_seeds`: how many sets of seeds its loss looks at; None for any."""

    reads_seeds: ClassVar[int | None] = 1

    @abstractmethod
    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """Logits_BLHW at the resolution of the image."""


class OnlineSegmenter(Segmenter):
    """A segmenter that makes its labels as it trains: what they rest on comes from the network, the labels from the CPU.

    The labels of step t rest on the network as it is before step t - `ahead`, whatever the machine: with `ahead` 0 on its present
    state; with 1 the CPUs make them while step t - 1 trains. They stand in the one channel of `batch.seeds_BEHW`.
    """

    reads_seeds: ClassVar[int | None] = 0
    ahead: int = Field(default=1, ge=0, le=8, description="Steps between a network's state and the labels made from it.")

    @abstractmethod
    def evidence(self, net: nn.Module, batch: Batch) -> list[Evidence]:
        """What the labels of each image of a batch rest on; plain arrays, for they go to another process."""

    @abstractmethod
    def online_label(self, evidence: Evidence) -> LabelArray:
        """The label map of one image, (H, W) as its crop. Pure."""


class Localizer(Component):
    """From a trained classifier and one image with its tags to localization maps."""

    def check(self, classifier: Learner) -> None:
        """Raise ValueError if it cannot work with that classifier; asked when the plan is made, before anything is trained."""
        return

    @abstractmethod
    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Maps of the given tags (0-based) only; all randomness drawn from `key`."""


class SeedRule(Component):
    """From localization maps to a label map. Pure: saliency, where the rule wants it, is handed in."""

    @property
    def needs_saliency(self) -> bool:
        """Whether the rule cannot do without saliency maps; a plan without them is refused before anything is trained."""
        return False

    @property
    def by_threshold(self) -> Threshold | None:
        """The threshold that the seeds follow from; None if there is none.

        The report draws the figures over it, and where it has a recipe makes the seeds anew as a reader turns it.
        """
        return None

    @abstractmethod
    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Labels at the image's resolution, `IGNORE` where undecided."""


class MaskNoise(Component):
    """From human masks to worse ones, for experiments on how much noise a training bears."""

    draw: int = Field(default=0, ge=0, description="Another number, other noise.")

    @abstractmethod
    def spoil(self, mask_HW: LabelArray, rng: np.random.Generator) -> LabelArray:
        """The mask with its noise; labels with `IGNORE`."""


class Relabel(Component):
    """From a trained segmenter's own predictions to pseudo-labels for the next training."""

    @abstractmethod
    def label(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int]) -> LabelArray:
        """Labels at the image's resolution."""


class Metric(Component):
    """How label maps are made for scoring. The score itself is always one confusion matrix over the data set."""

    @abstractmethod
    def predict(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray) -> LabelArray:
        """Labels at the image's resolution."""


class SeedScore(Component):
    """Scores label maps as they are; undecided pixels count as misses of their true class. No settings."""


