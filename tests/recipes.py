"""A seed rule as a plug-in may bring it, for every recipe that the vocabulary of `core/threshold.py` has words for."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

from pydantic import Field

from wsss_ray.core.rules import SeedRule
from wsss_ray.core.threshold import Conflict, Recipe, Region, Source, Threshold, Unclaimed, Winner
from wsss_ray.ops.background import Background, PowerBackground
from wsss_ray.ops.seeds import cut


class RecipeSeeds(SeedRule):
    """Follows any recipe; its threshold stands in a field of that name."""

    threshold: float = Field(default=0.3, ge=0, le=1)
    source: Source = "peak"
    region: Region = "above"
    winner: Winner = "mean"
    conflict: Conflict = "class"
    unclaimed: Unclaimed = "ignore"
    background: Background | None = PowerBackground(gamma=2)

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            source=self.source, region=self.region, winner=self.winner, conflict=self.conflict, unclaimed=self.unclaimed
        )  # fmt: skip

    @property
    def by_threshold(self) -> Threshold:
        cues = self.background.cues if self.background is not None else None
        return Threshold(field="threshold", recipe=self.recipe, cues=cues)

    def seed(self, image_HWC: Any, maps: Any, saliency_HW: Any) -> Any:
        return cut(self, image_HWC, maps, saliency_HW)


class CalledSeeds(RecipeSeeds):
    """The same labels of a rule that gives no recipe."""

    @property
    def by_threshold(self) -> Threshold:
        return Threshold(field="threshold")

    def seed(self, image_HWC: Any, maps: Any, saliency_HW: Any) -> Any:
        return cut(RecipeSeeds(**dict(self)), image_HWC, maps, saliency_HW)


WORDS = {"source": Source, "region": Region, "winner": Winner, "conflict": Conflict, "unclaimed": Unclaimed}
RULES = [RecipeSeeds(**dict(zip(WORDS, words, strict=True))) for words in product(*map(get_args, WORDS.values()))]
