"""Seed generation alone: a trained classifier's localization maps and seeds for a whole data set, nothing trained.

No paper of its own. The classifier comes from a file (`classifier.weights`, for instance the `model.safetensors` of another
run's train stage) and takes no step; with steps or epochs given it is trained from there first.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsss_ray.core.contracts import Learner, Localizer, SeedRule, SeedScore
from wsss_ray.core.method import Method
from wsss_ray.core.plan import Data, Stage, evaluate_seeds, localize, seed, train
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.methods.ficklenet import StochasticClassifier, StochasticGradCam


class Seeds(Method):
    """From a classifier's weights to Parquet seeds."""

    classifier: Learner = StochasticClassifier(epochs=None, steps=0)
    localizer: Localizer = StochasticGradCam()
    seed_rule: SeedRule = ThresholdSeeds()

    def plan(self, data: Data) -> Sequence[Stage]:
        """Classifier, maps, seeds; their quality where there are masks."""
        classifier = train(self.classifier, data.weak, name="classifier")
        maps = localize(self.localizer, classifier, data.weak)
        seeds = seed(self.seed_rule, maps, data.weak, saliency=data.saliency)
        return (evaluate_seeds(SeedScore(), seeds, data.weak),) if data.weak_has_masks else (seeds,)
