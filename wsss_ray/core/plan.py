"""Stages as values, and the graph they form. No torch, no Ray, nothing runs here.

A stage is a kind, the frozen component that does the work, and the stages it reads. Its id is a hash of all of that, defaults
included, so that two jobs that share a prefix share its artifacts, and a changed theta re-runs the seeds and nothing before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from wsss_ray.core.component import Component, digest
from wsss_ray.core.contracts import Learner, Localizer, MaskNoise, Metric, Relabel, SeedRule, Segmenter

Kind = Literal["ingest", "train", "localize", "seed", "evaluate"]


@dataclass(frozen=True)
class Stage:
    """One step of a job. `name` is for people and stands outside the id; `inputs` are (role, stage) in a fixed order."""

    kind: Kind
    name: str
    component: Component
    inputs: tuple[tuple[str, Stage], ...] = ()
    seed: int | None = None

    @cached_property
    def id(self) -> str:
        """The stage's folder in the store: its kind and 16 digits of the hash of all that decides its numbers."""
        return f"{self.kind}-{digest(self.identity())[:16]}"

    def identity(self) -> dict[str, Any]:
        """What the id hashes."""
        inputs = [[role, stage.id] for role, stage in self.inputs]
        return {"kind": self.kind, "component": self.component.identity(), "inputs": inputs, "seed": self.seed}

    def input(self, role: str) -> Stage:
        """The one input with that role. Raises KeyError if there is none."""
        return dict(self.inputs)[role]

    def optional(self, role: str) -> Stage | None:
        """The input with that role, if there is one."""
        return dict(self.inputs).get(role)

    def all(self, role: str) -> tuple[Stage, ...]:
        """All inputs with that role, in order."""
        return tuple(stage for name, stage in self.inputs if name == role)


@dataclass(frozen=True)
class Data:
    """The data of a job as a method's plan sees it: ingest stages, one per split.

    weak: images with tags; val: images with masks; strong: images with human masks for semi-supervised training, if any;
    saliency: maps shard-aligned with `weak`, if any. `weak_has_masks`: whether seeds can be scored.
    """

    classes: tuple[str, ...]
    weak: Stage
    val: Stage | None = None
    strong: Stage | None = None
    saliency: Stage | None = None
    weak_has_masks: bool = False


def ingest(component: Component, *, name: str, like: Stage | None = None) -> Stage:
    """Pack a split into Parquet shards; `like` names the split whose shards it is aligned with."""
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
    """Train on the images of `data` with the label maps of `seeds`, the human masks of `strong`, from `init`'s weights.

    Raises ValueError if the learner does not learn from such labels.
    """
    if isinstance(learner, Segmenter):
        _check_labels(learner, len(seeds), strong)
    inputs = [("data", data), *(("seeds", stage) for stage in seeds)]
    return Stage("train", name, learner, (*inputs, *_inputs(strong=strong, init=init)))


def _check_labels(segmenter: Segmenter, seeds: int, strong: Stage | None) -> None:
    reads, kind = segmenter.reads_seeds, segmenter.kind()
    if reads == 0 and seeds:
        raise ValueError(f"method.segmenter: {kind} makes its labels as it trains and takes no seeds; it goes with method rrm")
    if reads != 0 and not seeds and strong is None:
        raise ValueError(f"method.segmenter: {kind} learns from seeds, and this method makes none; it wants kind: rrm_segmenter")
    if reads is not None and seeds > max(reads, 1):
        raise ValueError(f"method.segmenter: {kind} learns from one set of seeds, here are {seeds}; use kind: weighted_segmenter")


def localize(localizer: Localizer, classifier: Stage, data: Stage, *, name: str = "maps") -> Stage:
    """Localization maps of every image of `data` for its tags. Raises ValueError if the localizer does not fit the classifier."""
    assert isinstance(classifier.component, Learner)
    localizer.check(classifier.component)
    return Stage("localize", name, localizer, _inputs(data=data, model=classifier))


def seed(rule: SeedRule, maps: Stage, data: Stage, *, saliency: Stage | None = None, name: str = "seeds") -> Stage:
    """Label maps from localization maps.

    Raises:
        ValueError: if the rule needs saliency maps and there are none, or names a threshold that is none.
    """
    if rule.needs_saliency and saliency is None:
        raise ValueError(
            "method.seed_rule: the background cues need saliency maps: set data.saliency to their folder, or "
            "method.seed_rule.background to {kind: cam_background}"
        )
    if (threshold := rule.by_threshold) is not None:
        threshold.of(rule)  # a wrong name shows now, and not in the report at the end
    return Stage("seed", name, rule, _inputs(data=data, maps=maps, saliency=saliency))


