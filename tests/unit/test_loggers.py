"""What loggers are told of a run: all figures of its stages, each once, whatever is killed, done by others, or away."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time

import numpy as np
import pytest
from rich.console import Console

from tests import memory_logger
from tests.event_files import points
from tests.local import job_of, stage_named
from tests.masked import masked_job
from wsss_ray.core.graph import Plan
from wsss_ray.engine.records import StageError
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.reporting.loggers.figures import Figures
from wsss_ray.reporting.progress import Display
from wsss_ray.runners import follow as follow_module
from wsss_ray.runners.follow import Follower, logged
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.documents import LOGGER
from wsss_ray.storage.shards import list_shards, shard_path
from wsss_ray.storage.store import RunStore

MEMORY = {"loggers": ["memory"]}


@pytest.fixture
def copy(trained_run, tmp_path):
    """A store of one's own with a run whose stages are all done."""
    memory_logger.forget()
    shutil.copytree(trained_run[0].path(), tmp_path / "copy")
    return RunStore(str(tmp_path / "copy"))


def display():
    return Display(Console(file=io.StringIO(), width=400))


def said(shown):
    return shown.console.file.getvalue().splitlines()


def job_with(**run):
    job = job_of(masked_job(run=run))
    return job, job.plan()


def follow(store, job, plan):
    """A submit that finds all of these stages done."""
    shown = display()
    with logged(job, plan, store, shown):
        pass
    return said(shown)


def log_of(store, stage):
    return [json.loads(line) for line in store.read(store.stage_path(stage, "metrics.jsonl")).splitlines()]


def steps_of(name, rows):
    return [row.step for row in rows if row.stage == name and "loss" in row.figures]


def test_every_figure_of_a_run_comes_once(copy):
    job, plan = job_with(**MEMORY)
    assert follow(copy, job, plan) == []
    (rows,) = memory_logger.ROWS.values()
    for stage in plan:
        record, last = copy.record(stage), [row for row in rows if row.stage_id == stage.id][-1]
        assert last.figures["seconds"] == record["seconds"]
        if stage.kind == "train":
            assert steps_of(stage.name, rows) == [line["step"] for line in log_of(copy, stage)]
            assert last.step == record["counts"]["steps"]
        else:
            assert last.figures["share"] == 1
            assert last.step == record["counts"]["shards"]
    first, line = next(row for row in rows if row.stage == "retrain"), log_of(copy, stage_named(plan, "retrain"))[0]
    assert first.time == line["time"]
    names = ("epoch", "loss", "lr", "images_per_s", "wait_share")
    assert first.figures == {name: line[name] for name in names} | {"terms/cross_entropy": line["terms"]["cross_entropy"]}
    metrics, scores = copy.record(stage_named(plan, "miou"))["metrics"], rows[-1].figures
    assert scores["miou"] == metrics["miou"]
    assert [scores[f"iou/{name}"] for name in ("background", "square", "disc", "bar")] == metrics["iou"]
    (run,) = memory_logger.RUNS
    assert (run.name, run.before, run.tags["stage.miou"]) == ("tiny", None, stage_named(plan, "miou").id)
    assert run.fields()["method.retrain.optimizer.lr"] == 0.01
    assert run.fields()["run.loggers"] == [{"kind": "memory", "fails": 0, "hangs": False}]


def test_a_run_that_is_submitted_again_goes_on_where_it_was(copy):
    job, plan = job_with(**MEMORY)
    training = stage_named(plan, "retrain")
    record, log = copy.record(training), copy.read(copy.stage_path(training, "metrics.jsonl"))
    lines = log.splitlines(keepends=True)
    copy.delete(copy.stage_path(training, "record.json"))
    copy.delete(copy.stage_path(stage_named(plan, "miou"), "record.json"))
    copy.write(copy.stage_path(training, "metrics.jsonl"), b"".join(lines[:30]))
    with pytest.raises(StageError), logged(job, plan, copy, display()):
        raise StageError("the machine is lost")
    assert memory_logger.CLOSED == [("failed", None)]
    copy.write(copy.stage_path(training, "metrics.jsonl"), b"".join(lines[:20]))  # it resumes at an earlier checkpoint
    before = sum(map(len, memory_logger.ROWS.values()))
    with logged(job, plan, copy, display()):
        copy.write(copy.stage_path(training, "metrics.jsonl"), log)
        copy.write_json(copy.stage_path(training, "record.json"), record)
        copy.write(copy.run_path("tiny", "report.html"), b"<html>")
    (name, rows), *others = memory_logger.ROWS.items()
    assert not others
    assert memory_logger.RUNS[1].before == name
    assert steps_of("retrain", rows) == list(range(1, 41))
    assert {row.stage for row in rows[before:]} == {"retrain"}, "what was logged is not logged again"
    assert memory_logger.CLOSED[1] == ("finished", "<html>")


