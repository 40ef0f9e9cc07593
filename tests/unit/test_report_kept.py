"""A submit that finds everything done leaves the report as it is, unless something of it could be another one now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.local import job_of, recommit, stage_named, whole_run
from tests.shapes import tiny_job
from wsss_ray.reporting.report import kept
from wsss_ray.runners.execute import write_report
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole"), tiny_job())


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    store = RunStore(str(tmp_path / "runs"))
    write_report(job_of(tiny_job()), whole[1], store)
    return store, whole[1], Path(store.run_path("tiny", "report.html"))


def again(store, plan):
    """Whether the report was written again: a file that is replaced has another inode or time."""
    path = Path(store.run_path("tiny", "report.html"))
    before = path.stat()
    damage = write_report(job_of(tiny_job()), plan, store)
    return (path.stat().st_ino, path.stat().st_mtime_ns) != (before.st_ino, before.st_mtime_ns), damage


def test_the_report_of_an_unchanged_run_is_left_alone(run):
    store, plan, path = run
    page = path.read_bytes()
    assert again(store, plan) == (False, [])
    path.unlink()
    assert write_report(job_of(tiny_job()), plan, store) == []
    assert path.read_bytes() == page


def test_a_report_that_is_not_whole_is_made_again(run):
    store, plan, path = run
    page = path.read_bytes()
    flipped = bytearray(page)
    flipped[len(page) // 2] ^= 1
    for damaged in (b"", page[:-1], page[:-200], page + b" ", bytes(flipped), page.replace(b"<!-- made", b"<!--made")):
        path.write_bytes(damaged)
        assert again(store, plan) == (True, []), damaged[-80:]
        assert path.read_bytes() == page


def test_a_report_follows_what_it_shows(run):
    store, plan, path = run
    job = Path(store.run_path("tiny", "job.yaml"))
    job.write_text(job.read_text() + "# a remark\n")
    assert again(store, plan)[0]
    assert b"# a remark" in path.read_bytes()
    store.write(store.run_path("tiny", "logs", "worker-ab-01000000-7.err"), b"the worker says\n")
    assert again(store, plan)[0]
    assert b"worker-ab-01000000-7.err" in path.read_bytes()
    recommit(store, stage_named(plan, "miou"), seconds=4321.0)
    assert again(store, plan)[0]
    assert not again(store, plan)[0]


def test_a_damaged_run_is_reported_each_time(run):
    store, plan, _ = run
    shard = next(Path(store.stage_path(stage_named(plan, "seeds"))).glob("shards/*.parquet"))
    shard.unlink()
    for _ in range(2):
        written, damage = again(store, plan)
        assert written
        assert any(shard.name in line for line in damage)
    assert kept.basis(store, "tiny", plan, "") is None


def test_a_change_of_a_template_is_seen(run, monkeypatch):
    store, plan, _ = run
    before = kept.basis(store, "tiny", plan, "")
    assert kept.basis(store, "tiny", plan, "") == before
    monkeypatch.setattr(kept, "_sources", lambda: "another")
    assert kept.basis(store, "tiny", plan, "") != before
