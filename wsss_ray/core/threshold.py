"""Say how a seed rule depends on one threshold, so that a report can make its seeds at any other.

A rule names the field in which its threshold stands, and a recipe where the closed vocabulary below has one for it.
`ops/seeds.py` follows a recipe in Python and the report's `seeds.js` in a page; a test holds the two to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Cues = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.bool_]]

Source = Literal["peak", "mean"]
"""The maps that are compared with the threshold t: the maximum over all estimates, or their mean."""
Region = Literal["above", "of_maximum", "below_maximum", "of_pixels"]
"""The pixels that a class claims: its map exceeds t; exceeds t * its maximum; exceeds (1 - t) * its maximum; is among the highest
share t of its pixels. A map claims no pixel where it is 0."""
Winner = Literal["mean", "peak", "nobody"]
"""The class that gets a pixel which several claim: the one with the highest mean or the highest peak there, the first on a tie.
With `nobody` the pixel is undecided."""
Conflict = Literal["class", "background", "ignore"]
"""The label of a background cue that a class claims: the class's, background, or undecided."""
Unclaimed = Literal["ignore", "background"]
"""The label of a pixel that neither a class nor a background cue claims."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describe how labels follow from localization maps, background cues and a threshold.

    Example:
        Recipe(region="of_maximum", winner="nobody", conflict="ignore")
    """

    source: Source = "peak"
    region: Region = "above"
    winner: Winner = "mean"
    conflict: Conflict = "class"
    unclaimed: Unclaimed = "ignore"

    @property
    def reads_mean(self) -> bool:
        """Return True if the recipe needs the mean maps beside the peaks."""
        return "mean" in (self.source, self.winner)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Name the field that holds a rule's threshold, a number from 0 to 1, and tell how the seeds follow from it.

    Args:
        field: The field of the rule, dotted where it belongs to a part: `background.threshold`.
        recipe: How to make the seeds at any threshold. None if no recipe describes the rule: a report then calls the rule itself
            for its chart, and its pictures follow no slider.
        cues: The background cues of (peak_CHW, saliency_HW), which no threshold changes. None if the rule has none.
        crf: True if the rule refines by a dense CRF what the recipe makes.

    Example:
        Threshold(field="theta", recipe=Recipe(), cues=self.background.cues)
    """

    field: str
    recipe: Recipe | None = None
    cues: Cues | None = None
    crf: bool = False

    def of(self, rule: Component) -> float:
        """Return what the field of a rule holds.

        Raises:
            ValueError: if the rule has no such field, or it holds no number from 0 to 1.
        """
        value: Any = rule
        for name in self.field.split("."):
            value = getattr(value, name, None)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(
                f"{rule.kind()}.{self.field}: a threshold is a number from 0 to 1, here is {value!r}. "
                "Give such a number, or name another field in by_threshold."
            )
        return float(value)
