"""A run keeps what was submitted under its name: no changed job and no `--until` hides a model, labels or a report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

import wsss_ray
from tests.local import job_of, run_plan, stage_named, whole_run
from tests.photos import call
from tests.pictures import unpack
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.config.planning import plan
from wsss_ray.core.errors import DamagedFile
from wsss_ray.inference.attempts import fields_of
from wsss_ray.inference.trained import find_trained
from wsss_ray.reporting.history import attempts, differences
from wsss_ray.runners.execute import begin_run, write_report
from wsss_ray.runners.python import plan_again
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    store, plan = whole_run(folder, tiny_job())
    write_report(job_of(tiny_job()), plan, store)
    return store, plan


@pytest.fixture
def store(whole, tmp_path):
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    return RunStore(str(tmp_path / "runs"))


def submitted(store, *, last=None, until=None, job=None, **changes):
    """Submit a job under the run's name, and make its stages up to the one named `last`."""
    planned = plan(job or tiny_job(), set={f"method.{name.replace('__', '.')}": value for name, value in changes.items()},
                       store=store.uri, until=until)  # fmt: skip
    begin_run(planned.job, planned.plan, store)
    if last is not None:
        run_plan(store, planned.plan, last=last)
    write_report(planned.job, planned.plan, store)
    return planned.plan


def test_a_changed_job_keeps_the_model(store, whole):
    model = stage_named(whole[1], "retrain").id
    report = store.read(store.run_path("tiny", "report.html"))
    assert find_trained("tiny", store.uri).title == f"run 'tiny': model 'retrain' ({model})"
    plan = submitted(store, last="seed_quality", seed_rule__theta=0.7)
    newest, first = attempts(store, "tiny")
    assert ((newest.number, newest.total), (first.number, first.total)) == ((2, 2), (1, 2))
    assert fields_of(newest)["method"]["seed_rule"]["theta"] == 0.7
    assert [stage["id"] for stage in first.stages] == [stage.id for stage in whole[1]]
    trained = find_trained("tiny", store.uri)
    assert trained.title == f"run 'tiny', attempt 1 of 2: model 'retrain' ({model})"
    assert trained.metric == stage_named(whole[1], "miou").component
    assert wsss_ray.open_run("tiny", store.uri).model(device="cpu").trained.id == model
    old = wsss_ray.open_run("tiny", store.uri, attempt=1)
    assert list(old.scores) == ["seed_quality", "relabel_quality", "miou"]
    assert old.status().state == "done"
    assert Path(old.report).read_bytes() == report
    assert list(wsss_ray.open_run("tiny", store.uri).scores) == ["seed_quality"]
    run_plan(store, plan)
    assert find_trained("tiny", store.uri).id == stage_named(plan, "retrain").id
    assert find_trained("tiny", store.uri, attempt=1).id == model


def test_half_a_model_does_not_hide_a_whole_one(store, whole):
    plan = submitted(store, last="segmenter", seed_rule__theta=0.7)
    assert store.is_done(stage_named(plan, "segmenter"))
    assert not store.is_done(stage_named(plan, "retrain"))
    assert find_trained("tiny", store.uri).id == stage_named(whole[1], "retrain").id
    named = find_trained("tiny", store.uri, "segmenter")
    assert (named.id, named.attempt.number) == (stage_named(plan, "segmenter").id, 2)
    shutil.rmtree(store.stage_path(stage_named(whole[1], "retrain")))
    assert find_trained("tiny", store.uri).id == named.id, "no model is whole: the last attempt's"


def test_until_keeps_the_model(store, whole):
    for until in ("seed", "localize"):
        submitted(store, last="maps", until=until)
        found = find_trained("tiny", store.uri)
        assert (found.id, found.attempt.number) == (stage_named(whole[1], "retrain").id, 1)
    assert [one.until for one in attempts(store, "tiny")] == ["localize", "seed", None]


def test_the_same_job_again_is_the_same_attempt(store, whole):
    before = store.names(store.run_path("tiny", "attempts"))
    submitted(store)
    assert store.names(store.run_path("tiny", "attempts")) == before
    submitted(store, seed_rule__theta=0.7)
    submitted(store)
    newest, other = attempts(store, "tiny")
    assert (newest.number, other.number) == (1, 2), "the newest is the one that was submitted last, whose number is the first"
    assert newest.submitted > newest.first
    assert json.loads(Path(store.run_path("tiny", "run.json")).read_text())["stages"][-1]["name"] == "miou"


