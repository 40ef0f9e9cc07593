"""The same job gives the same bytes whatever the workers, the order or the failures. On a real local Ray."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.deaf import DEAF
from tests.event_files import points
from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.graph import Plan, until
from wsss_ray.engine.records import StageError
from wsss_ray.reporting.progress import Display
from wsss_ray.reporting.report.logs import log_groups
from wsss_ray.reporting.status import run_status
from wsss_ray.runners.execute import execute, pending
from wsss_ray.storage.shards import list_shards, read_all, shard_path
from wsss_ray.storage.store import RunStore

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


def quiet():
    return Display(Console(file=open(os.devnull, "w")))


def shards_of(store, plan):
    return {
        (stage.name, shard): store.read(shard_path(store, stage, shard))
        for stage in plan
        if stage.kind != "train"
        for shard in list_shards(store, stage)
    }


def models_of(store, plan):
    return {stage.name: store.read(store.stage_path(stage, "model.safetensors")) for stage in plan if stage.kind == "train"}


def losses(store, stage):
    return [json.loads(line)["loss"] for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]


def quality(store, stage):
    lines = map(json.loads, store.read(store.stage_path(stage, "metrics.jsonl")).splitlines())
    return {line["step"]: line["val_miou"] for line in lines if "val_miou" in line}


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """The job made in this process, one shard after another: what Ray has to reproduce."""
    store = RunStore(str(tmp_path_factory.mktemp("by_hand")))
    plan = job_of(tiny_job()).plan()
    run_plan(store, plan)
    return store, plan


def test_ray_makes_the_same_bytes_as_a_plain_loop(ray_session, by_hand, tmp_path):
    expected, plan = by_hand
    run = {"image_workers": 3, "cpus_per_worker": 1, "checkpoint_every": 4, "log_every": 1, "validate_every": 2}
    job = job_of(tiny_job(run=run))
    store = RunStore(str(tmp_path))
    report = execute(job, plan, store, quiet())
    assert pending(plan, store) == []
    assert b"<html" in store.read(report)[:200].lower()
    assert models_of(store, plan) == models_of(expected, plan)
    assert shards_of(store, plan) == shards_of(expected, plan)
    record = store.record(stage_named(plan, "miou"))
    assert record["counts"] == {"images": 8, "errors": 0, "shards": 1}
    assert 0 <= record["metrics"]["miou"] <= 1
    curve = quality(store, stage_named(plan, "retrain"))
    assert list(curve) == [2, 4, 6], "and not a byte of the training is another"
    assert quality(store, stage_named(plan, "segmenter")) == {}
    logged = {group.stage: group.total for group in log_groups(store, plan, "tiny")}
    assert all(logged.get(stage.name) for stage in plan), "each stage has logs in the report"
    folder = store.run_path("tiny", "tensorboard")
    assert set(store.names(folder)) == {stage.name for stage in plan}
    (name,) = store.names(f"{folder}/retrain")
    drawn = points(store.read(f"{folder}/retrain/{name}"))
    assert drawn["val_miou"] == [(step, pytest.approx(value)) for step, value in curve.items()]


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
    errors = read_all(store, stage, "errors", folder="errors").to_pylist()
    assert [row["image_id"] for row in errors] == ["weak/0003", "weak/0011"]
    strict = job_of(job | {"run": {"max_bad_fraction": 0.05}})
    store = RunStore(str(tmp_path / "strict"))
    with pytest.raises(StageError, match=r"images-weak: 2 of 24 images failed, .*max_bad_fraction"):
        execute(strict, plan, store, quiet())
    assert store.record(stage) is None
    assert list_shards(store, stage) == [2], "shards with failures are made again"


@pytest.mark.parametrize(
    ("part", "changes", "stage", "message"),
    [
        ("classifier", {"optimizer": {"kind": "adam", "lr": 1e30}}, "classifier", ": loss is not finite at step 1 .*optimizer"),
        ("classifier", {"kind": "broken_classifier"}, "classifier", ": RuntimeError: the mistake$"),
        ("classifier", {"kind": "deadly_classifier"}, "classifier", r": a worker died, process \d+ on [\d.]+: .* dmesg"),
        ("seed_rule", None, "seeds", r", shard \d, image weak/\d{4}: MemoryError: no room for a table$"),
    ],
    ids=["diverged", "crashed", "killed", "shard"],
)
def test_a_failure_names_cause_place_and_log(ray_session, tmp_path, part, changes, stage, message):
    job = tiny_job(run={"max_failures": 0})
    job["method"][part] = job["method"][part] | changes if changes else {"kind": "hungry_seeds"}
    loaded = job_of(job)
    store, plan = RunStore(str(tmp_path)), Plan.of(until(loaded.plan().targets, "seed"))
    with pytest.raises(StageError) as raised:
        execute(loaded, plan, store, quiet())
    cause, logs, *rest = str(raised.value).splitlines()
    assert re.search(f"^stage {stage}{message}", cause)
    assert not rest
    folder, log, kept = re.fullmatch(r"logs: (.*); worker log: [\d.]+:(.*); (.*)", logs).groups()
    assert kept == "what was done is kept"
    (file,) = Path(log).parent.glob(Path(log).name)
    assert any(one.name.startswith("worker-") for one in Path(folder).iterdir())
    if file.stat().st_size:
        assert (Path(folder) / file.name).is_file(), "of this machine it lies with the run"
    assert store.record(plan.stages[0]) is not None, "what was done is kept"
    assert store.names(store.path("ray-train")) == []
    found = run_status(store, "tiny")
    assert (found.state, found.now.name, found.now.error) == ("failed", stage, cause)
    assert f"logs: {found.now.logs}; {kept}" == logs
    assert [one.name for one in found.stages if one.state == "failed"] == [stage], "and no stage behind it"


def test_too_many_workers_are_refused_before_they_are_waited_for(ray_session, by_hand, tmp_path):
    job = job_of(tiny_job(run={"workers": 3, "cpus_per_worker": 2}))
    plan = Plan.of([stage_named(job.plan(), "classifier")])
    with pytest.raises(StageError, match=r"run\.workers = 3 needs 6 CPUs, but the cluster has .*\. Lower run\.workers\."):
        execute(job, plan, RunStore(str(tmp_path)), quiet())


def submit_command(tmp_path, **run):
    """The command line of a submit of the tiny job, and the options to run it with."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(tiny_job(run={"cpus_per_worker": 1, "checkpoint_every": 2, "log_every": 1, **run})))
    code = "import tests.shapes; from wsss_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "submit", str(path), "--store", str(tmp_path / "runs")]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    return command, {"cwd": ROOT, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


