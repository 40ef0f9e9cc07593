"""How long the rest of a job takes: what check expected, the pace of what is done, and where nothing is known."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest

from tests.local import stage_named, whole_run
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.inference.cleanup import removal, remove
from wsss_ray.reporting.remaining import Remaining, expected_of, expected_path, keep_expected
from wsss_ray.reporting.status import run_status
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.store import RunStore


@dataclass(frozen=True)
class Named:
    id: str


A, B, C, UNKNOWN = map(Named, "abcd")


def test_the_rest_goes_at_the_pace_of_what_is_done():
    rest = Remaining({"a": 4.0, "b": 40.0, "c": 100.0})
    assert rest.of([A, B, C]) == 144
    rest.ended([A], seconds=400.0)
    assert rest.of([B, C]) == 140, "four seconds tell no pace"
    rest.ended([B], seconds=40.0)
    assert rest.of([C]) == pytest.approx(100 * 440 / 44)
    assert rest.of([]) == 0


def test_of_what_is_not_known_nothing_is_said():
    rest = Remaining({"a": 40.0, "b": 40.0})
    assert rest.of([A, UNKNOWN]) is None
    rest.ended([B, UNKNOWN], seconds=999.0)
    assert rest.of([A]) == 40, "a group with an unknown stage tells no pace"
    assert Remaining({}).of([A]) is None


def test_what_is_kept_comes_back(tmp_path):
    store = RunStore(str(tmp_path))
    assert expected_of(store, "pets") == {}
    keep_expected(store, "pets", {"train-0": 12.34567, "seed-1": 5.0})
    assert expected_of(store, "pets") == {"train-0": 12.346, "seed-1": 5.0}
    store.write(expected_path(store, "pets"), b'{"stages": {"a": "soon"}, "made": 1}')
    assert expected_of(store, "pets") == {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("runs"), tiny_job())


@pytest.fixture
def running(whole, tmp_path):
    """A run whose segmenter a process is making, as far as a claim says so."""
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    store, plan = RunStore(str(tmp_path / "runs")), whole[1]
    segmenter = plan.stages.index(stage_named(plan, "segmenter"))
    for stage in plan.stages[segmenter:]:
        shutil.rmtree(store.stage_path(stage))
    assert Claims(store, "attempt-7").take(plan.stages[segmenter].id) is None
    return store, plan, plan.stages[segmenter:]


def test_status_tells_the_time_left_of_the_run(running, capsys):
    store, plan, left = running
    assert run_status(store, "tiny").left_s is None, "it was not checked"
    keep_expected(store, "tiny", {stage.id: 100.0 for stage in plan})
    assert run_status(store, "tiny").left_s == pytest.approx(100 * len(left)), "no step is done"
    app(["status", "tiny", "--store", store.uri], standalone_mode=False)
    assert f"whole run: about {round(100 * len(left) / 60)} min left" in capsys.readouterr().out
    keep_expected(store, "tiny", {stage.id: 100.0 for stage in left[:-1]})
    assert run_status(store, "tiny").left_s is None, "the last stage is not known"


def test_a_run_that_is_removed_takes_it_along(whole, tmp_path):
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    store = RunStore(str(tmp_path / "runs"))
    for _ in range(2):
        keep_expected(store, "tiny", {"train-0": 1.0})
    remove(store, removal(store, "tiny"))
    assert not store.exists(expected_path(store, "tiny"))
