"""Define the roles of rules that work on one image at a time: maps, seeds, pseudo-labels, predictions for scores.

A rule that runs a network has a second method, for several images, which the engine calls on GPUs. By default it takes one image
after the other. A rule that overrides it runs its network on batches, and its numbers may then differ by rounding. The legend of
the shapes is in `contracts.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner, Segmenter

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from wsss_ray.core.threshold import Threshold
    from wsss_ray.core.values import ImageArray, LabelArray, MapArray, Maps


def keep_rule(cls: type, base: type, one: str, several: str) -> None:
    """Make the method for several images loop over that for one, if a subclass overrides only the latter."""
    owner = {name: next(place for place, part in enumerate(cls.__mro__) if name in vars(part)) for name in (one, several)}
    if owner[one] < owner[several]:
        setattr(cls, several, vars(base)[several])


class Localizer(Component):
    """A rule that makes localization maps of one image with a trained classifier."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_rule(cls, Localizer, "localize", "localize_batch")

    def check(self, classifier: Learner) -> None:
        """Refuse a classifier that the localizer cannot work with. The plan calls this before anything is trained.

        Raises:
            ValueError: if the classifier does not fit.
        """
        return

    @abstractmethod
    def localize(self, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int], key: int) -> Maps:
        """Make the maps of one image.

        Args:
            net: the trained classifier.
            image_HWC: the whole image.
            classes: tags (0-based) of the image; make no other maps. May be empty.
            key: source of all randomness.

        Example:
            >>> net = CamClassifier(trunk=SmallNet()).build(20)
            >>> CamLocalizer().localize(net, image_HWC, classes=(3, 7), key=0).classes
            (3, 7)
        """

    def localize_batch(
        self, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> list[Maps]:
        """Make the maps of several images, which may differ in size. One after the other unless overridden.

        Args:
            net: the trained classifier.
            images: whole images.
            classes: tags (0-based) of each image.
            keys: source of all randomness of each image.

        Returns:
            The maps of each image, those of `localize` up to rounding.

        Example:
            >>> [maps.classes for maps in CamLocalizer().localize_batch(net, [image_HWC, other_HWC], [(3, 7), (5,)], [0, 1])]
            [(3, 7), (5,)]
        """
        return [self.localize(net, *one) for one in zip(images, classes, keys, strict=True)]


class SaliencyNet(Component):
    """A trained network that marks what stands out in an image, whatever it is. Seeds take their background from it."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network with its weights, in evaluation mode.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """

    @abstractmethod
    def saliency(self, net: nn.Module, images: Sequence[ImageArray]) -> list[MapArray]:
        """Make the saliency maps of several images, which may differ in size. They must not depend on each other.

        Args:
            net: the network of `build`.
            images: whole images.

        Returns:
            Saliency of each image, float32 (H, W) in [0, 1], in the size of the image.

        Example:
            >>> [map_HW.shape for map_HW in U2Net().saliency(net, [image_HWC, other_HWC])]
            [(375, 500), (333, 500)]
        """


class SeedRule(Component):
    """A rule that makes a label map from localization maps. It is pure: it gets saliency as an argument."""

    @property
    def needs_saliency(self) -> bool:
        """Return True if the rule needs saliency maps. A plan without them is then refused before anything is trained."""
        return False

    @property
    def without_saliency(self) -> str | None:
        """Return what a job without saliency maps can set, as `FIELD to VALUE`, or None. A message gives it as advice.

        Example:
            return "background to {kind: cam_background}"
        """
        return None

    @property
    def by_threshold(self) -> Threshold | None:
        """Return the threshold that decides the seeds, or None if no single number does.

        The report plots the scores of the seeds over it. With a recipe, its slider also redraws the seeds.
        """
        return None

    @abstractmethod
    def seed(self, image_HWC: ImageArray, maps: Maps, saliency_HW: MapArray | None) -> LabelArray:
        """Return labels at the image's resolution, with `IGNORE` where undecided.

        Args:
            image_HWC: the whole image.
            maps: localization maps of its tags.
            saliency_HW: saliency map (0..1) of the same size, or None if the data has none.
        """


class MaskNoise(Component):
    """A rule that adds noise to human masks, for experiments on the noise that a training tolerates."""

    draw: int = Field(default=0, ge=0, description="Number of the draw; another number gives other noise.")

    @abstractmethod
    def spoil(self, mask_HW: LabelArray, rng: np.random.Generator) -> LabelArray:
        """Return a noisy copy of the mask (labels with `IGNORE`). Take all randomness from `rng`."""


class Relabel(Component):
    """A rule that makes pseudo-labels for the next training from the predictions of a trained segmenter."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_rule(cls, Relabel, "label", "label_batch")

    @abstractmethod
    def label(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int]) -> LabelArray:
        """Return pseudo-labels at the image's resolution. `net` is the network of `segmenter`, `classes` the tags (0-based)."""

    def label_batch(
        self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray], classes: Sequence[Sequence[int]]
    ) -> list[LabelArray]:
        """Return the pseudo-labels of several images, which may differ in size. One after the other unless overridden.

        Args:
            segmenter: the segmenter.
            net: its trained network.
            images: whole images.
            classes: tags (0-based) of each image.
        """
        return [self.label(segmenter, net, *one) for one in zip(images, classes, strict=True)]


class Metric(Component):
    """A rule that makes label maps for scoring. The score itself is always one confusion matrix over the data set."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_rule(cls, Metric, "predict", "predict_batch")

    @abstractmethod
    def predict(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray) -> LabelArray:
        """Return the predicted labels at the image's resolution. `segmenter.predict(net, image_BCHW)` gives the logits."""

    def predict_batch(self, segmenter: Segmenter, net: nn.Module, images: Sequence[ImageArray]) -> list[LabelArray]:
        """Return the predicted labels of several images, which may differ in size. One after the other unless overridden.

        Args:
            segmenter: the segmenter.
            net: its trained network.
            images: whole images.
        """
        return [self.predict(segmenter, net, image_HWC) for image_HWC in images]

    def with_crf(self, crf: bool) -> Metric:
        """Return the metric with or without a dense CRF. Raise ValueError if it has none to switch, as this default does."""
        raise ValueError(f"the metric is {self.kind()}, which has no crf to switch")


class SeedScore(Component):
    """Score label maps as they are. An undecided pixel counts as a miss of its true class. It has no settings."""


class TagScore(Component):
    """Score the tags that a classifier gives to images that it has not seen. It has no settings."""
