"""Search spaces: draws that are a function of the seed, names, and mistakes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.tiny import tiny_job_of, tiny_method
from wsss_ray.config.document import JobError
from wsss_ray.config.job import read_job
from wsss_ray.config.sweep import Domain, Sweep, trials_of

THETA = "method.seed_rule.theta"
LR = "method.segmenter.optimizer.lr"


def sweep(**fields):
    return Sweep.model_validate(fields)


def points(found, seed=0):
    return [trial.set for trial in trials_of(found, seed)]


def test_a_grid_is_every_combination():
    found = points(sweep(space={"a.x": {"grid": [1, 2]}, "a.y": {"grid": ["p", "q", "r"]}}))
    assert found == [{"a.x": x, "a.y": y} for x in (1, 2) for y in "pqr"]


def test_draws_depend_on_seed_place_and_field_alone():
    few = sweep(space={THETA: {"uniform": [0, 1]}}, samples=3)
    more = sweep(space={THETA: {"uniform": [0, 1]}, LR: {"loguniform": [1e-5, 1e-1]}}, samples=8)
    assert points(few) == points(few)
    assert points(few) != points(few, seed=1)
    assert [point[THETA] for point in points(more)][:3] == [point[THETA] for point in points(few)]


def test_draws_are_spread_as_asked():
    space = {"u": {"uniform": [2, 4]}, "l": {"loguniform": [1e-4, 1]}, "c": {"choice": list("abcd")}}
    found = points(sweep(space=space, samples=4000))
    uniform, log = (np.array([point[name] for point in found]) for name in ("u", "l"))
    assert (uniform.min() >= 2) & (uniform.max() <= 4)
    assert abs(uniform.mean() - 3) < 0.03
    assert abs(np.log10(log).mean() + 2) < 0.06
    assert abs(np.percentile(np.log10(log), 25) + 3) < 0.1
    counts = [sum(point["c"] == name for point in found) for name in "abcd"]
    assert min(counts) > 900


def test_a_point_that_is_drawn_twice_is_one_trial():
    found = trials_of(sweep(space={"m.c": {"choice": [1, 2]}, "m.g": {"grid": ["x", "y"]}}, samples=50), 0)
    assert len(found) == 4
    assert {trial.name for trial in found} == {f"c {c}, g {g}" for c in (1, 2) for g in "xy"}


def test_names_tell_trials_apart():
    space = {"method.a.theta": {"grid": [0.123456789]}, "method.b.theta": {"grid": [1]}, "method.name": {"grid": ["cam"]}}
    assert trials_of(sweep(space=space), 0)[0].name == "a.theta 0.123457, b.theta 1, cam"
    blocks = [{"name": "cam", "x": 1}, {"name": "cam", "x": 2}, {"kind": "mdc"}]
    names = [trial.name for trial in trials_of(sweep(space={"method": {"grid": blocks}}), 0)]
    assert len(set(names)) == 3
    assert names[2] == "mdc"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"give either trials \(at least one\) or a space"),
        ({"trials": [{"name": "a"}], "space": {"x": {"grid": [1]}}}, "give either trials"),
        ({"space": {"x": {}}}, "give one of grid, choice, uniform, loguniform"),
        ({"space": {"x": {"grid": [1], "choice": [2]}}}, "give one of grid"),
        ({"space": {"x": {"uniform": [2, 1]}}}, r"\[2, 1\]: the first number must be smaller"),
        ({"space": {"x": {"loguniform": [0, 1]}}}, "smaller and positive"),
        ({"space": {"run.seed": {"grid": [1]}}}, "run.seed cannot be set by a trial"),
        ({"space": {"x": {"grid": []}}}, "at least 1"),
        ({"space": {"x": {"grid": [1]}}, "search": "optuna"}, "optuna needs a space without grids, and no sweep.seeds. Change"),
        ({"space": {"x": {"grid": [1]}}, "scheduler": {"kind": "asha", "grace": 2}}, "less than 1"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(ValidationError, match=message):
        sweep(**fields)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{trials: [3]}", r"trials.0: must be a block of fields \(name, set, published\)"),
        ("{space: {run.workers: [1]}}", r"space.run.workers: must be a block of fields \(grid, choice, uniform, loguniform\)"),
        ("{space: {run.workers: {grit: [1]}}}", "space.run.workers.grit: there is no such field; allowed: grid, choice, .*"),
        ("{scheduler: {kind: pbt, gens: 3}}", "scheduler.pbt.gens: there is no such field; allowed: kind, generations, .*"),
        ("{scheduler: {kind: asha, gens: 3}}", "scheduler.asha.gens: there is no such field; allowed: kind, stage, .*"),
        ("{scheduler: {kind: bohb}}", "scheduler: kind is 'bohb', allowed: asha, pbt"),
        ("{scheduler: {grace: 0.5}}", "scheduler: kind is missing"),
    ],
)
def test_mistakes_in_a_job_name_the_field_and_what_is_allowed(tmp_path, block, message):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(tiny_job_of("cam") | {"sweep": yaml.safe_load(block)}))
    with pytest.raises(JobError) as caught:
        read_job(path)
    assert any(re.fullmatch(rf"{path}:\d+: sweep.{message}", line) for line in str(caught.value).splitlines()), caught.value


def test_the_ends_of_a_draw():
    assert Domain(uniform=(0.0, 1.0)).draw(0) == 0
    assert Domain(uniform=(0.0, 1.0)).draw(2**63 - 1) == 1
    assert Domain(choice=("a", "b", "c")).draw(2**63 - 1) in "abc"
    assert Domain(grid=(1,)).draw(5) is None


def test_a_search_across_methods(tmp_path):
    blocks = [tiny_method(name) for name in ("cam", "ficklenet")]
    job = tiny_job_of("dsrg") | {"sweep": {"space": {"method": {"grid": blocks}, THETA: {"grid": [0.3, 0.6]}}}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    found = read_job(tmp_path / "job.yaml").trials()
    assert [(one.job.method.kind(), one.job.method.seed_rule.theta) for one in found] == [
        ("cam", 0.3), ("cam", 0.6), ("ficklenet", 0.3), ("ficklenet", 0.6)]  # fmt: skip
    plans = [one.job.plan() for one in found]
    shared = {stage.name for stage in plans[0]} & {stage.name for stage in plans[1] if stage.id in {s.id for s in plans[0]}}
    assert {"images-weak", "classifier", "maps"} <= shared


def test_a_point_that_is_no_job_names_the_trial(tmp_path):
    job = tiny_job_of("cam") | {"sweep": {"space": {"method.seed_rule.tetha": {"grid": [0.3]}}}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    with pytest.raises(JobError, match=r"trial 'tetha 0.3': method.seed_rule.tetha: there is no such field; allowed: .*theta"):
        read_job(tmp_path / "job.yaml").trials()
