"""Every method on the sprites through Ray with two training workers, to a scored model; and RRM's online labels across a kill."""

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
from tests.tiny import skip_without_extras, tiny_job_of, tiny_method
from wsss_ray.methods import methods
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.execute import execute, pending
from wsss_ray.storage.store import RunStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def quiet():
    return Display(Console(file=open(os.devnull, "w")))


@pytest.mark.parametrize("name", sorted(methods()))
def test_a_method_runs_on_the_sprites_to_a_scored_model(ray_session, tmp_path, name):
    skip_without_extras(name)
    job = job_of(
        {
            "name": name,
            "method": tiny_method(name, size=64, steps=4),
            "data": {"kind": "sprites", "train": 40, "val": 10, "shard_size": 16},
            "run": {"workers": 2, "cpus_per_worker": 1, "label_workers": 1},
        }
    )
    plan, store = job.plan(), RunStore(str(tmp_path))
    execute(job, plan, store, quiet())
    assert pending(plan, store) == []
    record = store.record(plan.targets[-1])
    assert record["kind"] == "evaluate"
    assert record["counts"]["errors"] == 0
    assert 0 <= record["metrics"]["miou"] <= 1


def test_a_sweep_goes_on_past_a_trial_that_fails_and_prints_its_table(tmp_path):
    job = tiny_job_of("cam", run={"cpus_per_worker": 1, "max_failures": 0})
    broken = {"kind": "broken_classifier", "trunk": job["method"]["classifier"]["trunk"], "steps": 2, "epochs": None}
    localizer = {"kind": "stochastic_grad_cam", "size": None, "selections": 2}
    trials = [
        {"name": "as it is", "published": 61.2},
        {"name": "broken", "set": {"method.classifier": broken, "method.localizer": localizer}},
        {"name": "broken too", "set": {"method.classifier": broken, "method.localizer": localizer | {"selections": 3}}},
        {"name": "other theta", "set": {"method.seed_rule.theta": 0.6}},
    ]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job | {"sweep": {"paper": "Ours, Table 0", "trials": trials}}))
    code = "import tests.shapes; from wsss_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "submit", str(file), "--store", str(tmp_path / "runs")]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, timeout=500, capture_output=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    table = {line.split("  ")[0]: line.split() for line in done.stdout.split("Ours, Table 0")[1].splitlines() if line}
    assert table["as it is"][-1] == "61.2"
    assert float(table["as it is"][-2]) > 0
    assert float(table["other theta"][-2]) > 0
    assert table["broken"][-2:] == ["-", "-"]
    assert "trial 'broken', seed 0: stage classifier: RuntimeError: the mistake" in done.stderr
    assert "trial 'broken too', seed 0: the stage already failed in this attempt: stage classifier" in done.stderr
    assert (tmp_path / "runs" / "runs" / "tiny-cam.other-theta.0" / "report.html").exists()


def terms(store, stage):
    text = store.read(store.stage_path(stage, "metrics.jsonl")).decode()
    return [json.loads(line)["terms"] for line in text.splitlines()]


def test_two_workers_make_the_online_labels_of_one(ray_session, tmp_path):
    spec = tiny_job_of("rrm", run={"workers": 2, "cpus_per_worker": 1, "label_workers": 1, "log_every": 1, "checkpoint_every": 3})
    spec["method"]["segmenter"]["steps"] = 10
    job = job_of(spec)
    plan = job.plan()
    curves = []
    for name in ("one", "two"):
        store = RunStore(str(tmp_path / name))
        if name == "one":
            run_plan(store, plan)
        else:
            execute(job, plan, store, quiet())
        curves.append(terms(store, stage_named(plan, "segmenter")))
    for ours, theirs in zip(*curves, strict=True):
        for term in ours:
            np.testing.assert_allclose(theirs[term], ours[term], rtol=1e-4, atol=1e-7)


def test_a_killed_online_training_resumes_to_the_same_bytes(tmp_path):
    spec = tiny_job_of("rrm", run={"cpus_per_worker": 1, "label_workers": 1, "checkpoint_every": 2, "log_every": 1})
    spec["method"]["segmenter"]["steps"] = 60
    plan = job_of(spec).plan()
    expected = RunStore(str(tmp_path / "expected"))
    run_plan(expected, plan, last="segmenter")
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(spec))
    code = "import tests.shapes; from wsss_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "submit", str(file), "--store", str(tmp_path / "runs")]
    options = {"cwd": ROOT, "env": os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}, "text": True}
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    store, stage = RunStore(str(tmp_path / "runs")), stage_named(plan, "segmenter")
    deadline = time.monotonic() + 300
    while not store.names(store.stage_path(stage, "checkpoints")):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert store.record(stage) is None, "it was killed in the middle"
    done = subprocess.run(command, timeout=400, check=False, capture_output=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    model = "model.safetensors"
    assert store.read(store.stage_path(stage, model)) == expected.read(expected.stage_path(stage, model))
    assert terms(store, stage) == terms(expected, stage)
