"""Trying a job before its long run: what is measured, what is found, what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.deaf import DEAF
from tests.local import job_of, run_plan, stage_named
from tests.photos import call, class_folders, photo, with_masks
from tests.shapes import Shapes, tiny_job
from tests.tiny import tiny_job_of
from wsss_ray.cli import app
from wsss_ray.config.job import load_job
from wsss_ray.core.optim import Schedule
from wsss_ray.data.source import Source
from wsss_ray.preflight.dry_run import CheckError, try_job
from wsss_ray.preflight.estimate import RAY_START, JobResources, estimate, total_bytes, total_seconds
from wsss_ray.preflight.memory import at_most, ran_out
from wsss_ray.preflight.sample import AsIfWhole, FewImages
from wsss_ray.reporting.remaining import expected_of
from wsss_ray.storage.store import RunStore

HERE = {"workers": 1, "threads": 1, "gpu": False, "memory": None}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def left(scratch):
    """What lies in a folder for temporary files, but for the folder that torch itself makes there."""
    return [name for name in os.listdir(scratch) if not name.startswith("torchinductor")]


@pytest.fixture
def pets(tmp_path):
    """A job that init wrote, made tiny, and its folder."""
    root, out = with_masks(tmp_path / "my pets"), tmp_path / "job.yaml"
    result = CliRunner().invoke(app, ["init", str(root), "--out", str(out)])
    assert result.exit_code == 0, result.output
    job = yaml.safe_load(out.read_text())
    job["method"] = tiny_job()["method"]
    job["run"] |= {"store": str(tmp_path / "runs")}
    out.write_text(yaml.safe_dump(job))
    return out


def check(*args, code=0):
    return call("check", *args, code=code)


def test_init_plan_check_and_run(pets, scratch, tmp_path):
    plan = CliRunner().invoke(app, ["plan", str(pets)])
    assert plan.exit_code == 0, plan.output
    assert "images-weak: 32 images, 32 with masks; cat 16, dog 16" in plan.output
    said = check(pets)
    for stage in ("images-weak", "classifier", "maps", "seeds", "segmenter", "relabel", "retrain", "miou"):
        assert stage in said
    assert "12 steps" in said
    assert "32 images" in said
    assert "in all about" in said
    assert "The check does not predict the model's quality, and can miss rare large or broken images." in said
    assert left(scratch) == []
    kept = [path.relative_to(tmp_path / "runs").as_posix() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert kept == ["checks/my-pets.json"], "nothing else is written to the job's own store"
    expected = expected_of(RunStore(str(tmp_path / "runs")), "my-pets")
    assert set(expected) == {stage.id for stage in load_job(pets).plan()}, "submit finds the times of its stages"
    assert all(seconds > 0 for seconds in expected.values())
    job, store = load_job(pets), RunStore(str(tmp_path / "runs"))
    whole = job.plan()
    run_plan(store, whole)
    assert store.record(whole.targets[-1])["metrics"]["scored"] == 8
    again = check(pets)
    assert "0 B of disk" in again, "all is done"


@pytest.mark.parametrize("name", ["rrm", "multi_estimations", "mdc", "deeplab", "psa"])
def test_every_stage_of_a_method_is_tried(name):
    job = job_of(tiny_job_of(name, data={"kind": "shapes", "saliency": True}))
    plan = job.plan()
    measures = try_job(job, plan, images=4, **HERE)
    assert [measure.stage.name for measure in measures] == [stage.name for stage in plan]
    assert all(measure.seconds > 0 and measure.num_bytes > 0 and measure.resident > 1e7 for measure in measures)
    assert not any(measure.failed for measure in measures)
    for measure in measures:
        if measure.stage.kind == "train":
            assert measure.kept > 0
            assert 0 <= measure.waiting <= measure.seconds


def test_a_trial_changes_no_state_of_the_process():
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    job = job_of(tiny_job())
    try_job(job, job.plan(), images=2, workers=2, threads=1, gpu=False, memory=None)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("role", "component"), [(Source, FewImages), (Schedule, AsIfWhole)])
def test_a_part_that_only_code_makes_is_nothing_that_a_job_file_can_name(role, component):
    assert not component.is_abstract()
    assert component.kind() not in role.kinds()
    with pytest.raises(ValueError, match=f"kind is '{component.kind()}', allowed: "):
        role.model_validate({"kind": component.kind()})


def test_the_sample_is_spread_and_keeps_masks_and_order():
    source = FewImages.of(Shapes(train=24, saliency=True), most=4, shard_size=2)
    ids = [item.image_id for item in source.items("weak")]
    assert ids == ["weak/0000", "weak/0008", "weak/0015", "weak/0023"]
    assert [item.image_id for item in source.items("saliency")] == ids
    assert len(source.items("val")) == 4
    assert len(FewImages.of(Shapes(train=3), most=4, shard_size=2).items("weak")) == 3


def test_the_first_steps_have_the_rates_of_the_whole_training():
    job = job_of(tiny_job())
    plan = job.plan()
    (measure,) = [one for one in try_job(job, plan, images=4, **HERE) if one.stage.name == "classifier"]
    schedule, whole = measure.stage.component.schedule, stage_named(plan, "classifier").component
    assert measure.stage.component.steps == 2
    assert schedule.factor(1, 2, 1.0) == whole.schedule.factor(1, whole.total_steps(24), 24 / 8)


def test_bad_images_in_the_sample_are_a_mistake(tmp_path, scratch):
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    assert CliRunner().invoke(app, ["init", str(root), "--out", str(out)]).exit_code == 0
    job = yaml.safe_load(out.read_text()) | {"method": tiny_job()["method"]}
    out.write_text(yaml.safe_dump(job))
    whole = photo(root / "cat" / "0.png", "cat", 1).read_bytes()
    (root / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
    said = check(out, code=2)
    assert "in all about" in said, "the rest is tried all the same"
    (line,) = [line for line in said.splitlines() if line.startswith("error")]
    assert "1 of at most 6 images failed" in line
    assert "0.png: truncated or damaged PNG file" in line
    check(out, "--set", "run.max_bad_fraction=0.5")
    for name in ("cat", "dog"):
        for number in range(6):
            (root / name / f"{number}.png").write_bytes(b"x")
    assert "stage images-weak: none of 6 images can be used" in check(out, code=2)
    assert left(scratch) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.classifier.trunk.weights=nowhere.pt", "there is no file nowhere.pt"),
        ("method.classifier.optimizer.lr=1.0e+30", "loss is not finite at step 1"),
        ("run.seed=-1", "run.seed"),
        ("data.root=nowhere", "data.root"),
    ],
)
def test_mistakes_are_one_line(pets, scratch, change, message):
    said = check(pets, "--set", change, code=2)
    errors = [line for line in said.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert message in errors[0]
    assert left(scratch) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_that_runs_out_is_one_line_with_the_field_to_lower(tmp_path, scratch):
    """In a process of its own: what a library does under a limit is not for the other tests."""
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    assert CliRunner().invoke(app, ["init", str(root), "--out", str(out)]).exit_code == 0
    job = yaml.safe_load(out.read_text()) | {"method": tiny_job()["method"]}
    job["method"]["classifier"]["augment"] = {"kind": "warp", "size": 4000}
    out.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "wsss_ray", "check", str(out), "--memory", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "stage classifier: memory runs out with 8 images at a time; lower run.micro_batch" in line
    assert "method.classifier.augment.size (now 4000)" in line
    assert left(scratch) == []


def test_a_limit_is_lifted_again():
    with at_most(50e6), pytest.raises(RuntimeError) as caught:
        torch.zeros(100_000_000)
    assert ran_out(caught.value)
    assert torch.zeros(20_000_000).sum() == 0
    assert not ran_out(ValueError("no"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_ended(pets, scratch, number):
    command = [*DEAF, sys.executable, "-m", "wsss_ray", "check", str(pets), "--set", "method.localizer.selections=1000000000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(scratch.glob("wsss-ray-check-*/stages/train-*/model.safetensors")):  # it is making maps
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            os.sched_yield()
        said = None
        for _ in range(6):  # a library that is being imported may swallow what a signal raises (seen with numba): then once more
            child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                _, said = child.communicate(timeout=10)
                break
    finally:
        child.kill()
    assert said is not None
    assert child.returncode == (130 if number == signal.SIGINT else 143)
    assert "Traceback" not in said
    assert left(scratch) == []


@pytest.mark.slow
def test_estimates_are_within_a_factor_of_three(tmp_path):
    changes = {"data": {"kind": "shapes", "size": 96, "train": 96, "held_out": 32}}
    job = job_of(tiny_job(**changes))
    plan = job.plan()
    classifier = job.method.classifier.model_copy(update={"steps": 60})
    job = job.model_copy(update={"method": job.method.model_copy(update={"classifier": classifier})})
    plan = job.plan()
    measures = try_job(job, plan, images=8, **HERE)
    found = estimate(plan, measures, job.run, JobResources(workers=1, threads=1, cpus=1, gpus=0), done=set())
    store = RunStore(str(tmp_path))
    began = time.perf_counter()
    run_plan(store, plan)
    took = time.perf_counter() - began
    starts = total_seconds(found) - sum(one.work * one.each for one in found)
    assert starts >= RAY_START, "of Ray and its processes, which there are none of here"
    expected = total_seconds(found) - starts
    assert took / 3 < expected < took * 3
    disk = sum(path.stat().st_size for path in tmp_path.rglob("*.*") if path.suffix in (".parquet", ".pt", ".safetensors"))
    assert disk / 3 < total_bytes(found) < disk * 3
    for one in found:
        record = store.record(stage_named(plan, one.name))
        assert one.work * one.each < 5 * record["seconds"] + 1
        assert record["seconds"] < 5 * one.work * one.each + 1


def test_what_an_estimate_counts():
    job = job_of(tiny_job())
    plan = job.plan()
    measures = try_job(job, plan, images=4, **HERE)
    resources = JobResources(workers=1, threads=1, cpus=2, gpus=0)
    found = {one.name: one for one in estimate(plan, measures, job.run, resources, done=set())}
    weak = found["images-weak"]
    assert (weak.work, weak.unit, weak.processes) == (24, "images", 2)
    alone = {one.name: one for one in estimate(plan, measures, job.run, JobResources(1, 1, 1, 0), done=set())}
    assert alone["images-weak"].seconds - weak.seconds == pytest.approx(8 * weak.each), "three shards of 8: two rounds, or three"
    wider = job.run.model_copy(update={"loader_workers": 4})
    helped = {one.name: one for one in estimate(plan, measures, wider, resources, done=set())}
    assert helped["classifier"].each <= found["classifier"].each
    assert total_seconds(estimate(plan, measures, job.run, resources, done={stage.name for stage in plan})) == 0


def test_a_stage_with_a_mistake_in_its_code_is_one_line():
    spec = tiny_job()
    spec["method"]["classifier"] |= {"kind": "broken_classifier"}
    job = job_of(spec)
    with pytest.raises(CheckError, match=r"^stage classifier: RuntimeError: the mistake$"):
        try_job(job, job.plan(), images=4, **HERE)
