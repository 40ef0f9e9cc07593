"""Define the arrays and records that pass between the roles of `contracts.py`. The legend of the shapes is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    ImageArray = NDArray[np.uint8]  # (H, W, 3), RGB
    LabelArray = NDArray[np.uint8]  # (H, W), labels 0..L-1 and IGNORE
    MapArray = NDArray[np.float32]  # (C, H, W) or (H, W), in [0, 1]
    ExtraArray = NDArray[np.uint16]  # (H, W), numbers whose meaning the reader knows: segments, depths, scribbles

IGNORE = 255
"""The ignore label: the class of the pixel is unknown. Losses and scores leave such pixels out."""


@dataclass(frozen=True)
class Batch:
    """The input of one training step on one worker.

    Attributes:
        ids: image ids.
        image_BCHW: RGB, 0..255.
        tags_BK: 1 for each class that an image contains, else 0.
        seeds_BEHW: label maps, uint8 with `IGNORE`. E is 0 for a classifier, usually 1 for a segmenter, and more if a segmenter
            learns from several estimates. An image with a human mask has this mask in every E channel.
        strong_B: True for images with a human mask.
        valid_BHW: False where a crop extends beyond its image.
        keys_B: one 63-bit random key per image, drawn from (job seed, epoch, image id). Take all randomness of the step from
            these keys: the result then does not depend on the number of workers.
        features_BCHW: features of a frozen trunk, if they were computed before; else None. The engine hands them to the trunk.
        progress: share of the training's steps that are done before this one, 0 <= progress < 1, for losses that warm up.
    """

    ids: tuple[str, ...]
    image_BCHW: Tensor
    tags_BK: Tensor
    seeds_BEHW: Tensor
    strong_B: Tensor
    valid_BHW: Tensor
    keys_B: tuple[int, ...]
    features_BCHW: Tensor | None = None
    progress: float = 0.0

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`. The CPU does not wait for tensors copied from pinned memory.

        Example:
            >>> batch = batch.pin_memory().to(torch.device("cuda"))
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, which a GPU reads directly. torch's DataLoader calls this method."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = ("image_BCHW", "tags_BK", "seeds_BEHW", "strong_B", "valid_BHW", "features_BCHW")
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names if getattr(self, name) is not None}
        return replace(self, **changed)


@dataclass(frozen=True)
class Axis:
    """The positions of a network's features along one side of the image, as fractions of that side.

    The centre of feature i is at `first` + i * `step`. With padded convolutions, this is not the middle of the i-th of n equal
    cells: a map that is enlarged as if it were is wrong by up to half a stride.

    Attributes:
        first: centre of feature 0.
        step: distance between the centres of neighbouring features.

    Example:
        >>> axis = Axis(first=0.125, step=0.25)  # four equal cells
    """

    first: float
    step: float


@dataclass(frozen=True)
class Maps:
    """Localization maps of one image at the network's resolution, one per tag of the image.

    They keep the maximum and the mean over all estimates of the image. "Some estimate exceeds theta" is the same as "the maximum
    exceeds theta", so that theta can change without running the network again.

    Attributes:
        classes: tags (0-based) that the maps belong to.
        peak_CHW: maximum over the estimates, each of which is normalised to [0, 1].
        mean_CHW: mean over the estimates.
        rows: positions of the map's rows on the image.
        columns: positions of the map's columns on the image.

    Example:
        >>> cells = Axis(first=0.125, step=0.25)
        >>> map_CHW = np.zeros((1, 4, 4), np.float32)
        >>> maps = Maps(classes=(3,), peak_CHW=map_CHW, mean_CHW=map_CHW, rows=cells, columns=cells)
    """

    classes: tuple[int, ...]
    peak_CHW: MapArray
    mean_CHW: MapArray
    rows: Axis
    columns: Axis


@dataclass(frozen=True)
class Evidence:
    """One training crop with the localization maps that its labels are made from. See `OnlineSegmenter`."""

    image_HWC: ImageArray
    maps: Maps