def test_a_run_of_an_older_version_gets_a_history(store, whole):
    """Its folder has run.json and job.yaml alone."""
    shutil.rmtree(store.run_path("tiny", "attempts"))
    (one,) = attempts(store, "tiny")
    assert (one.number, one.total, one.until) == (1, 1, None)
    assert fields_of(one)["name"] == "tiny"
    submitted(store, seed_rule__theta=0.7)
    newest, first = attempts(store, "tiny")
    assert (newest.number, first.number) == (2, 1)
    assert fields_of(first)["method"]["seed_rule"]["theta"] != 0.7
    assert find_trained("tiny", store.uri).id == stage_named(whole[1], "retrain").id


def test_resume_stops_where_it_was_to_stop(store, tmp_path):
    assert plan_again(store, "tiny").plan.until is None
    submitted(store, until="seed", seed_rule__theta=0.7)
    planned = plan_again(store, "tiny")
    assert (planned.plan.until, planned.plan.stages[-1].kind) == ("seed", "evaluate")
    assert planned.job.method.seed_rule.theta == 0.7
    assert plan_again(store, "tiny", whole=True).plan.until is None
    assert plan_again(store, "tiny", until="localize").plan.until == "localize"
    sweep = tiny_job(name="many", sweep={"space": {"method.seed_rule.theta": {"grid": [0.2, 0.3]}}})
    store.write(store.run_path("many", "job.yaml"), yaml.safe_dump(sweep).encode())
    store.write_json(store.run_path("many", "sweep.json"), {"name": "many", "total": 2, "until": "seed"})
    planned = plan_again(store, "many")
    assert planned.plan.until == "seed"
    assert [plan.until for _, plan in planned.trials()] == ["seed", "seed"]
    with pytest.raises(ValueError, match="no run 'nobody' in"):
        plan_again(store, "nobody")
    Path(store.run_path("tiny", "job.yaml")).unlink()
    with pytest.raises(ValueError, match=r"job\.yaml: is missing"):
        plan_again(store, "tiny")


def test_commands_say_of_which_attempt(store, whole, tmp_path):
    said = call("show", "tiny", "--store", store.uri)
    assert "attempt" not in said
    submitted(store, seed_rule__theta=0.7)
    submitted(store, until="seed", seed_rule__theta=0.7)
    said = call("show", "tiny", "--store", store.uri)
    model = stage_named(whole[1], "retrain").id
    table = re.findall(r"^(\d) +\d{4}-.*?:\d\d  (\w*) +(\d+/\d+) *(.*)$", said, re.MULTILINE)
    assert table == [("3", "seed", "3/5", ""), ("2", "", "5/12", "method.seed_rule.theta=0.7"), ("1", "", "12/12", "")]
    assert f"model: run 'tiny', attempt 1 of 3: model 'retrain' ({model})" in said
    assert re.search(r"^miou +8 ", call("show", "tiny", "--attempt", 1, "--store", store.uri), re.MULTILINE)
    assert "it has 1 to 3" in call("show", "tiny", "--attempt", 7, "--store", store.uri, code=2)
    said = call("export", "tiny", "--format", "safetensors", "--out", tmp_path / "model", "--store", store.uri)
    assert f"run 'tiny', attempt 1 of 3: retrain ({model})" in said
    assert "theta: 0.7" not in (tmp_path / "model/README.md").read_text(), "the card shows the job that trained it"
    said = call("export", "tiny", "--format", "voc", "--stage", "relabel", "--out", tmp_path / "labels", "--store", store.uri)
    assert "run 'tiny', attempt 1 of 3: relabel (" in said
    unpack(store, whole[1], tmp_path / "photos", most=1)
    said = call("predict", "tiny", tmp_path / "photos", "--out", tmp_path / "out", "--store", store.uri)
    assert f"run 'tiny', attempt 1 of 3: model 'retrain' ({model}): 1 image to" in said


def test_a_damaged_history_names_its_file(store):
    submitted(store, seed_rule__theta=0.7)
    name = f"{attempts(store, 'tiny')[1].key}.json"
    path = Path(store.run_path("tiny", "attempts", name))
    for content in ("{}", "[]", "7", '{"stages": 3}', '{"stages": [{}]}', "torn"):
        path.write_text(content)
        with pytest.raises(DamagedFile, match=rf"{name}: is damaged"):
            attempts(store, "tiny")
    submitted(store)
    assert [one.number for one in attempts(store, "tiny")] == [2, 1], "its job is submitted again: a new file"


