"""What is written down of stages that failed, and for how long it counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from wsss_ray.engine.failures import Failures, failure_of
from wsss_ray.engine.records import StageError
from wsss_ray.storage.store import RunStore


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


def test_an_error_is_its_cause_and_where_to_look():
    assert str(StageError("stage maps: a mistake")) == "stage maps: a mistake"
    error = StageError("stage maps: a mistake", ["localize-1"], "/runs/logs")
    assert str(error) == "stage maps: a mistake\nlogs: /runs/logs; what was done is kept"


def test_what_failed_counts_in_its_attempt_until_it_is_tried_again(store):
    stages = first, second = SimpleNamespace(id="train-1"), SimpleNamespace(id="seed-2")
    here = Failures(store, "an attempt")
    here.note(StageError("stage a: a mistake", [first.id], "/runs/logs; worker log: 10.0.0.1:/x"))
    assert here.of(first.id) == "stage a: a mistake"
    assert here.of(second.id) is None
    found = failure_of(store, first.id)
    assert found.pop("time").endswith("+00:00")
    assert found == {"error": "stage a: a mistake", "logs": "/runs/logs; worker log: 10.0.0.1:/x", "attempt": "an attempt"}

    here.forget(stages)
    assert here.of(first.id) is not None, "another trial of the same attempt knows it"
    later = Failures(store, "a later one")
    assert later.of(first.id) is None, "it may have been mended since"
    later.forget(stages)
    assert failure_of(store, first.id) is None


def test_a_store_that_cannot_be_written_hides_no_error(store, tmp_path):
    (tmp_path / "stages").write_text("no folder")
    Failures(store, "an attempt").note(StageError("stage a: the disk is full", ["train-1"]))
