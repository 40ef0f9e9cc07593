"""Plan to compute the features of a frozen trunk once, where several stages, or all epochs of a training, would compute them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Augment, Inference, Learner, Trunk
from wsss_ray.core.graph import rebuild, walk
from wsss_ray.core.plan import Stage


class FrozenFeatures(Component):
    """The features that a frozen trunk has of the samples of a training. Not for job files."""

    in_job_files: ClassVar[bool] = False
    trunk: Trunk
    augment: Augment
    inference: Inference


def with_features(targets: Iterable[Stage]) -> tuple[Stage, ...]:
    """Return the same graph with a stage for the features of each frozen trunk, in `Stage.features` of the stages that use them.

    A training uses them if it cuts few different samples from an image (see `Augment.outcomes`). A stage that runs a network on
    single images uses those that a training of the graph uses, if data and trunk are the same. No id changes.

    Example:
        >>> targets = with_features(method.plan(data))
        >>> [stage.name for stage in walk(targets) if stage.kind == "features"]
        ['features']
    """
    targets = tuple(targets)
    made: dict[str, Stage] = {}
    for stage in walk(targets):
        for found in _of_training(stage):
            made.setdefault(found.id, found)
    known = [replace(one, name=f"features-{place}" if place > 1 else "features") for place, one in enumerate(made.values(), 1)]
    return rebuild(targets, lambda stage: replace(stage, features=tuple(one for one in known if _reads(stage, one))))


def _of_training(stage: Stage) -> list[Stage]:
    """Plan the features for a training: one stage for each of its data stages."""
    learner = stage.component
    if stage.kind != "train" or not isinstance(learner, Learner) or learner.augment.outcomes == "many":
        return []
    trunk = _trunk(stage)
    if trunk is None:
        return []
    rule = FrozenFeatures(trunk=trunk, augment=learner.augment, inference=learner.inference)
    data = {source.id: source for role, source in stage.inputs if role in ("data", "strong")}
    return [Stage("features", "features", rule, (("data", source),)) for source in data.values()]


def _reads(stage: Stage, features: Stage) -> bool:
    """Return True if a stage runs the trunk of `features` on its data, and may meet its samples."""
    training = stage if stage.kind == "train" else stage.optional("model")
    rule = features.component
    if training is None or not isinstance(rule, FrozenFeatures):
        return False
    data = {source.id for role, source in stage.inputs if role in ("data", "strong")}
    learner = training.component
    assert isinstance(learner, Learner)
    same = _trunk(training) == rule.trunk and learner.inference == rule.inference and features.input("data").id in data
    return same and (stage.kind != "train" or learner.augment == rule.augment)


def _trunk(training: Stage) -> Trunk | None:
    """Return the frozen trunk of a training, or None if its weights may be others than those that the trunk begins with."""
    learner, init = training.component, training.optional("init")
    assert isinstance(learner, Learner)
    trunk = learner.frozen_trunk
    if trunk is None or getattr(getattr(learner, "weights", None), "source", "none") != "none":
        return None
    return trunk if init is None or _trunk(init) == trunk else None
