"""Refine seeds by segments that are drawn without classes, such as superpixels or the masks of SAM.

SEPL (Chen, Mai, Li and Chao, "Segment Anything Model (SAM) Enhanced Pseudo Labels for Weakly Supervised Semantic Segmentation",
2023) assigns each mask of SAM to the class that overlaps it most, and keeps masks of which the class has enough, or which have
enough of the class. With `voters: objects` the rule and its two thresholds (.5 and .85) are those of the authors' code
(cskyl/SAM_WSSS). Where masks of two classes overlap, their code takes the class with the larger number; here it is the one with
the larger share of its mask. Undecided pixels, which SEPL's labels do not have, stay undecided in masks that are not kept.

`voters: labels` is ours: background votes as any label, and pixels of a segment without a clear majority keep their labels. It
suits superpixels, which cover the whole image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from wsss_ray.core import Component, Given, Refiner
from wsss_ray.core.refiner import ROLES
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import nn

    from wsss_ray.core import ExtraArray, LabelArray


class Segments(Component):
    """A source of the segments of an image."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Return names of extra inputs that hold the segments. None by default."""
        return ()

    @property
    def has_network(self) -> bool:
        """Return True if `build` makes a network that draws the segments."""
        return False

    def build(self) -> nn.Module:
        """Build this network in evaluation mode. See `Refiner.build`."""
        raise NotImplementedError(f"{self.kind()} has no network")

    @abstractmethod
    def layers(self, net: nn.Module | None, given: Given) -> Sequence[ExtraArray]:
        """Draw the segments of one image.

        Args:
            net: the network of `build`; None if there is none.
            given: the image, and the extra inputs that `reads` names.

        Returns:
            Layers of numbers, uint16 (H, W), 0 for no segment. Segments of one layer do not overlap.

        Example:
            >>> [layer_HW] = Slic(count=100).layers(None, Given(image_HWC, classes=(3,), key=0))
        """


class Superpixels(Segments):
    """Segments of scikit-image, without weights."""

    @model_validator(mode="after")
    def _installed(self) -> Superpixels:
        if find_spec("skimage") is None:
            raise ValueError("scikit-image is not installed, which makes superpixels. Run: pip install 'wsss-ray[segments]'")
        return self


class Slic(Superpixels):
    """SLIC (Achanta et al., TPAMI 2012): compact superpixels, about `count` of them."""

    count: int = Field(default=200, ge=1, le=10000, description="Number of superpixels, roughly.")
    compactness: float = Field(default=10.0, gt=0, description="Weight of positions against colours.")
    sigma: float = Field(default=0.0, ge=0, description="Width of a Gaussian that smooths the image first, pixels.")

    def layers(self, net: nn.Module | None, given: Given) -> Sequence[ExtraArray]:
        """See `Segments.layers`."""
        import numpy as np
        from skimage.segmentation import slic

        found = slic(given.image_HWC, n_segments=self.count, compactness=self.compactness, sigma=self.sigma, start_label=1)
        return [np.asarray(found, np.uint16)]


class Felzenszwalb(Superpixels):
    """Graph-based segments (Felzenszwalb and Huttenlocher, IJCV 2004): few where colours are even, many where they change."""

    scale: float = Field(default=100.0, gt=0, description="Preference for large segments.")
    sigma: float = Field(default=0.8, ge=0, description="Width of a Gaussian that smooths the image first, pixels.")
    min_size: int = Field(default=50, ge=1, description="Pixels of the smallest segment.")

    def layers(self, net: nn.Module | None, given: Given) -> Sequence[ExtraArray]:
        """See `Segments.layers`."""
        import numpy as np
        from skimage.segmentation import felzenszwalb

        found = felzenszwalb(given.image_HWC, scale=self.scale, sigma=self.sigma, min_size=self.min_size)
        return [np.asarray((found + 1).clip(max=np.iinfo(np.uint16).max), np.uint16)]


