"""Plan the chain of stages that most papers share: classifier, maps, seeds, segmenter, score."""

from __future__ import annotations

from wsss_ray.core import (
    Data,
    Learner,
    Localizer,
    Metric,
    Relabel,
    SeedRule,
    SeedScore,
    Segmenter,
    Stage,
    evaluate,
    evaluate_seeds,
    localize,
    relabel,
    seed,
    train,
)


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
    """Plan classifier, maps, seeds, segmenter and score, and optionally a retrain stage.

    Args:
        data: the data of the job.
        classifier: trained on the tags of the weak split.
        localizer: makes the maps.
        seed_rule: makes the seeds.
        segmenter: trained on the seeds.
        from_classifier: start the segmenter from the trunk of the trained classifier.
        relabel_rule: makes pseudo-labels of the training images with the segmenter; None leaves out the retrain stage.
        retrain: trained on the pseudo-labels, from the weights of the segmenter. Required with `relabel_rule`.
        metric: scores the last segmenter on the validation set.

    Returns:
        The scores of seeds and pseudo-labels if the weak split has masks, then the score of the last segmenter. Without a
        validation set, the last stage is the segmenter itself.

    Raises:
        ValueError: if the parts do not fit together or the seed rule lacks saliency maps.

    Example:
        def plan(self, data):
            return from_tags(
                data,
                classifier=self.classifier,
                localizer=self.localizer,
                seed_rule=self.seed_rule,
                segmenter=self.segmenter,
                metric=self.metric,
            )
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
