"""Population based training: who takes over from whom, and that generations are one training, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.local import run_plan, stage_named
from tests.tiny import tiny_job_of
from wsss_ray.config.job import read_job
from wsss_ray.config.population import Member, first_generation, next_generation, trial_of_member
from wsss_ray.config.sweep import Pbt, Sweep
from wsss_ray.core.graph import Plan
from wsss_ray.core.optim import Piecewise
from wsss_ray.data.stages import stages_of
from wsss_ray.storage.store import RunStore

LR = "method.segmenter.optimizer.lr"
PBT = Pbt(kind="pbt", generations=3, quantile=0.25, factors=(0.5, 2.0))


def sweep_of(tmp_path: Path, **sweep):
    job = tiny_job_of("cam") | {"sweep": {"space": {LR: {"loguniform": [1e-3, 1e-2]}}, "samples": 4, **sweep}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return read_job(tmp_path / "job.yaml")


def test_the_worst_take_over_from_the_best():
    members = [Member(0.1 * (1 + k)) for k in range(8)]
    following = next_generation(members, [0.1, 0.9, 0.5, 0.4, 0.3, 0.8, 0.2, 0.05], PBT, seed=3)
    for place in (1, 2, 3, 4, 5, 6):
        assert following[place] == Member(members[place].rate, (1.0, 1.0))
    for place in (0, 7):
        assert following[place].rate in (members[1].rate, members[5].rate)
        assert following[place].factors in ((1.0, 0.5), (1.0, 2.0))
    assert following == next_generation(members, [0.1, 0.9, 0.5, 0.4, 0.3, 0.8, 0.2, 0.05], PBT, seed=3)
    drawn = {next_generation(members, [1, 1, 0, 0, 0, 0, 0, 0], PBT, seed=seed)[7] for seed in range(40)}
    assert len(drawn) == 4, "either of the best, with either factor"


def test_factors_multiply_along_a_lineage():
    members = [Member(0.1, (1.0, 2.0)), Member(0.2, (1.0, 1.0))]
    following = next_generation(members, [0.9, 0.1], PBT, seed=0)
    assert following[0].factors == (1.0, 2.0, 2.0)
    assert following[1].rate == 0.1
    assert following[1].factors in ((1.0, 2.0, 1.0), (1.0, 2.0, 4.0))


def test_a_schedule_of_factors():
    schedule = Piecewise(every_steps=3, factors=(1.0, 0.5, 4.0))
    assert [schedule.factor(step, 99, 1.0) for step in (0, 2, 3, 5, 6, 8, 9, 50)] == [1, 1, 0.5, 0.5, 4, 4, 4, 4]


def test_generations_share_their_past_and_end_in_the_bytes_of_one_training(tmp_path):
    found = sweep_of(tmp_path, scheduler=PBT.model_dump())
    data = stages_of(found.job.data)
    member = Member(first_generation(found)[0].rate, (1.0, 0.5, 2.0))
    plans = [trial_of_member(found, Member(member.rate, member.factors[:k]), 0, data)[1] for k in (1, 2, 3)]
    trained = [stage_named(plan, f"segmenter.{k}") for k, plan in enumerate(plans, start=1)]
    assert [dict(stage.inputs).get("resume") for stage in trained] == [None, *trained[:2]]
    assert [stage.component.steps for stage in trained] == [2, 4, 6]
    store, alone = RunStore(str(tmp_path / "a")), RunStore(str(tmp_path / "b"))
    for plan in plans:
        run_plan(store, plan)
    one, _ = trial_of_member(found, member, 0, data)
    straight = one.job.plan(data)
    run_plan(alone, Plan.of(straight.targets))
    last = stage_named(straight, "segmenter")
    assert last.id != trained[2].id
    model = "model.safetensors"
    assert store.read(store.stage_path(trained[2], model)) == alone.read(alone.stage_path(last, model))
    assert store.read(store.stage_path(trained[1], model)) != store.read(store.stage_path(trained[2], model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "at least 2 samples"),
        ({"space": {"method.seed_rule.theta": {"uniform": [0, 1]}}}, "a space of one field"),
        ({"space": {LR: {"grid": [1]}}}, "drawn at random"),
        ({"search": "optuna"}, "and no scheduler"),
        ({"seeds": [1, 2]}, "no seeds"),
    ],
)
def test_what_a_population_needs(changes, message):
    fields = {"space": {LR: {"uniform": [0.1, 1]}}, "samples": 4, "scheduler": {"kind": "pbt"}} | changes
    with pytest.raises(ValueError, match=message):
        Sweep.model_validate(fields)


def test_mistakes_name_the_part(tmp_path):
    wrong = sweep_of(tmp_path, scheduler=PBT.model_dump() | {"generations": 9})
    with pytest.raises(ValueError, match=r"method\.segmenter: has fewer steps than the scheduler has generations\. Set"):
        trial_of_member(wrong, Member(0.1), 0, stages_of(wrong.job.data))