class SegmentFiles(Segments):
    """Segments from files: an extra input of the job (`data.extra`), whose gray values are their numbers, 0 for none."""

    name: str = Field(default="segments", min_length=1, description="Name of the extra input.")

    @model_validator(mode="after")
    def _is_extra(self) -> SegmentFiles:
        if self.name in ROLES:
            raise ValueError(f"name: {self.name!r} is no extra input. Give a name of data.extra.")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the name of the extra input. See `Segments.reads`."""
        return (self.name,)

    def layers(self, net: nn.Module | None, given: Given) -> Sequence[ExtraArray]:
        """See `Segments.layers`."""
        return [given.extra[self.name]]


class Sam(Segments):
    """Masks of the Segment Anything Model (Kirillov et al., ICCV 2023) at a grid of points, which may overlap.

    For each point the model gives three masks with a score. Masks with a low score, or whose border depends on the threshold, are
    left out, and of masks with nearly the same box the one with the highest score stays.
    """

    variant: Literal["vit_h", "vit_l", "vit_b"] = Field(default="vit_h", description="Size of the model.")
    weights: Weights = Field(default=Weights(), description="A file of the model's authors, such as sam_vit_h_4b8939.pth.")
    points: int = Field(default=32, ge=1, le=128, description="Points along each side of the image.")
    score: float = Field(default=0.88, ge=0, le=1, description="Least score of a mask by the model itself.")
    stability: float = Field(default=0.95, ge=0, le=1, description="Least IoU of a mask with thresholds 1 below and above.")
    overlap: float = Field(default=0.7, gt=0, le=1, description="Largest IoU of the boxes of two masks.")

    @model_validator(mode="after")
    def _installed(self) -> Sam:
        if find_spec("segment_anything") is None:
            raise ValueError("segment-anything is not installed, which has SAM. Run: pip install 'wsss-ray[sam]'")
        return self

    @property
    def has_network(self) -> bool:
        """Return True. See `Segments.has_network`."""
        return True

    def build(self) -> nn.Module:
        """Build the model with its weights. See `Segments.build`."""
        if not self.weights.is_file:
            raise ValueError("weights: give the file of SAM's weights, such as sam_vit_h_4b8939.pth.")
        from wsss_ray.nets.torchvision_safe import torchvision

        torchvision()  # segment_anything imports torchvision: load it safely first
        from segment_anything import sam_model_registry

        net: nn.Module = sam_model_registry[self.variant]()
        copy_weights(net, load_weights(self.weights))
        return net.eval()

    def layers(self, net: nn.Module | None, given: Given) -> Sequence[ExtraArray]:
        """See `Segments.layers`."""
        from wsss_ray.nets.sam import masks_at_points
        from wsss_ray.ops.segments import layered

        assert net is not None
        masks = masks_at_points(
            net, given.image_HWC, points=self.points, score=self.score, stability=self.stability, overlap=self.overlap
        )
        return layered(masks)


class SegmentVoting(Refiner):
    """Seeds after a vote: each segment takes the label that covers most of it, if it covers enough (see `ops/segments.py`)."""

    makes: ClassVar[Literal["maps", "seeds"]] = "seeds"

    segments: Segments = Field(description="Segments: slic, felzenszwalb, segment_files or sam.")
    share: float = Field(default=0.5, ge=0, lt=1, description="Share of a segment that its label must exceed.")
    covers: float | None = Field(
        default=0.85, gt=0, le=1, description="Share of a class's pixels that is enough in one segment; null: no such rule."
    )
    voters: Literal["objects", "labels"] = Field(
        default="objects",
        description="objects: as in SEPL; labels: background votes too, and without a majority nothing changes.",
    )

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the seeds, and extra inputs with segments. See `Refiner.reads`."""
        return ("seeds", *self.segments.reads)

    @property
    def has_network(self) -> bool:
        """Return True if a network draws the segments. See `Refiner.has_network`."""
        return self.segments.has_network

    def build(self, classes: Sequence[str]) -> nn.Module:
        """Build this network. See `Refiner.build`."""
        return self.segments.build()

    def refine(self, net: nn.Module | None, given: Given) -> LabelArray:
        """Let the segments of one image vote. See `Refiner.refine`."""
        from wsss_ray.ops.segments import vote

        assert given.seed_HW is not None
        layers: Any = self.segments.layers(net, given)
        return vote(given.seed_HW, layers, share=self.share, covers=self.covers, voters=self.voters)
