"""Sweeps on Ray Tune: shared stages once, kills, schedulers, searches that learn."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.event_files import points
from tests.local import run_plan
from tests.tiny import tiny_job_of, tiny_method
from tests.trial_rows import rows_of
from wsss_ray.config.job import load_job, read_job
from wsss_ray.core.graph import Plan, until
from wsss_ray.storage.shards import list_shards, shard_path
from wsss_ray.storage.store import RunStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
THETA, LR = "method.seed_rule.theta", "method.segmenter.optimizer.lr"


class Submit:
    """A sweep as a file, a store, and the command that submits it."""

    def __init__(self, folder: Path, job: dict, *options: str) -> None:
        self.file, self.store = folder / "job.yaml", RunStore(str(folder / "runs"))
        self.file.write_text(yaml.safe_dump(job))
        code = "import tests.shapes; from wsss_ray.cli import main; main()"
        self.command = [sys.executable, "-c", code, "submit", str(self.file), "--store", self.store.uri, *options]
        self.options = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}

    def __call__(self, *, code: int = 0) -> str:
        done = subprocess.run(
            self.command, timeout=500, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **self.options
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def rows(self, name: str):
        return rows_of(pq.read_table(self.store.run_path(name, "trials.parquet")))


def made(said: str) -> Counter:
    """How often each stage was made, by what the trials say when they have made one."""
    return Counter(re.findall(r"((?:ingest|train|localize|seed|evaluate)-[0-9a-f]{16})  \d", said))


def job_with(sweep: dict, method: str = "cam", **changes) -> dict:
    job = tiny_job_of(method, run={"cpus_per_worker": 1, "checkpoint_every": 20, "log_every": 2})
    for name, value in changes.items():
        job["method"]["segmenter"][name] = value
    return job | {"name": "many", "sweep": sweep}


def test_a_threshold_sweep_makes_every_distinct_stage_once_also_when_it_is_killed(tmp_path):
    grid = [round(0.05 * k, 2) for k in range(4, 16)]
    sweep = {"metrics": ["seed_quality"], "space": {THETA: {"grid": grid}}, "max_concurrent": 2}
    submit = Submit(tmp_path, job_with(sweep), "--until", "seed")
    first = subprocess.Popen(
        submit.command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **submit.options
    )
    deadline = time.monotonic() + 300
    while len(submit.store.names(submit.store.run_path("many", "trials"))) < 4:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    said = first.communicate()[0]
    again = submit()
    trials = read_job(submit.file).trials()
    plans = [Plan.of(until(one.job.plan().targets, "seed")) for one in trials]
    distinct = {stage.id for plan in plans for stage in plan}
    assert len(distinct) == 3 + 2 * 12
    assert set(submit.store.names(submit.store.path("stages"))) == distinct
    both = made(said) + made(again)
    assert set(made(again)) < distinct, "what the first had done is not done again"
    assert all(count == 1 for count in both.values()), both
    rows = submit.rows("many")
    assert [row.state for row in rows] == ["done"] * 12
    assert [row.parameters for row in rows] == [{THETA: theta} for theta in grid]
    expected = RunStore(str(tmp_path / "expected"))
    run_plan(expected, plans[7])
    for stage in plans[7]:
        for shard in list_shards(expected, stage) if stage.kind != "train" else ():
            assert submit.store.read(shard_path(submit.store, stage, shard)) == expected.read(shard_path(expected, stage, shard))
    for one, plan in zip(trials, plans, strict=True):  # of a trial that shares all its stages and of one that was killed too
        folder = submit.store.run_path(one.job.name, "tensorboard")
        assert set(submit.store.names(folder)) == {stage.name for stage in plan}
        (file,) = submit.store.names(f"{folder}/seed_quality")
        quality = submit.store.record(plan.stages[-1])["metrics"]["miou"]
        assert points(submit.store.read(f"{folder}/seed_quality/{file}"))["miou"] == [(3, pytest.approx(quality))]
    third = submit()
    assert made(third) == Counter()
    best = load_job(submit.store.run_path("many", "best.yaml"))
    assert best.method.seed_rule.theta == max(rows, key=lambda row: row.metrics["seed_quality"]).parameters[THETA]
    assert submit.store.names(submit.store.path("claims")) == []
    assert submit.store.names(submit.store.path("ray-tune", "many")) == []


def test_a_random_sweep_over_three_methods(tmp_path):
    blocks = [tiny_method(name) for name in ("cam", "dsrg", "ficklenet")]
    space = {"method": {"choice": blocks}, THETA: {"uniform": [0.2, 0.6]}}
    submit = Submit(tmp_path, job_with({"metrics": ["seed_quality"], "space": space, "samples": 7}), "--until", "seed")
    said = submit()
    plans = [Plan.of(until(one.job.plan().targets, "seed")) for one in read_job(submit.file).trials()]
    assert set(made(said)) == {stage.id for plan in plans for stage in plan}
    assert set(made(said).values()) == {1}
    rows = submit.rows("many")
    assert {row.method for row in rows} == {"cam", "dsrg", "ficklenet"}
    assert all(row.state == "done" and 0 <= row.metrics["seed_quality"] <= 1 for row in rows)


def test_asha_ends_hopeless_trials_and_the_others_find_room(tmp_path):
    sweep = {
        "space": {LR: {"grid": [5e-3, 2e-3, 1e-7, 1e-8]}},
        "max_concurrent": 2,
        "scheduler": {"kind": "asha", "grace": 0.1, "reduction": 2},
    }
    submit = Submit(tmp_path, job_with(sweep, steps=300))
    began = time.monotonic()
    submit()
    took = time.monotonic() - began
    states = {row.parameters[LR]: row.state for row in submit.rows("many")}
    assert states[1e-8] == "stopped"
    assert "done" in states.values()
    assert "failed" not in states.values()
    assert made(submit()) == Counter(), "what was stopped stays so"
    assert took < 400, "no training waits for a place that a stopped one has left"


def test_a_search_that_learns_goes_on_where_it_was(tmp_path):
    sweep = {"metrics": ["seed_quality"], "space": {THETA: {"uniform": [0.1, 0.9]}}, "samples": 2, "search": "optuna"}
    pytest.importorskip("optuna")
    submit = Submit(tmp_path, job_with(sweep), "--until", "seed")
    submit()
    first = submit.rows("many")
    assert len(first) == 2
    assert made(submit()) == Counter()
    submit.command += ["--set", "sweep.samples=4"]
    submit()
    rows = submit.rows("many")
    assert rows[:2] == first
    assert len({row.parameters[THETA] for row in rows}) == 4


def test_a_population_breeds_a_schedule(tmp_path):
    sweep = {
        "space": {LR: {"loguniform": [1e-6, 1e-2]}},
        "samples": 2,
        "scheduler": {"kind": "pbt", "generations": 2, "quantile": 0.5},
    }
    submit = Submit(tmp_path, job_with(sweep, steps=20))
    said = submit()
    rows = submit.rows("many")
    assert [row.name for row in rows] == [f"member {m}, generation {g}" for g in (1, 2) for m in (0, 1)]
    assert rows[2].parameters[LR] == rows[3].parameters[LR], "the worse one took over"
    assert set(made(said).values()) == {1}
    best = load_job(submit.store.run_path("many", "best.yaml"))
    assert best.method.segmenter.schedule.kind() == "piecewise"
    assert made(submit()) == Counter()
