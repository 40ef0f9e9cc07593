"""Define the refiner: a rule between maps and labels that reads whatever it names, such as maps, seeds, a model or segments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from wsss_ray.core.component import Component
from wsss_ray.core.rules import keep_rule

if TYPE_CHECKING:
    from torch import nn

    from wsss_ray.core.plan import Data, Stage
    from wsss_ray.core.values import ExtraArray, ImageArray, LabelArray, MapArray, Maps

ROLES = ("maps", "seeds", "saliency", "model")
"""What a refiner can read beside the image and its tags. Other names are those of extra inputs, `data.extra` of the job."""


@dataclass(frozen=True)
class Given:
    """What a refiner gets of one image. What it does not name in `reads` is None, or missing in `extra`.

    Attributes:
        image_HWC: the whole image, RGB.
        classes: its tags (0-based).
        key: 63-bit source of all randomness.
        maps: its localization maps.
        seed_HW: its label map, uint8 with `IGNORE`.
        saliency_HW: its saliency map, float32 in [0, 1].
        extra: its extra inputs by name, uint16 (H, W), in the size of the image.
    """

    image_HWC: ImageArray
    classes: tuple[int, ...]
    key: int
    maps: Maps | None = None
    seed_HW: LabelArray | None = None
    saliency_HW: MapArray | None = None
    extra: Mapping[str, ExtraArray] = field(default_factory=dict)


class Refiner(Component):
    """A rule that makes better maps, or better label maps, of what earlier stages made of an image.

    `makes` says which of the two. Whatever reads maps then reads the maps of a refiner, and whatever reads seeds its label maps.
    A refiner with a network runs on GPUs: the network of the stage that it reads as `model`, or one of its own (`build`).

    Example:
        >>> class Darker(Refiner):
        ...     makes: ClassVar[Literal["maps", "seeds"]] = "maps"
        ...
        ...     @property
        ...     def reads(self):
        ...         return ("maps",)
        ...
        ...     def refine(self, net, given):
        ...         maps = given.maps
        ...         return replace(maps, peak_CHW=maps.peak_CHW / 2, mean_CHW=maps.mean_CHW / 2)
    """

    makes: ClassVar[Literal["maps", "seeds"]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_rule(cls, Refiner, "refine", "refine_batch")

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Return what the refiner reads beside the image and its tags: names of `ROLES`, or of extra inputs.

        Example:
            return ("seeds", "segments")
        """

    def plan_model(
        self, data: Data, *, classifier: Stage | None, maps: Stage | None, seeds: Stage | None, suffix: str = ""
    ) -> Stage | None:
        """Plan the network that the refiner reads as `model`: the classifier, unless the refiner trains one of its own.

        Methods call it where a job names the refiner. So a refiner that learns from maps goes with any method.

        Args:
            data: the data of the job.
            classifier: train stage of the classifier, if there is one.
            maps: stage with localization maps, as the refiner gets them.
            seeds: stage with label maps, if there are any yet.
            suffix: end of the names of new stages, for methods with several maps.

        Returns:
            A train stage; None if there is no network.

        Example:
            def plan_model(self, data, *, classifier, maps, seeds, suffix=""):
                labels = seed(self.labels, maps, data.weak, name=f"affinity_labels{suffix}")
                return train(self.network, data.weak, seeds=(labels,), name=f"affinity{suffix}")
        """
        return classifier

    @property
    def has_network(self) -> bool:
        """Return True if `build` makes a network. One that the refiner reads as `model` does not count."""
        return False

    def build(self, classes: Sequence[str]) -> nn.Module:
        """Build the refiner's own network with its weights, in evaluation mode. Called only if `has_network`.

        Args:
            classes: names of the data's classes, for a network that reads texts.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """
        raise NotImplementedError(f"{self.kind()} has no network of its own")

    @abstractmethod
    def refine(self, net: nn.Module | None, given: Given) -> Maps | LabelArray:
        """Make the maps or the label map of one image.

        Args:
            net: the trained network of `model`, or that of `build`, in evaluation mode; None if the refiner has none.
            given: the image and what the refiner reads of it.

        Returns:
            `Maps`, of the tags of the image; or labels at the image's resolution, uint8 with `IGNORE`. As `makes` says.
        """

    def refine_batch(self, net: nn.Module | None, given: Sequence[Given]) -> list[Maps] | list[LabelArray]:
        """Make those of several images, which may differ in size. One after the other unless overridden.

        Args:
            net: see `refine`.
            given: the images.

        Returns:
            The results of `refine`, up to rounding.
        """
        return [self.refine(net, one) for one in given]  # type: ignore[return-value]