def test_a_run_that_is_logged_is_left_alone_and_another_job_of_its_name_is_another_run(copy):
    job, plan = job_with(**MEMORY)
    whole, cut = plan, Plan.of([stage_named(plan, "segmenter")])
    follow(copy, job, cut)
    follow(copy, job, cut)
    assert len(memory_logger.RUNS) == 1
    follow(copy, job, whole)
    assert [run.before for run in memory_logger.RUNS] == [None, "number 1"], "its plan goes further now"
    other = job_of(masked_job(run=MEMORY | {"workers": 3}))
    follow(copy, other, whole)
    assert len(memory_logger.RUNS) == 2, "how wide it runs does not matter"
    follow(copy, job_of(masked_job(run=MEMORY | {"seed": 1})), cut)
    assert memory_logger.RUNS[-1].before is None


def test_a_logger_that_fails_says_so_once_and_loses_nothing(copy):
    shown = display()
    job, plan = job_with(loggers=[{"kind": "memory", "fails": 2}])
    follower = Follower(job.run.loggers[0], job, plan, copy, shown)
    with follower.claims:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                follower.look()
        follower.look()
        follower.look()
    (rows,) = memory_logger.ROWS.values()
    assert steps_of("retrain", rows) == list(range(1, 41))
    memory_logger.forget()
    copy.delete_folder(copy.run_path("tiny", "loggers"))
    job, plan = job_with(loggers=[{"kind": "memory", "fails": 1 << 30}, "tensorboard"])
    lines = follow(copy, job, plan)
    assert lines == ["warning: memory: the server is away; the run goes on, and what is missing there follows later"]
    assert not memory_logger.CLOSED
    assert copy.names(copy.run_path("tiny", "tensorboard")) == ["images-val", "images-weak", "miou", "retrain", "segmenter"]
    job, plan = job_with(**MEMORY)
    assert follow(copy, job, plan) == []
    assert memory_logger.RUNS[-1].before == "number 1"
    assert steps_of("retrain", memory_logger.ROWS["number 1"]) == list(range(1, 41))


@pytest.mark.parametrize("notes", [b"", b'{"id": "num', b"[]", b'{"job": %s, "steps": 3}', b'{"job": %s}'])
def test_notes_that_cannot_be_read_end_nothing(copy, notes):
    job, plan = job_with(**MEMORY)
    follow(copy, job, plan)
    path = copy.run_path("tiny", "loggers", "memory.json")
    copy.write(path, notes.replace(b"%s", json.dumps(copy.read_json(path, LOGGER)["job"]).encode()))
    assert follow(copy, job, plan) == [f"warning: {path}: cannot be read; memory gets all figures anew"]
    assert [run.before for run in memory_logger.RUNS] == [None, None]
    assert steps_of("retrain", memory_logger.ROWS["number 2"]) == list(range(1, 41))
    assert follow(copy, job, plan) == []


def test_a_logger_that_hangs_holds_nobody_up(copy):
    shown = display()
    job, plan = job_with(loggers=[{"kind": "memory", "hangs": True}])
    follower = Follower(job.run.loggers[0], job, plan, copy, shown)
    follower.start()
    follower.end("finished")
    began = time.monotonic()
    follower.leave(0.1)
    assert time.monotonic() - began < 5
    assert said(shown) == ["warning: memory: does not answer; the run goes on, and what is missing there follows later"]
    memory_logger.GO_ON.set()
    follower.join(30)
    assert memory_logger.CLOSED == [("finished", None)]


def test_of_two_attempts_at_once_one_logs_until_it_ends(copy):
    job, plan = job_with(**MEMORY)
    training = stage_named(plan, "retrain")
    record = copy.record(training)
    copy.delete(copy.stage_path(training, "record.json"))
    first = Follower(job.run.loggers[0], job, plan, copy, display())
    with first.claims:
        first.look()
        shown = display()
        second = Follower(job.run.loggers[0], job, plan, copy, shown)
        for _ in range(2):
            second.look()
        (line,) = said(shown)
        assert re.fullmatch(r"memory: process \d+ on .* is logging tiny; nothing is logged from here meanwhile", line)
        logs_none = display()
        with logged(job, plan, copy, logs_none):
            pass
        assert said(logs_none) == [line]
        assert len(memory_logger.RUNS) == 1
        assert not memory_logger.CLOSED
    copy.write_json(copy.stage_path(training, "record.json"), record)
    with second.claims:
        second.look()
    assert [run.before for run in memory_logger.RUNS] == [None, "number 1"]
    (rows,) = memory_logger.ROWS.values()
    assert steps_of("retrain", rows) == list(range(1, 41)), "each once"
    assert rows[-1].figures["seconds"] == record["seconds"]
    assert copy.names(copy.path("claims")) == []