def test_verify_reads_the_history(store):
    submitted(store, seed_rule__theta=0.7)
    path = Path(store.run_path("tiny", "attempts", f"{attempts(store, 'tiny')[1].key}.json"))
    assert "damaged" not in call("verify", "tiny", "--store", store.uri)
    path.write_text(path.read_text().replace("theta: 0.35", "theta: 0.36"))
    wrong = f"{path}: is damaged (another job than was submitted). Submit its job again, or delete it."
    assert wrong in call("verify", "tiny", "--store", store.uri, code=2)
    with pytest.raises(DamagedFile, match=re.escape(wrong)):
        attempts(store, "tiny")


def test_a_history_keeps_no_secret(store, monkeypatch):
    monkeypatch.setenv("TRACKER_TOKEN", "s3cret-value")
    logger = {"kind": "mlflow", "tracking_uri": "https://${TRACKER_TOKEN}@tracker.example"}
    planned = plan(tiny_job(run={"loggers": [logger]}), store=store.uri)
    begin_run(planned.job, planned.plan, store)
    submitted(store, seed_rule__theta=0.7)
    assert fields_of(attempts(store, "tiny")[1])["run"]["loggers"][0]["tracking_uri"] == logger["tracking_uri"]
    said = call("show", "tiny", "--store", store.uri) + call("compare", "tiny@1", "tiny@2", "--store", store.uri)
    assert "run.loggers" in said
    files = [path.read_bytes() for path in Path(store.run_path("tiny")).rglob("*") if path.is_file()]
    assert not any(b"s3cret-value" in text for text in (*files, said.encode()))


def test_damaged_labels_are_not_replaced_by_older_ones(store, tmp_path):
    made = submitted(store, last="seeds", seed_rule__theta=0.7)
    export = ("export", "tiny", "--format", "voc", "--stage", "seeds", "--store", store.uri)
    assert "run 'tiny', attempt 2 of 2: seeds (" in call(*export, "--out", tmp_path / "labels")
    Path(store.stage_path(stage_named(made, "seeds"), "shards/part-00001.parquet")).unlink()
    said = call(*export, "--out", tmp_path / "none", code=2)
    assert "stage 'seeds': " in said
    assert "shards/part-00001.parquet is missing" in said


def test_differences_of_jobs():
    jobs = [{"name": "a", "run": {"seed": 0, "x": [1]}, "old": {"b": None}}, {"name": "a", "run": {"seed": 1, "x": [1]}}]
    assert differences(jobs) == {"run.seed": (0, 1), "old.b": (None, "-")}
    assert differences([{}, {}]) == {}
    assert differences([{"a": {}}, {"a": {"b": 1}}]) == {"a": ({}, "-"), "a.b": ("-", 1)}


@pytest.mark.parametrize("attempted", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_a_lost_run_json_is_named_by_every_command(store, capsys, attempted, folder):
    shutil.copytree(store.run_path("tiny"), store.run_path("other"))
    path = Path(store.run_path("tiny", "run.json"))
    path.unlink()
    if not attempted:
        shutil.rmtree(store.run_path("tiny", "attempts"))
    if folder:
        path.mkdir()
    mend = "not a file. Remove it, then submit" if folder else f"is missing. Submit the run's job again: {path.parent}/job.yaml"
    for command in ("verify", "status", "show"):
        with pytest.raises(DamagedFile, match=f"^{path}: .*{mend}"):
            app([command, "tiny", "--store", store.uri], standalone_mode=False)
    capsys.readouterr()
    app(["status", "--store", store.uri], standalone_mode=False)
    out = capsys.readouterr().out
    assert re.search("^other +done ", out, re.MULTILINE)
    assert (f"tiny: damaged: {path}: " in out) == (attempted or folder), "it may be just being submitted"
    if not folder:
        submitted(store)
        call("verify", "tiny", "--store", store.uri)


_CHANGES = (
    lambda about: about["stages"].pop(),
    lambda about: about["stages"][0].update(work=7),
    lambda about: about.update(until="seed"),
)


@pytest.mark.parametrize("change", _CHANGES, ids=["stages", "work", "until"])
def test_a_run_json_is_compared_with_its_attempt(store, change):
    submitted(store, seed_rule__theta=0.7)
    path = store.run_path("tiny", "run.json")
    about = json.loads(store.read(path))
    change(about)
    store.write_json(path, about)
    said = call("verify", "tiny", "--store", store.uri, code=2)
    assert f"damaged: {path}: is damaged (differs from attempts/" in said
    with pytest.raises(DamagedFile, match=r"differs from attempts/.* Submit the job again"):
        attempts(store, "tiny")
    submitted(store, seed_rule__theta=0.7)
    assert len(attempts(store, "tiny")) == 2
    assert "differs from" not in call("verify", "tiny", "--store", store.uri)
