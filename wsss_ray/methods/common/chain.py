"""The chain of stages that most papers share: classifier, maps, seeds, segmenter, score."""

from __future__ import annotations

from wsss_ray.core.contracts import Learner, Localizer, Metric, Relabel, SeedRule, SeedScore, Segmenter
from wsss_ray.core.plan import Data, Stage, evaluate, evaluate_seeds, localize, relabel, seed, train


def from_tags(
    data: Data,
    *,
    classifier: Learner,
    localizer: Localizer,
    seed_rule: SeedRule,
    segmenter: Segmenter,
    from_classifier: bool = False,
    relabel_rule: Relabel | None = None,
    retrain: Segmenter | None = None,
    metric: Metric,
) -> tuple[Stage, ...]:
    """The chain that most papers share: classifier, maps, seeds, segmenter, score.

    `from_classifier` starts the segmenter from the classifier's trunk. With a `relabel_rule` the training images are labelled
    anew by the segmenter, and `retrain` is trained on that, from its weights.
    """
    tagged = train(classifier, data.weak, name="classifier")
    seeds = seed(seed_rule, localize(localizer, tagged, data.weak), data.weak, saliency=data.saliency)
    wanted = [evaluate_seeds(SeedScore(), seeds, data.weak)] if data.weak_has_masks else []
    init = tagged if from_classifier else None
    final = train(segmenter, data.weak, seeds=(seeds,), strong=data.strong, init=init, name="segmenter")
    if relabel_rule is not None:
        assert retrain is not None
        labels = relabel(relabel_rule, final, data.weak)
        final = train(retrain, data.weak, seeds=(labels,), strong=data.strong, init=final, name="retrain")
        if data.weak_has_masks:
            wanted.append(evaluate_seeds(SeedScore(), labels, data.weak, name="relabel_quality"))
    return (*wanted, evaluate(metric, final, data.val) if data.val else final)
