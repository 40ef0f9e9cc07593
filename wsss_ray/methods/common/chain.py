"""Plan the chain of stages that most papers share: classifier, maps, seeds, segmenter, score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wsss_ray.core import (
    Classifier,
    Data,
    Learner,
    Localizer,
    Metric,
    Refiner,
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
from wsss_ray.core import refine as refine_by

REFINE = "Refiners in order. Those that make maps change the maps before seeds are made, those that make seeds change the seeds."
"""Description of the field `refine` of methods."""


def refined(
    refiners: Sequence[Refiner],
    makes: Literal["maps", "seeds"],
    data: Data,
    *,
    classifier: Stage | None,
    maps: Stage,
    seeds: Stage | None = None,
    suffix: str = "",
) -> Stage:
    """Plan the refiners of a job that make maps, or those that make seeds, one after the other, with their networks.

    Args:
        refiners: all refiners of the job.
        makes: what the refiners to plan make; the others are left out.
        data: the data of the job.
        classifier: train stage of the classifier that the maps come from; None if none was trained.
        maps: stage with the localization maps.
        seeds: stage with the label maps; None while there are none.
        suffix: end of the stages' names, for methods with several maps.

    Returns:
        The last stage; `maps` or `seeds` if no refiner makes such.

    Raises:
        ValueError: if something is missing that a refiner reads.

    Example:
        >>> maps = refined(self.refine, "maps", data, classifier=classifier, maps=maps)
        >>> seeds = seed(self.seed_rule, maps, data.weak)
        >>> seeds = refined(self.refine, "seeds", data, classifier=classifier, maps=maps, seeds=seeds)
    """
    names: list[str] = []
    for refiner in (one for one in refiners if one.makes == makes):
        if makes == "maps" and "seeds" in refiner.reads:
            mend = "Name one that reads maps alone, or one that makes seeds."
            raise ValueError(f"method.refine: {refiner.kind()} makes maps from seeds, which are made later. {mend}")
        names.append(refiner.kind())
        again = names.count(names[-1])
        stage = refine_by(
            refiner,
            data.weak,
            maps=maps,
            seeds=seeds,
            saliency=data.saliency,
            model=refiner.plan_model(data, classifier=classifier, maps=maps, seeds=seeds, suffix=suffix),
            extra=data.extra,
            name=refiner.kind() + (f"-{again}" if again > 1 else "") + suffix,
        )
        maps, seeds = (stage, seeds) if makes == "maps" else (maps, stage)
    return maps if makes == "maps" or seeds is None else seeds


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


def seeds_of(data: Data, classifier: Stage, *, localizer: Localizer, refine: Sequence[Refiner], seed_rule: SeedRule) -> Stage:
    """Plan maps, seeds and their refiners.

    Args:
        data: the data of the job.
        classifier: train stage of the classifier.
        localizer: makes the maps.
        refine: change the maps or the seeds (see `refined`).
        seed_rule: makes the seeds.

    Returns:
        The stage with the seeds.

    Raises:
        ValueError: if the parts do not fit together or something is missing that one of them reads.

    Example:
        >>> seeds = seeds_of(data, classifier, localizer=self.localizer, refine=self.refine, seed_rule=self.seed_rule)
    """
    maps = refined(refine, "maps", data, classifier=classifier, maps=localize(localizer, classifier, data.weak))
    seeds = seed(seed_rule, maps, data.weak, saliency=data.saliency)
    return refined(refine, "seeds", data, classifier=classifier, maps=maps, seeds=seeds)


def from_tags(
    data: Data,
    *,
    classifier: Learner,
    localizer: Localizer,
    refine: Sequence[Refiner] = (),
    seed_rule: SeedRule,
    segmenter: Segmenter,
    from_classifier: bool = False,
    relabel_rule: Relabel | None = None,
    retrain: Segmenter | None = None,
    metric: Metric,
) -> tuple[Stage, ...]:
    """Plan classifier, maps, seeds, segmenter and score, and optionally refiners and a retrain stage.

    Args:
        data: the data of the job.
        classifier: trained on the tags of the weak split.
        localizer: makes the maps.
        refine: change the maps or the seeds (see `refined`).
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
    seeds = seeds_of(data, tagged, localizer=localizer, refine=refine, seed_rule=seed_rule)
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
