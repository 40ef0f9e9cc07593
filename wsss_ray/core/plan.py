"""Describe the stages of a job as values that form a graph. Nothing runs here, and neither torch nor Ray is needed.

A stage has a kind, the frozen component that does the work, and the stages that it reads. Its id is a hash of all of these,
defaults included. Two jobs whose first stages are equal therefore share the artifacts of these stages, and a new theta makes new
seeds but no new maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from wsss_ray.core.component import Component, digest
from wsss_ray.core.contracts import Classifier, Learner, Segmenter
from wsss_ray.core.refiner import ROLES, Refiner
from wsss_ray.core.rules import Localizer, MaskNoise, Metric, Relabel, SaliencyNet, SeedRule

Kind = Literal["ingest", "features", "train", "localize", "saliency", "seed", "classify", "evaluate"]


@dataclass(frozen=True)
class Stage:
    """One step of a job. Make stages with `train`, `localize`, `seed` and the other functions of this module.

    Attributes:
        kind: the kind of step.
        name: name shown to people; not part of the id.
        component: the component that does the work.
        inputs: the stages that are read, as (role, stage) in a fixed order.
        seed: seed of the random numbers, for stages that draw any. `reseed` sets it.
        features: stages with features of a frozen trunk that this stage would compute itself otherwise. They change no number,
            so they are not part of the id. `with_features` sets them.
    """

    kind: Kind
    name: str
    component: Component
    inputs: tuple[tuple[str, Stage], ...] = ()
    seed: int | None = None
    features: tuple[Stage, ...] = ()

    @cached_property
    def id(self) -> str:
        """Name of the stage's folder in the store: the kind and 16 digits of the hash of `identity`."""
        return f"{self.kind}-{digest(self.identity())[:16]}"

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the stage's numbers: kind, component, ids of the inputs, seed."""
        inputs = [[role, stage.id] for role, stage in self.inputs]
        return {"kind": self.kind, "component": self.component.identity(), "inputs": inputs, "seed": self.seed}

    def input(self, role: str) -> Stage:
        """Return the input with this role. Raise KeyError if there is none."""
        return dict(self.inputs)[role]

    def optional(self, role: str) -> Stage | None:
        """Return the input with this role, or None."""
        return dict(self.inputs).get(role)

    def all(self, role: str) -> tuple[Stage, ...]:
        """Return all inputs with this role, in order."""
        return tuple(stage for name, stage in self.inputs if name == role)


@dataclass(frozen=True)
class Data:
    """The data of a job as the plan of a method sees it: one ingest stage per split.

    Attributes:
        classes: names of the K object classes.
        weak: training images with tags.
        val: validation images with masks, if any.
        strong: images with human masks for semi-supervised training, if any.
        saliency: saliency maps in the same shards as `weak`, if any: an ingest stage of a folder, or a stage that makes them.
        weak_has_masks: True if the images of `weak` have masks too, so that seeds can be scored.
        extra: further inputs of the images of `weak` by name (`data.extra` of the job), in the same shards: ingest stages.
    """

    classes: tuple[str, ...]
    weak: Stage
    val: Stage | None = None
    strong: Stage | None = None
    saliency: Stage | None = None
    weak_has_masks: bool = False
    extra: Mapping[str, Stage] = field(default_factory=dict)


def ingest(component: Component, *, name: str, like: Stage | None = None) -> Stage:
    """Plan to pack a `DataSplit` into Parquet shards. With `like`, an ingest stage, shard i holds the images of its shard i."""
    return Stage("ingest", name, component, _inputs(like=like))