def relabel(rule: Relabel, segmenter: Stage, data: Stage, *, name: str = "relabel") -> Stage:
    """Label maps from a trained segmenter's predictions."""
    assert isinstance(segmenter.component, Segmenter)
    return Stage("seed", name, rule, _inputs(data=data, model=segmenter))


def spoil(noise: MaskNoise, data: Stage, *, name: str) -> Stage:
    """Label maps from the human masks of `data` with noise put on them; `IGNORE` where an image has no mask."""
    return Stage("seed", name, noise, _inputs(data=data))


def evaluate(metric: Metric, segmenter: Stage, data: Stage, *, name: str = "miou") -> Stage:
    """Score a segmenter on the masks of `data`."""
    assert isinstance(segmenter.component, Segmenter)
    return Stage("evaluate", name, metric, _inputs(data=data, model=segmenter))


def evaluate_seeds(metric: Component, seeds: Stage, data: Stage, *, name: str = "seed_quality") -> Stage:
    """Score label maps against the masks of the images they were made from."""
    return Stage("evaluate", name, metric, _inputs(data=data, seeds=seeds))


def walk(targets: Iterable[Stage]) -> list[Stage]:
    """All stages that `targets` need, each once, inputs before what reads them, in the order in which they are first named."""
    order: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.id not in order:
            for _, source in stage.inputs:
                visit(source)
            order[stage.id] = stage

    for target in targets:
        visit(target)
    return list(order.values())


def reseed(targets: Iterable[Stage], job_seed: int) -> tuple[Stage, ...]:
    """The same graph with the job's seed in every stage that draws random numbers (train, localize, noise on masks)."""
    done: dict[int, Stage] = {}

    def visit(stage: Stage) -> Stage:
        if id(stage) not in done:
            inputs = tuple((role, visit(source)) for role, source in stage.inputs)
            draws = stage.kind in ("train", "localize") or isinstance(stage.component, MaskNoise)
            done[id(stage)] = replace(stage, inputs=inputs, seed=job_seed if draws else stage.seed)
        return done[id(stage)]

    return tuple(visit(target) for target in targets)


def until(targets: Iterable[Stage], kind: Literal["localize", "seed", "train"]) -> tuple[Stage, ...]:
    """Cut a plan short: `localize` and `seed` stop after the last such stage, `train` leaves out only the scores of models."""
    stages = walk(targets)
    if kind == "train":
        return tuple(s for s in stages if not (s.kind == "evaluate" and s.optional("model")))
    wanted = [s for s in stages if s.kind == kind and not (kind == "seed" and s.optional("model"))]
    if not wanted:
        raise ValueError(f"--until {kind}: this method has no such stage")
    made = {s.id for s in walk(wanted)}
    scores = [s for s in stages if s.kind == "evaluate" and all(source.id in made for _, source in s.inputs)]
    return (*wanted, *scores) if kind == "seed" else tuple(wanted)


def one_pipeline(before: Stage, stage: Stage) -> bool:
    """Tell whether two neighbouring stages run as one pipeline: per-image stages of the same data, shard by shard."""
    kinds = ("localize", "seed", "evaluate")
    return before.kind in kinds and stage.kind in kinds and before.input("data").id == stage.input("data").id


@dataclass(frozen=True)
class Plan:
    """A job's stages in the order in which they run. All data is packed first: what is wrong with it shows before a training."""

    targets: tuple[Stage, ...]
    stages: list[Stage] = field(default_factory=list)

    @classmethod
    def of(cls, targets: Iterable[Stage]) -> Plan:
        """The plan that makes `targets`."""
        fixed = tuple(targets)
        return cls(fixed, sorted(walk(fixed), key=lambda stage: stage.kind != "ingest"))

    def cut(self, kind: Literal["localize", "seed", "train"] | None) -> Plan:
        """The plan as `until` cuts it short; as it is without a kind. Raises ValueError if there is no such stage."""
        return Plan.of(until(self.targets, kind)) if kind else self

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)


def _inputs(**roles: Stage | None) -> tuple[tuple[str, Stage], ...]:
    return tuple((role, stage) for role, stage in roles.items() if stage is not None)