@pytest.mark.slow
def test_a_cluster_of_three_nodes_makes_the_same_bytes(by_hand, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    expected, plan = by_hand
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        command, options = submit_command(tmp_path, image_workers=2)
        options["env"]["RAY_ADDRESS"] = cluster.address
        done = subprocess.run(command, timeout=400, check=False, **options)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stdout
    store = RunStore(str(tmp_path / "runs"))
    assert models_of(store, plan) == models_of(expected, plan)
    assert shards_of(store, plan) == shards_of(expected, plan)


def begin(tmp_path, victim, plan, **run):
    """A submit in its own process, returned when the stage `victim` has written its first file."""
    command, options = submit_command(tmp_path, **run)
    process = subprocess.Popen([*DEAF, *command], start_new_session=True, **options)
    store = RunStore(str(tmp_path / "runs"))
    stage = stage_named(plan, victim)
    deadline = time.monotonic() + 300
    while not store.names(store.stage_path(stage)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, store, lambda: subprocess.run(command, timeout=400, check=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["images-weak", "classifier", "maps", "segmenter", "relabel", "retrain", "miou"])
def test_a_killed_submit_resumes_to_the_same_bytes(by_hand, tmp_path, victim):
    expected, plan = by_hand
    first, store, again = begin(tmp_path, victim, plan)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    done = again()
    assert done.returncode == 0, done.stdout
    assert models_of(store, plan) == models_of(expected, plan)
    assert shards_of(store, plan) == shards_of(expected, plan)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["classifier", "maps"])
def test_ctrl_c_ends_with_one_line_and_what_was_done_is_kept(by_hand, tmp_path, victim):
    _, plan = by_hand
    process, store, again = begin(tmp_path, victim, plan)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "error: interrupted; what was done is kept, submit again to go on"
    assert "Traceback" not in said
    assert store.record(plan.stages[0]) is not None
    assert again().returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["alone", "with its child"])
def test_an_interrupted_submit_to_a_cluster_passes_it_on_to_the_child_that_drives_it(tmp_path, monkeypatch, send):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process, _, _ = begin(tmp_path, "images-weak", job_of(tiny_job()).plan())
        send(process.pid, signal.SIGINT)
        said = process.communicate(timeout=100)[0]
    finally:
        cluster.shutdown()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "error: interrupted; what was done is kept, submit again to go on"
    assert "Traceback" not in said
