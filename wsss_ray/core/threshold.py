"""Describe how a seed rule depends on one threshold, so that a report can make its seeds at other thresholds.

A rule names the field that holds its threshold. If the vocabulary below can describe the rule, it also gives a recipe.
`ops/seeds.py` follows a recipe in Python, `seeds.js` follows it in the page of a report, and a test compares the two.
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
"""Maps that are compared with the threshold t: the maximum over all estimates, or their mean."""
Region = Literal["above", "of_maximum", "below_maximum", "of_pixels"]
"""Pixels that a class claims. Its map exceeds t; t * its maximum; (1 - t) * its maximum; or is among the highest share t of its
pixels. A map claims no pixel where it is 0."""
Winner = Literal["mean", "peak", "nobody"]
"""Class that gets a pixel claimed by several: the one with the highest mean or the highest peak there, the first on a tie. With
`nobody`, the pixel is undecided."""
Conflict = Literal["class", "background", "ignore"]
"""Label of a background cue that a class claims too: that of the class, background, or undecided."""
Unclaimed = Literal["ignore", "background"]
"""Label of a pixel that neither a class nor a background cue claims."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A description of how labels follow from localization maps, background cues and a threshold.

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
    """The field that holds a rule's threshold, a number from 0 to 1, and how the seeds follow from it.

    Attributes:
        field: The field of the rule, dotted if it belongs to a part: `background.threshold`.
        recipe: How to make the seeds at any threshold. None if no recipe describes the rule: the report then calls the rule
            itself for the chart, and its pictures have no slider.
        cues: Function of (peak_CHW, saliency_HW) that gives the background cues, which must not depend on the threshold. None if
            the rule has no cues.
        crf: True if the rule refines the result of the recipe with a dense CRF.

    Example:
        Threshold(field="theta", recipe=Recipe(), cues=self.background.cues)
    """

    field: str
    recipe: Recipe | None = None
    cues: Cues | None = None
    crf: bool = False

    def of(self, rule: Component) -> float:
        """Return the value of the field in a rule.

        Raises:
            ValueError: if the rule has no such field, or its value is no number from 0 to 1.
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