def test_figures_come_while_a_run_goes_on(copy, monkeypatch):
    monkeypatch.setattr(follow_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(follow_module, "_SHARE", 1)  # on a busy machine a look may take seconds
    job, plan = job_with(**MEMORY)
    training = stage_named(plan, "retrain")
    lines = copy.read(copy.stage_path(training, "metrics.jsonl")).splitlines(keepends=True)
    copy.delete(copy.stage_path(training, "record.json"))
    copy.write(copy.stage_path(training, "metrics.jsonl"), lines[0])
    with logged(job, plan, copy, display()):
        for last in (20, 30):
            copy.write(copy.stage_path(training, "metrics.jsonl"), b"".join(lines[:last]))
            deadline = time.monotonic() + 120
            while steps_of("retrain", memory_logger.ROWS.get("number 1", []))[-1:] != [last]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert not memory_logger.CLOSED


def test_progress_of_a_stage_that_is_made(copy, monkeypatch):
    """A rate is of the time in which it was made: not of that in which it waited, and not of what was there before."""
    _, plan = job_with()
    stage = stage_named(plan, "images-weak")
    record, shards = copy.record(stage), {shard: copy.read(shard_path(copy, stage, shard)) for shard in list_shards(copy, stage)}
    copy.delete(copy.stage_path(stage, "record.json"))
    for shard in shards:
        copy.delete(shard_path(copy, stage, shard))
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    figures = Figures(copy, stage, after=0)
    assert figures.rows() == []
    now[0] += 1000
    with Claims(copy, "maker") as claims:
        assert claims.take(stage.id) is None
        rows = []
        for shard, data in shards.items():
            now[0] += 10
            copy.write(shard_path(copy, stage, shard), data)
            rows += figures.rows()
    assert [(row.step, row.figures["share"]) for row in rows] == [(1, 1 / 3), (2, 2 / 3), (3, 1)]
    assert ["images_per_s" in row.figures for row in rows] == [False, True, True], "one alone tells no rate"
    assert rows[2].figures["images_per_s"] == pytest.approx(data_split(stage).source.shard_size / 10)
    copy.write_json(copy.stage_path(stage, "record.json"), record)
    (whole,) = figures.rows()
    assert whole.figures["images_per_s"] == pytest.approx(record["counts"]["images"] / record["seconds"])
    os.utime(shard_path(copy, stage, 0), (now[0], now[0]))  # of an attempt before the last
    (resumed,) = Figures(copy, stage, after=0).rows()
    assert "images_per_s" not in resumed.figures
    assert resumed.figures["seconds"] == record["seconds"]


def test_event_files_hold_what_the_store_says_each_point_once(copy):
    job, plan = job_with()
    assert [logger.kind() for logger in job.run.loggers] == ["tensorboard"]

    def read(stage):
        folder = copy.run_path("tiny", "tensorboard", stage)
        (name,) = copy.names(folder)
        assert "tfevents" in name
        return points(copy.read(f"{folder}/{name}"))

    follow(copy, job, plan)
    first = {stage.name: read(stage.name) for stage in plan}
    lines = log_of(copy, stage_named(plan, "retrain"))
    steps, values = zip(*first["retrain"]["loss"], strict=True)
    assert list(steps) == [line["step"] for line in lines]
    np.testing.assert_allclose(values, [line["loss"] for line in lines], rtol=1e-6)
    metrics = copy.record(stage_named(plan, "miou"))["metrics"]
    assert first["miou"]["miou"] == [(1, pytest.approx(metrics["miou"]))]
    assert first["miou"]["iou/disc"] == [(1, pytest.approx(metrics["iou"][2]))]
    notes = copy.run_path("tiny", "loggers", "tensorboard.json")
    copy.write_json(notes, copy.read_json(notes, LOGGER) | {"state": "running"})  # as if it had been killed
    follow(copy, job, plan)
    assert {stage.name: read(stage.name) for stage in plan} == first