def train(
    learner: Learner,
    data: Stage,
    *,
    name: str,
    seeds: Sequence[Stage] = (),
    strong: Stage | None = None,
    init: Stage | None = None,
) -> Stage:
    """Plan a training.

    Args:
        learner: the network and its loss.
        data: ingest stage of the training images.
        name: name shown to people, such as "segmenter".
        seeds: stages with label maps of these images. The loss gets them in this order.
        strong: ingest stage of images with human masks.
        init: train stage to start from. The trunk takes its weights, and so does every part (head, blocks) that is the same.

    Raises:
        ValueError: if the learner does not learn from such labels.

    Example:
        >>> segmenter = train(self.segmenter, data.weak, seeds=(seeds,), strong=data.strong, name="segmenter")
    """
    if isinstance(learner, Segmenter):
        _check_labels(learner, len(seeds), strong)
    inputs = [("data", data), *(("seeds", stage) for stage in seeds)]
    return Stage("train", name, learner, (*inputs, *_inputs(strong=strong, init=init)))


def _check_labels(segmenter: Segmenter, seeds: int, strong: Stage | None) -> None:
    reads, kind = segmenter.reads_seeds, segmenter.kind()
    if reads == 0 and seeds:
        wrong, mend = "makes its labels as it trains and takes no seeds", ", or a method that makes no seeds"
    elif reads != 0 and not seeds and strong is None:
        wrong, mend = "learns from seeds, and this method makes none", ""
    elif reads is not None and seeds > max(reads, 1):
        wrong, mend = f"learns from {reads} set(s) of seeds, and this method makes {seeds}", ""
    else:
        return
    fitting = [name for name, one in Segmenter.kinds().items() if issubclass(one, Segmenter) and _learns_from(one, seeds)]
    kinds = " or ".join(filter(None, [", ".join(fitting[:-1]), *fitting[-1:]]))
    raise ValueError(f"method.segmenter: {kind} {wrong}. Use {f'kind: {kinds}' if kinds else 'another kind'}{mend}.")


def _learns_from(segmenter: type[Segmenter], seeds: int) -> bool:
    """Return True if a kind of segmenter learns from this number of label maps of each image, without human masks."""
    reads = segmenter.reads_seeds
    return seeds > 0 if reads is None else min(reads, 1) <= seeds <= reads


def localize(localizer: Localizer, classifier: Stage, data: Stage, *, name: str = "maps") -> Stage:
    """Plan the maps of `data`, an ingest stage, by the network of `classifier`, a train stage: one map per tag of each image.

    Raises:
        ValueError: if the localizer does not fit the classifier.
    """
    assert isinstance(classifier.component, Learner)
    localizer.check(classifier.component)
    return Stage("localize", name, localizer, _inputs(data=data, model=classifier))


def salient(net: SaliencyNet, data: Stage, *, name: str = "saliency") -> Stage:
    """Plan the saliency maps of `data`, an ingest stage, by a network that is trained already.

    Example:
        >>> saliency = salient(U2Net(), data.weak)
    """
    return Stage("saliency", name, net, _inputs(data=data))


def seed(rule: SeedRule, maps: Stage, data: Stage, *, saliency: Stage | None = None, name: str = "seeds") -> Stage:
    """Plan label maps from localization maps.

    Args:
        rule: the rule that makes the label maps.
        maps: localize stage.
        data: ingest stage of the same images.
        saliency: stage with their saliency maps: `ingest`, or `salient`.
        name: name shown to people.

    Raises:
        ValueError: if the rule needs saliency maps and there are none, or if the threshold that it names is not one.

    Example:
        >>> seeds = seed(self.seed_rule, maps, data.weak, saliency=data.saliency)
    """
    if rule.needs_saliency and saliency is None:
        instead = f", or method.seed_rule.{rule.without_saliency}" if rule.without_saliency else ""
        mend = f"Set data.saliency to their folder, or to {{kind: u2net}}, which makes them{instead}."
        raise ValueError(f"method.seed_rule: {rule.kind()} needs saliency maps. {mend}")
    if (threshold := rule.by_threshold) is not None:
        threshold.of(rule)  # a wrong name ends the plan, not the report at the end
    return Stage("seed", name, rule, _inputs(data=data, maps=maps, saliency=saliency))


