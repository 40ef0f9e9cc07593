"""Plan population based training as stages: each generation of each member continues from another train stage's checkpoint.

A member is a first learning rate and the factors applied to it since. Its training of k generations is the job's learner with
that rate, the schedule `piecewise` and k parts of the steps. Starting from the checkpoint of k - 1 generations (role `resume`)
saves time and changes no byte, so the best member's job, submitted alone, ends in the same weights. The job's seed decides which
member copies which, so a population that is submitted again finds its generations done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsss_ray.config.job import LoadedJob, TrialJob
from wsss_ray.config.sweep import Pbt, Trial, drawn_trials
from wsss_ray.core.contracts import Learner
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Data, Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.data.source import DataSplit


@dataclass(frozen=True)
class Member:
    """A lineage: the first learning rate, and the factor on it in each generation so far."""

    rate: float
    factors: tuple[float, ...] = (1.0,)


def first_generation(sweep_job: LoadedJob) -> list[Member]:
    """Draw the members of the first generation."""
    (field,) = sweep_job.sweep.space
    return [Member(rate=trial.set[field]) for trial in drawn_trials(sweep_job.sweep, sweep_job.job.run.seed)]


def next_generation(members: Sequence[Member], scores: Sequence[float], rule: Pbt, seed: int) -> list[Member]:
    """Select by truncation: the worst members copy the best with a changed rate, and all others keep theirs."""
    order = sorted(range(len(members)), key=lambda place: (-scores[place], place))
    some = max(1, int(len(members) * rule.quantile))
    best, worst = order[:some], set(order[-some:]) if len(members) > 1 else set()
    following = []
    for place, member in enumerate(members):
        factor = 1.0
        if place in worst:
            key = random_key("pbt", seed, len(member.factors), place)
            member, factor = members[best[key % some]], rule.factors[key // some % len(rule.factors)]
        following.append(Member(member.rate, (*member.factors, float(f"{member.factors[-1] * factor:.6g}"))))
    return following


def trial_of_member(sweep_job: LoadedJob, member: Member, place: int, data: Data) -> tuple[TrialJob, Plan]:
    """Return a member's training so far: as a job of its own, and as a plan that continues its last generation.

    Raises:
        ValueError: if the searched field belongs to no learner of the plan, or its training has fewer steps than generations.
    """
    (field,) = sweep_job.sweep.space
    rule = sweep_job.sweep.scheduler
    assert isinstance(rule, Pbt)
    part = field.removesuffix(".optimizer.lr")
    every = _steps(sweep_job, part, data) // rule.generations
    if not every:
        raise ValueError(f"{part}: has fewer steps than the scheduler has generations. Set sweep.scheduler.generations lower.")
    parent: Stage | None = None
    for last in range(1, len(member.factors) + 1):
        schedule = {"kind": "piecewise", "every_steps": every, "factors": list(member.factors[:last])}
        point = {field: member.rate, f"{part}.schedule": schedule, f"{part}.steps": last * every, f"{part}.epochs": None}
        one = sweep_job.variant(Trial(name=f"member {place}, generation {last}", set=point), sweep_job.job.run.seed)
        plan = one.job.plan(data)
        stage = _stage_of(plan, _part(one.job.method, part), part)
        before = (("resume", parent),) if parent is not None else ()
        resumed = replace(stage, name=f"{stage.name}.{last}", inputs=(*stage.inputs, *before))
        plan, parent = Plan.of(_put(plan.targets, stage, resumed)), resumed
    return one, plan


def _steps(sweep_job: LoadedJob, part: str, data: Data) -> int:
    """Return the training steps of the learner in the job as written."""
    plan = sweep_job.job.plan(data)
    stage = _stage_of(plan, _part(sweep_job.job.method, part), part)
    split = stage.input("data").component
    assert isinstance(split, DataSplit)
    assert isinstance(stage.component, Learner)
    return stage.component.total_steps(split.num_images)


def _part(method: Any, path: str) -> Any:
    found = method
    for name in path.split(".")[1:]:
        found = found[int(name)] if name.isdigit() else getattr(found, name, None)
    return found


def _stage_of(plan: Plan, component: Any, path: str) -> Stage:
    stages = [stage for stage in plan if stage.kind == "train" and stage.component == component]
    if not stages:
        raise ValueError(f"sweep.space: {path} is trained in no stage of this plan. Name a part that is.")
    return stages[-1]


def _put(targets: Sequence[Stage], old: Stage, new: Stage) -> tuple[Stage, ...]:
    """Replace one stage in a graph, and return the graph's targets."""
    done: dict[str, Stage] = {old.id: new}

    def visit(stage: Stage) -> Stage:
        if stage.id not in done:
            done[stage.id] = replace(stage, inputs=tuple((role, visit(source)) for role, source in stage.inputs))
        return done[stage.id]

    return tuple(visit(target) for target in targets)
