"""Where a seed's background comes from: as cues (yes or no at a pixel), or as a score beside those of the classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import MapArray


class Background(Component):
    """Background from localization maps, all of them at the image's resolution and in [0, 1], or from a saliency map."""

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return False

    @abstractmethod
    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Background cues (H, W)."""

    @abstractmethod
    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """How much a pixel is background, (H, W) in [0, 1]: comparable with the maps of the classes."""


class SaliencyBackground(Background):
    """From a class-agnostic saliency map: cues where it lies below `threshold` (.06 in DSRG's family), score 1 - saliency."""

    threshold: float = Field(default=0.06, gt=0, le=1)

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return True

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """See `Background.cues`."""
        assert saliency_HW is not None
        return saliency_HW < self.threshold

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """See `Background.score`."""
        import numpy as np

        assert saliency_HW is not None
        return np.asarray(1 - saliency_HW, np.float32)


class CamBackground(Background):
    """The complement of the localization maps: cues where no class exceeds `threshold`, which is also the score everywhere."""

    threshold: float = Field(default=0.2, gt=0, le=1)

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """See `Background.cues`."""
        import numpy as np

        return np.asarray(~(peak_CHW > self.threshold).any(axis=0), np.bool_)

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """See `Background.score`."""
        import numpy as np

        return np.full(peak_CHW.shape[1:], self.threshold, np.float32)


class PowerBackground(Background):
    """(1 - max over the classes) ** gamma (Ahn and Kwak, CVPR 2018; RRM, Eq. 4); cues where it exceeds every class."""

    gamma: float = Field(default=4.0, ge=1)

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """See `Background.cues`."""
        import numpy as np

        return np.asarray((peak_CHW < self.score(peak_CHW, saliency_HW)).all(axis=0), np.bool_)

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """See `Background.score`."""
        import numpy as np

        if not len(peak_CHW):
            return np.ones(peak_CHW.shape[1:], np.float32)
        return np.asarray((1 - peak_CHW.max(axis=0)) ** self.gamma, np.float32)