def refine(
    refiner: Refiner,
    data: Stage,
    *,
    maps: Stage | None = None,
    seeds: Stage | None = None,
    saliency: Stage | None = None,
    model: Stage | None = None,
    extra: Mapping[str, Stage] | None = None,
    name: str,
) -> Stage:
    """Plan better maps, or better label maps, for `data`, an ingest stage. The stage reads only what the refiner names.

    Args:
        refiner: the rule.
        data: ingest stage of the images.
        maps: stage with their localization maps.
        seeds: stage with their label maps.
        saliency: stage with their saliency maps.
        model: train stage whose network the refiner runs.
        extra: ingest stages of their extra inputs by name, such as `data.extra`.
        name: name shown to people.

    Returns:
        A stage of the kind "localize" or "seed", as the refiner makes maps or label maps.

    Raises:
        ValueError: if something is missing that the refiner reads.

    Example:
        >>> walked = refine(self.walk, data.weak, maps=maps, model=affinity, name="walked")
    """
    there = {"maps": maps, "seeds": seeds, "saliency": saliency, "model": model}
    extras = {} if extra is None else extra
    inputs: dict[str, Stage | None] = {"data": data}
    for role in refiner.reads:
        found = there[role] if role in ROLES else extras.get(role)
        if found is None:
            raise ValueError(f"method: {refiner.kind()} reads {role}, and there is none. {_missing(role)}")
        inputs[role if role in ROLES else extra_role(role)] = found
    return Stage("localize" if refiner.makes == "maps" else "seed", name, refiner, _inputs(**inputs))


def extra_role(name: str) -> str:
    """Return the role of an extra input in a stage's inputs, which no other input has."""
    return f"extra.{name}"


def _missing(role: str) -> str:
    if role == "saliency":
        return "Set data.saliency to the folder of their maps, or to {kind: u2net}, which makes them."
    if role in ROLES:
        return f"Give the stage to refine() as {role}."
    return f"Set data.extra to [{{name: {role}, folder: FOLDER}}], the folder of their PNG files."


def relabel(rule: Relabel, segmenter: Stage, data: Stage, *, name: str = "relabel") -> Stage:
    """Plan pseudo-labels for `data`, an ingest stage, from the predictions of `segmenter`, a train stage.

    Example:
        >>> labels = relabel(self.relabel, segmenter, data.weak)
    """
    assert isinstance(segmenter.component, Segmenter)
    return Stage("seed", name, rule, _inputs(data=data, model=segmenter))


def spoil(noise: MaskNoise, data: Stage, *, name: str) -> Stage:
    """Plan label maps: the human masks of `data`, an ingest stage, with added noise. Images without a mask get `IGNORE` only.

    Example:
        >>> labels = spoil(self.noise, data.weak, name="labels-1")
    """
    return Stage("seed", name, noise, _inputs(data=data))


def evaluate(metric: Metric, segmenter: Stage, data: Stage, *, name: str = "miou") -> Stage:
    """Plan the score of `segmenter`, a train stage, on the masks of `data`, an ingest stage.

    Example:
        >>> score = evaluate(self.metric, segmenter, data.val)
    """
    assert isinstance(segmenter.component, Segmenter)
    return Stage("evaluate", name, metric, _inputs(data=data, model=segmenter))


def evaluate_seeds(metric: Component, seeds: Stage, data: Stage, *, name: str = "seed_quality") -> Stage:
    """Plan the score of `seeds`, a stage with label maps, on the masks of `data`, their ingest stage. `metric` is a `SeedScore`.

    Example:
        >>> quality = evaluate_seeds(SeedScore(), seeds, data.weak)
    """
    return Stage("evaluate", name, metric, _inputs(data=data, seeds=seeds))


def evaluate_tags(metric: Component, classifier: Stage, data: Stage, *, name: str = "tag_quality") -> Stage:
    """Plan the tags that `classifier`, a train stage, gives to the images of `data`, and their score. `metric` is a `TagScore`.

    Example:
        >>> quality = evaluate_tags(TagScore(), classifier, data.val)
    """
    assert isinstance(classifier.component, Classifier)
    return Stage("classify", name, metric, _inputs(model=classifier, data=data))  # in this order, training images stand first


def _inputs(**roles: Stage | None) -> tuple[tuple[str, Stage], ...]:
    return tuple((role, stage) for role, stage in roles.items() if stage is not None)
