"""Seeds only: localization maps and seeds of a whole data set from a classifier that is already trained.

This method belongs to no paper. The classifier comes from a file (`classifier.weights`), such as the `model.safetensors` of a
train stage of another run. By default it is not trained. If steps or epochs are given, it is trained from these weights first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from wsss_ray.core import (
    Data,
    Learner,
    Localizer,
    Method,
    Refiner,
    SeedRule,
    SeedScore,
    SinceThen,
    Stage,
    evaluate_seeds,
    train,
)
from wsss_ray.methods.common.chain import REFINE, seeds_of, tag_quality
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.ficklenet import StochasticClassifier, StochasticGradCam


class Seeds(Method):
    """Maps and seeds from the weights of a classifier."""

    classifier: Learner = StochasticClassifier(epochs=None, steps=0)
    localizer: Localizer = StochasticGradCam()
    refine: Annotated[tuple[Refiner, ...], SinceThen()] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = ThresholdSeeds()

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan classifier, maps and seeds, and the score of the seeds if there are masks."""
        classifier = train(self.classifier, data.weak, name="classifier")
        seeds = seeds_of(data, classifier, localizer=self.localizer, refine=self.refine, seed_rule=self.seed_rule)
        score = evaluate_seeds(SeedScore(), seeds, data.weak) if data.weak_has_masks else seeds
        return (*tag_quality(classifier, data), score)
