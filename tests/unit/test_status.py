"""What the store says of its runs, and how `status` prints it."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from tests.local import stage_named, whole_run
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.engine.failures import Failures
from wsss_ray.engine.records import StageError
from wsss_ray.engine.workers import worker_class
from wsss_ray.reporting.status import quality, run_status, sweep_status
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.documents import CLAIM
from wsss_ray.storage.shards import shard_path, write_shard
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of which all is done, two of its images cannot be read."""
    return whole_run(tmp_path_factory.mktemp("runs"), tiny_job(data={"kind": "shapes", "broken": [3, 11]}))


@pytest.fixture
def halfway(whole, tmp_path):
    """The same as far as the maps."""
    store, plan = whole
    shutil.copytree(store.uri, tmp_path / "runs")
    half = RunStore(str(tmp_path / "runs"))
    for stage in plan.stages[plan.stages.index(stage_named(plan, "maps")) + 1 :]:
        shutil.rmtree(half.stage_path(stage))
    return half, plan


def said(capsys, *arguments):
    app(["status", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def rows(text):
    """A table's rows by their first cell."""
    header, *lines = text.splitlines()
    columns = [(found[0], found.start()) for found in re.finditer(r"\S+(?: \S+)*", header)]
    ends = [start for _, start in columns[1:]] + [None]
    return {line.split()[0]: {n: line[a:b].strip() for (n, a), b in zip(columns, ends, strict=True)} for line in lines}


def held(store, stage, attempt="attempt-7"):
    """A claim that is not kept up, so that nothing changes while a test looks."""
    claims = Claims(store, attempt)
    assert claims.take(stage.id) is None
    path = store.path("claims", f"{stage.id}.json")
    return path, store.read_json(path, CLAIM)["since"]


def logged(store, stage, *lines):
    """A training's log: a line for each step and time."""
    text = "".join(json.dumps({"step": step, "time": at}) + "\n" for step, at in lines)
    store.write(store.stage_path(stage, "metrics.jsonl"), text.encode())


def test_a_run_that_nobody_makes_is_interrupted(halfway):
    store, plan = halfway
    found = run_status(store, "tiny")
    assert (found.state, found.done, len(found.stages), found.now.name) == ("interrupted", 5, len(plan.stages), "seeds")
    assert (found.now.state, found.now.made, found.now.work, found.now.unit) == ("waiting", 0, 3, "shards")
    assert found.errors == 2, "the two that could not be packed"
    assert run_status(store, "another") is None
    assert sweep_status(store, "tiny") is None


def test_a_training_shows_its_maker_pace_and_time_left(halfway):
    store, plan = halfway
    segmenter = stage_named(plan, "segmenter")
    path, since = held(store, segmenter)
    logged(store, segmenter, (0, since - 5), (1, since + 1), (2, since + 1.5), (4, since + 2))
    found = run_status(store, "tiny")
    assert (found.state, found.now.name, found.now.holder) == ("running", "segmenter", "attempt-7")
    assert (found.now.made, found.now.work, found.now.unit) == (4, 6, "steps")
    assert found.now.rate == pytest.approx(3)
    assert found.now.left_s == pytest.approx(2 / 3)
    assert found.now.silent_s < 60

    os.utime(path, (since - 100, since - 100))
    silent = run_status(store, "tiny").now
    assert (silent.state, silent.rate, silent.left_s) == ("running", None, None), "it has given no sign for long"
    assert silent.silent_s > 99
    os.utime(path)
    logged(store, segmenter, (1, since - 2), (2, since - 1))
    assert run_status(store, "tiny").now.rate is None, "of an earlier attempt, perhaps on another machine"

    claim = store.read_json(path, CLAIM)
    store.write_json(path, claim | {"pid": 2**22 + 1})
    dead = run_status(store, "tiny")
    assert dead.state == "interrupted", "its process is dead"
    assert (dead.now.made, dead.now.rate) == (2, None)


def test_shards_tell_their_pace_by_their_times_once_it_can_be_known(halfway):
    store, plan = halfway
    seeds = stage_named(plan, "seeds")
    worker = worker_class(seeds)(store, seeds)
    worker(0)
    _, since = held(store, seeds)
    os.utime(shard_path(store, seeds, 0), (since - 500, since - 500))
    worker(1)
    os.utime(shard_path(store, seeds, 1), (since + 10, since + 10))
    found = run_status(store, "tiny").now
    assert (found.made, found.work, found.rate, found.left_s) == (2, 3, None, None), "one says nothing yet"
    worker(2)
    os.utime(shard_path(store, seeds, 2), (since + 14, since + 14))
    assert run_status(store, "tiny").now.rate is None, "two that came in one burst neither"
    os.utime(shard_path(store, seeds, 2), (since + 20, since + 20))
    found = run_status(store, "tiny").now
    assert (found.made, found.rate, found.left_s) == (3, pytest.approx(0.1), 0)


def test_images_that_fail_are_counted_while_a_stage_is_made(halfway):
    store, plan = halfway
    seeds = stage_named(plan, "seeds")
    assert run_status(store, "tiny").now.errors == 0
    failed = [{"image_id": f"weak/000{k}", "path": None, "reason": "a mistake"} for k in range(3)]
    write_shard(store, seeds, 0, "errors", failed, folder="errors")
    assert run_status(store, "tiny").now.errors == 3


def test_a_stage_that_failed_says_why_until_it_is_tried_again(halfway, capsys):
    store, plan = halfway
    seeds = stage_named(plan, "seeds")
    why = "stage seeds, shard 1: MemoryError: no room"
    Failures(store, "then").note(StageError(why, [seeds.id], "/logs; worker log: 10.0.0.1:/x.err"))
    found = run_status(store, "tiny")
    assert (found.state, found.now.name, found.now.error) == ("failed", "seeds", why)
    for arguments in ((), ("tiny",)):
        *_, error, logs = said(capsys, *arguments, "--store", store.uri).splitlines()
        assert error.endswith(f"failed: {why}")
        assert logs == "  logs: /logs; worker log: 10.0.0.1:/x.err"
    held(store, seeds)
    assert run_status(store, "tiny").state == "running"


def test_the_tables(halfway, capsys):
    store, plan = halfway
    segmenter = stage_named(plan, "segmenter")
    _, since = held(store, segmenter)
    logged(store, segmenter, (1, since + 1), (2, since + 3))
    row = rows(said(capsys, "--store", store.uri))["tiny"]
    assert row.pop("sign of life").endswith("s ago")
    assert row == {
        "run": "tiny", "state": "running", "stages": f"5/{len(plan.stages)}", "stage": "segmenter", "progress": "2/6 steps",
        "rate": "0.5 steps/s", "left": "0:00:08", "errors": "2", "by": "attempt-7",
    }  # fmt: skip
    stages = rows(said(capsys, "tiny", "--store", store.uri))
    assert list(stages) == [stage.name for stage in plan]
    assert {name: row["state"] for name, row in stages.items() if row["state"] not in ("done", "waiting")} == {
        "segmenter": "running"
    }
    assert (stages["images-weak"]["progress"], stages["images-weak"]["errors"]) == ("3/3 shards", "2")
    assert stages["classifier"]["progress"] == "12/12 steps"
    assert stages["classifier"]["time"].endswith(" s")
    assert stages["seeds"]["progress"] == ""
    assert (stages["segmenter"]["left"], stages["segmenter"]["by"]) == ("0:00:08", "attempt-7")


def test_the_same_as_json(halfway, capsys):
    store, plan = halfway
    store.write_json(store.run_path("many", "sweep.json"), {"total": 5, "attempt": "attempt-8 1"})
    found = json.loads(said(capsys, "--json", "--store", store.uri))
    assert found["store"] == store.uri
    assert found["sweeps"] == [{"name": "many", "attempt": "attempt-8 1", "ended": 0, "total": 5}]
    (run,) = found["runs"]
    assert (run["name"], run["state"], run["done"], run["errors"]) == ("tiny", "interrupted", 5, 2)
    assert [stage["id"] for stage in run["stages"]] == [stage.id for stage in plan]
    assert json.loads(said(capsys, "tiny", "--json", "--store", store.uri))["runs"] == [run]


def test_a_run_with_all_records_is_done(whole, capsys):
    store, plan = whole
    found = run_status(store, "tiny")
    assert (found.state, found.now, found.done) == ("done", None, len(plan.stages))
    assert " done " in said(capsys, "--store", store.uri).splitlines()[1]


def test_the_quality_of_a_training_is_the_last_and_the_best(halfway):
    store, _ = halfway
    stage = ("segmenter", "train-0123456789abcdef")
    assert quality(store, *stage) == []
    path = store.path("stages", stage[1], "metrics.jsonl")
    store.write(path, b'{"step": 2}\n{"step": 4, "val_miou": 0.5}\n{"step": 6, "val_miou": 0.25}\n{"step": 7}\n')
    assert quality(store, *stage) == ["segmenter: mIoU on validation images 0.250 after step 6, best 0.500 after step 4"]


def test_a_sweep_counts_its_trials_and_lists_them(halfway, capsys):
    store, _ = halfway
    store.write_json(store.run_path("many", "sweep.json"), {"total": 5})
    store.write_json(store.run_path("many", "trials", "many.a.0.json"), {})
    for name in ("many.a.0", "manyfold"):
        shutil.copytree(store.run_path("tiny"), store.run_path(name))
    assert (sweep_status(store, "many").ended, sweep_status(store, "many").total) == (1, 5)
    assert list(rows(said(capsys, "--store", store.uri))) == ["many", "many.a.0", "manyfold", "tiny"]
    shown = rows(said(capsys, "many", "--store", store.uri))
    assert list(shown) == ["many", "many.a.0"]
    assert shown["many"]["progress"] == "1/5 trials"


def test_an_unknown_run_is_named(halfway, capsys):
    store, _ = halfway
    with pytest.raises(SystemExit, match="2"):
        said(capsys, "another", "--store", store.uri)
    assert f"no run 'another' in {store.uri}; `wsss-ray status" in capsys.readouterr().err
