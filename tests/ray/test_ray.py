"""The same job gives the same bytes whatever the workers, the order or the failures. On a real local Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.plan import Plan
from wsss_ray.progress import Display
from wsss_ray.records import StageError
from wsss_ray.runners.execute import execute, pending
from wsss_ray.store import RunStore

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


def quiet():
    return Display(Console(file=open(os.devnull, "w")))


def shards_of(store, plan):
    return {
        (stage.name, shard): store.read(store.shard_path(stage, shard))
        for stage in plan
        if stage.kind != "train"
        for shard in store.shards(stage)
    }


def losses(store, stage):
    return [json.loads(line)["loss"] for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """The job made in this process, one shard after another: what Ray has to reproduce."""
    store = RunStore(str(tmp_path_factory.mktemp("by_hand")))
    plan = job_of(tiny_job()).plan()
    run_plan(store, plan)
    return store, plan


def test_ray_makes_the_same_bytes_as_a_plain_loop(ray_session, by_hand, tmp_path):
    expected, plan = by_hand
    job = job_of(tiny_job(run={"image_workers": 3, "cpus_per_worker": 1, "checkpoint_every": 4, "log_every": 1}))
    store = RunStore(str(tmp_path))
    report = execute(job, plan, store, quiet())
    assert pending(plan, store) == []
    assert b"<html" in store.read(report)[:200].lower()
    for stage in plan:
        if stage.kind == "train":
            model = "model.safetensors"
            ours, theirs = (s.read(s.stage_path(stage, model)) for s in (store, expected))
            assert ours == theirs, stage.name
    assert shards_of(store, plan) == shards_of(expected, plan)
    record = store.record(stage_named(plan, "miou"))
    assert record["counts"] == {"images": 8, "errors": 0, "shards": 1}
    assert 0 <= record["metrics"]["miou"] <= 1


def test_two_training_workers_give_the_losses_of_one(ray_session, by_hand, tmp_path):
    job = tiny_job(run={"workers": 2, "cpus_per_worker": 1, "log_every": 1, "checkpoint_every": 100})
    job["method"]["classifier"]["steps"] = 20
    loaded = job_of(job)
    plan = loaded.plan()
    target = stage_named(plan, "classifier")
    curves = []
    for name in ("one", "two"):
        store = RunStore(str(tmp_path / name))
        if name == "one":
            run_plan(store, plan, last="classifier")
        else:
            execute(loaded, Plan.of([target]), store, quiet())
        curves.append(losses(store, target))
    assert len(curves[0]) == 20
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


def test_bad_images_are_recorded_and_too_many_stop_the_run(ray_session, tmp_path):
    job = tiny_job(data={"kind": "shapes", "broken": [3, 11]}, run={"max_bad_fraction": 0.1})
    loaded = job_of(job)
    plan = Plan.of([stage_named(loaded.plan(), "images-weak")])
    store = RunStore(str(tmp_path / "few"))
    execute(loaded, plan, store, quiet())
    stage = plan.stages[0]
    assert store.record(stage)["counts"] == {"images": 22, "errors": 2, "shards": 3}
    errors = store.read_shards(stage, "errors", folder="errors").to_pylist()
    assert [row["image_id"] for row in errors] == ["weak/0003", "weak/0011"]
    strict = job_of(job | {"run": {"max_bad_fraction": 0.05}})
    store = RunStore(str(tmp_path / "strict"))
    with pytest.raises(StageError, match=r"images-weak: 2 of 24 images failed, .*max_bad_fraction"):
        execute(strict, plan, store, quiet())
    assert store.record(stage) is None
    assert store.shards(stage) == [2], "shards with failures are made again"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["images-weak", "classifier", "maps", "segmenter", "relabel", "retrain", "miou"])
def test_a_killed_submit_resumes_to_the_same_bytes(by_hand, tmp_path, victim):
    expected, plan = by_hand
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(tiny_job(run={"cpus_per_worker": 1, "checkpoint_every": 2, "log_every": 1})))
    code = "import tests.shapes; from wsss_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "submit", str(path), "--store", str(tmp_path / "runs")]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    store = RunStore(str(tmp_path / "runs"))
    stage = stage_named(plan, victim)
    first = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not store.names(store.stage_path(stage)):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert shards_of(store, plan) == shards_of(expected, plan)
