"""Walk the graph of stages that a method plans, change it, cut it short, and put it in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from wsss_ray.core.plan import Stage
from wsss_ray.core.refiner import Refiner
from wsss_ray.core.rules import MaskNoise, Relabel

Until = Literal["localize", "seed", "train"]
"""Kinds of stages after which a plan can be cut short. See `until`."""


def walk(targets: Iterable[Stage]) -> list[Stage]:
    """Return all stages that `targets` read, each once. Inputs come before the stages that read them."""
    order: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.id not in order:
            for source in (*(source for _, source in stage.inputs), *stage.features):
                visit(source)
            order[stage.id] = stage

    for target in targets:
        visit(target)
    return list(order.values())


def rebuild(targets: Iterable[Stage], change: Callable[[Stage], Stage]) -> tuple[Stage, ...]:
    """Return the same graph with each stage changed once. `change` gets a stage whose inputs are changed already.

    Example:
        >>> rebuild(targets, lambda stage: replace(stage, seed=1))
    """
    done: dict[int, Stage] = {}

    def visit(stage: Stage) -> Stage:
        if id(stage) not in done:
            done[id(stage)] = change(replace(stage, inputs=tuple((role, visit(source)) for role, source in stage.inputs)))
        return done[id(stage)]

    return tuple(visit(target) for target in targets)


def reseed(targets: Iterable[Stage], job_seed: int) -> tuple[Stage, ...]:
    """Return the same graph with the job's seed in every stage that may draw random numbers: train, localize, refiners, noise."""

    def change(stage: Stage) -> Stage:
        draws = stage.kind in ("train", "localize") or isinstance(stage.component, MaskNoise | Refiner)
        return replace(stage, seed=job_seed) if draws else stage

    return rebuild(targets, change)


def until(targets: Iterable[Stage], kind: Until) -> tuple[Stage, ...]:
    """Cut a plan short.

    Args:
        targets: the stages of the whole plan.
        kind: `localize` and `seed` stop after the last stage of this kind, where `seed` keeps the scores of seeds and leaves out
            pseudo-labels from a segmenter. `train` leaves out only the scores of models and of
            their tags.

    Raises:
        ValueError: if the plan has no stage of this kind.
    """
    stages = walk(targets)
    if kind == "train":
        return tuple(s for s in stages if not (s.kind in ("classify", "evaluate") and s.optional("model")))
    wanted = [s for s in stages if s.kind == kind and not isinstance(s.component, Relabel)]
    if not wanted:
        raise ValueError(f"--until {kind}: this method has no such stage. Choose another, or leave the option out.")
    made = {s.id for s in walk(wanted)}
    scores = [s for s in stages if s.kind == "evaluate" and all(source.id in made for _, source in s.inputs)]
    return (*wanted, *scores) if kind == "seed" else tuple(wanted)


def one_pipeline(before: Stage, stage: Stage) -> bool:
    """Return True if two neighbouring stages run as one pipeline: per-image stages of the same data, shard by shard."""
    kinds = ("localize", "saliency", "seed", "classify", "evaluate")
    return before.kind in kinds and stage.kind in kinds and before.input("data").id == stage.input("data").id


@dataclass(frozen=True)
class Plan:
    """The stages of a job in the order in which they run. All data is packed first, so that bad data shows before a training.

    Example:
        >>> for stage in Plan.of(method.plan(data)):
        ...     print(stage.id, stage.name)
    """

    targets: tuple[Stage, ...]
    stages: list[Stage]
    until: Until | None = None
    """The kind of stage after which the plan was cut short; None for the whole plan."""

    @classmethod
    def of(cls, targets: Iterable[Stage]) -> Plan:
        """Return the plan that makes `targets`."""
        fixed = tuple(targets)
        return cls(fixed, sorted(walk(fixed), key=lambda stage: stage.kind != "ingest"))

    def cut(self, kind: Until | None) -> Plan:
        """Return the plan cut short by `until`, or the whole plan if `kind` is None. Raise ValueError if it has no such stage."""
        return replace(Plan.of(until(self.targets, kind)), until=kind) if kind else self

    def missing(self, is_done: Callable[[Stage], bool]) -> list[Stage]:
        """Return the stages that are not done, in order. Features that no other of these stages reads are left out."""
        left = [stage for stage in self.stages if not is_done(stage)]
        read = {source.id for stage in left for source in stage.features}
        return [stage for stage in left if stage.kind != "features" or stage.id in read]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)
