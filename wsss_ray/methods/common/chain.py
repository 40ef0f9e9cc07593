"""Plan the chain of stages that most papers share: classifier, maps, seeds, segmenter, score."""

from __future__ import annotations

from wsss_ray.core import (
    Classifier,
    Data,
    Learner,
    Localizer,
    Metric,
    Relabel,
    SeedRule,
    SeedScore,
    Segmenter,
    Stage,
    TagScore,
    evaluate,
    evaluate_seeds,
    evaluate_tags,
    localize,
    relabel,
    seed,
    train,
)


def tag_quality(training: Stage | None, data: Data, *, name: str = "tag_quality") -> tuple[Stage, ...]:
    """Plan the score of a classifier's tags on the validation set, right after its training.

    Args:
        training: train stage of the classifier, if there is one.
        data: the data of the job.
        name: name shown to people.

    Returns:
        The stage. Nothing without a validation set, for a learner that is no `Classifier`, and for one that is not trained here.

    Example:
        >>> wanted = [*tag_quality(classifier, data), evaluate(self.metric, segmenter, data.val)]
    """
    if training is None or data.val is None:
        return ()
    learner = training.component
    if not isinstance(learner, Classifier) or learner.steps == 0:
        return ()
    return (evaluate_tags(TagScore(), training, data.val, name=name),)


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
        The score of the classifier's tags, the scores of seeds and pseudo-labels if the weak split has masks, then the score of
        the last segmenter. Without a validation set, there is no score of tags, and the last stage is the segmenter itself.

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
    wanted = [*tag_quality(tagged, data), *([evaluate_seeds(SeedScore(), seeds, data.weak)] if data.weak_has_masks else [])]
    init = tagged if from_classifier else None
    final = train(segmenter, data.weak, seeds=(seeds,), strong=data.strong, init=init, name="segmenter")
    if relabel_rule is not None:
        assert retrain is not None
        labels = relabel(relabel_rule, final, data.weak)
        final = train(retrain, data.weak, seeds=(labels,), strong=data.strong, init=final, name="retrain")
        if data.weak_has_masks:
            wanted.append(evaluate_seeds(SeedScore(), labels, data.weak, name="relabel_quality"))
    return (*wanted, evaluate(metric, final, data.val) if data.val else final)
