"""Find the background of a seed: as cues (True or False per pixel), or as a score to compare with those of the classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from wsss_ray.core.component import Component, SinceThen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsss_ray.core.values import MapArray


class Background(Component):
    """Rule that finds background in localization maps or in a saliency map. Maps have the image's size and lie in [0, 1].

    `constant` names the field that holds the score, if the score is the same at every pixel. It is then a threshold.
    """

    constant: ClassVar[str | None] = None

    @property
    def needs_saliency(self) -> bool:
        """Return True if the rule needs a saliency map. See `SeedRule.needs_saliency`."""
        return False

    @abstractmethod
    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Mark the pixels that are background.

        Args:
            peak_CHW: localization maps of the C classes of the image; C may be 0.
            saliency_HW: class-agnostic saliency, or None.

        Returns:
            Cues, bool (H, W).

        Example:
            >>> CamBackground(threshold=0.2).cues(np.array([[[0.1, 0.5]]], np.float32), None)
            array([[ True, False]])
        """

    @abstractmethod
    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """Score each pixel as background, on the scale of the localization maps.

        Args:
            peak_CHW: localization maps of the C classes of the image; C may be 0.
            saliency_HW: class-agnostic saliency, or None.

        Returns:
            Scores, float32 (H, W) in [0, 1].

        Example:
            >>> PowerBackground(gamma=2.0).score(np.array([[[0.0, 0.5]]], np.float32), None)
            array([[1.  , 0.25]], dtype=float32)
        """


class SaliencyBackground(Background):
    """Background from a class-agnostic saliency map: cues where saliency is below `threshold`, score 1 - saliency.

    Saliency is the gray value over 255. MDC thresholds "normalized" values without saying how; `normalised` divides each map by
    its maximum. A map that is 0 everywhere stays so. A report's small pictures have the maximum of the shrunk map, which may be
    lower.
    """

    threshold: float = Field(
        default=0.06, gt=0, le=1, description="Saliency below which a pixel is background; 0.06 in the DSRG family."
    )
    normalised: Annotated[bool, SinceThen()] = Field(
        default=False, description="True: divide the saliency map of each image by its maximum first."
    )

    @property
    def needs_saliency(self) -> bool:
        """Return True: the rule reads saliency."""
        return True

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Mark the pixels below the threshold. See `Background.cues`."""
        assert saliency_HW is not None
        return self._scaled(saliency_HW) < self.threshold

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """Return 1 - saliency. See `Background.score`."""
        import numpy as np

        assert saliency_HW is not None
        return np.asarray(1 - self._scaled(saliency_HW), np.float32)

    def _scaled(self, saliency_HW: MapArray) -> MapArray:
        """Divide the map by its maximum, if asked to."""
        highest = float(saliency_HW.max())
        return saliency_HW / highest if self.normalised and highest > 0 else saliency_HW


class CamBackground(Background):
    """Background where all maps are low: cues where no class exceeds `threshold`. The score is `threshold` everywhere."""

    constant: ClassVar[str | None] = "threshold"
    threshold: float = Field(default=0.2, gt=0, le=1, description="A pixel is background if no map exceeds this value.")

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Mark the pixels where no class exceeds the threshold. See `Background.cues`."""
        import numpy as np

        return np.asarray(~(peak_CHW > self.threshold).any(axis=0), np.bool_)

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """Return the threshold at every pixel. See `Background.score`."""
        import numpy as np

        return np.full(peak_CHW.shape[1:], self.threshold, np.float32)


WITHOUT_SALIENCY = f"background to {{kind: {CamBackground.kind()}}}"
"""Advice for seed rules with a field `background`. See `SeedRule.without_saliency`."""


PowerOf = Literal["rest", "max"]
"""Base of the power in the background score: rest for (1 - max) ** gamma, max for 1 - max ** gamma."""


class PowerBackground(Background):
    """Background with the score (1 - max) ** gamma; cues where it exceeds every class.

    This is the score of PSA (Ahn and Kwak, CVPR 2018) and of RRM's authors' code. RRM's Eq. 4 prints 1 - max ** gamma, which
    `power_of: max` gives. A larger gamma makes the former smaller and the latter larger. RRM says that gamma "helps to suppress
    background" and that the score is like PSA's, so the printed form may be a misplaced bracket.
    """

    gamma: float = Field(
        default=4.0, ge=1, description="Exponent. A larger one makes the background weaker (stronger with `power_of: max`)."
    )
    power_of: Annotated[PowerOf, SinceThen()] = Field(
        default="rest", description="rest: (1 - max) ** gamma, as in PSA; max: 1 - max ** gamma, as printed in RRM's Eq. 4."
    )

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Mark the pixels whose background score exceeds every class. See `Background.cues`."""
        import numpy as np

        return np.asarray((peak_CHW < self.score(peak_CHW, saliency_HW)).all(axis=0), np.bool_)

    def score(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> MapArray:
        """Return (1 - max) ** gamma or 1 - max ** gamma, or ones if the image has no class. See `Background.score`."""
        import numpy as np

        if not len(peak_CHW):
            return np.ones(peak_CHW.shape[1:], np.float32)
        max_HW = peak_CHW.max(axis=0)
        return np.asarray((1 - max_HW) ** self.gamma if self.power_of == "rest" else 1 - max_HW**self.gamma, np.float32)
