"""Claims on stages: one maker at a time, and nobody waits for the dead."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.local import commit, job_of
from tests.shapes import tiny_job
from wsss_ray.storage import claims
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.store import RunStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


@pytest.fixture(scope="module")
def stages():
    return job_of(tiny_job()).plan().stages


def content(store, stage):
    return json.loads(store.read(store.path("claims", f"{stage.id}.json")))


def test_one_holds_a_stage_until_it_is_free(store, stages):
    one, two = stages[:2]
    with Claims(store, "first") as first, Claims(store, "second") as second:
        assert first.take(one.id) is None
        assert first.take(one.id) is None, "it is ours already"
        assert second.take(one.id)["attempt"] == "first"
        assert second.take(two.id) is None, "another stage is free"
        first.free(one.id)
        assert second.take(one.id) is None
        first.free(one.id)
        assert content(store, one)["attempt"] == "second", "what is not ours is not freed"
    assert store.names(store.path("claims")) == []


def test_of_many_at_once_one_succeeds(store, stages):
    all_claims = [Claims(store, str(k)) for k in range(12)]
    begin, won = threading.Barrier(12), []

    def go(one):
        begin.wait()
        won.append(one.take(stages[0].id) is None)

    threads = [threading.Thread(target=go, args=(one,)) for one in all_claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1


def test_the_claim_of_a_dead_process_is_stale_at_once(store, stages):
    code = (
        "from tests.local import job_of; from tests.shapes import tiny_job; from wsss_ray.storage.claims import Claims\n"
        "from wsss_ray.storage.store import RunStore; import os, sys\n"
        "claims = Claims(RunStore(sys.argv[1]), 'victim'); claims.__enter__()\n"
        "assert claims.take(job_of(tiny_job()).plan().stages[0].id) is None; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, store.uri], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -9
    assert content(store, stages[0])["attempt"] == "victim"
    with Claims(store, "heir") as heir:
        assert heir.take(stages[0].id) is None
        assert content(store, stages[0])["attempt"] == "heir"


def test_the_claim_of_another_machine_is_stale_when_its_beat_stands_still(store, stages, monkeypatch):
    path = store.path("claims", f"{stages[0].id}.json")
    holder = {"attempt": "far", "machine": "elsewhere", "pid": 1, "started": "1", "beat": 0}
    store.write_json(path, holder)
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    waiter = Claims(store, "waiter")
    assert waiter.take(stages[0].id)["attempt"] == "far"
    now[0] += claims.STALE_S - 1
    assert waiter.take(stages[0].id)["attempt"] == "far"
    store.write_json(path, holder | {"beat": 1})
    now[0] += 2
    assert waiter.take(stages[0].id)["attempt"] == "far", "the beat went on"
    now[0] += claims.STALE_S + 1
    assert waiter.take(stages[0].id) is None


def test_the_beat_goes_on_while_a_stage_is_held(store, stages, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    beats = set()
    with Claims(store, "one") as one:
        assert one.take(stages[0].id) is None
        while len(beats) < 3:
            beats.add(content(store, stages[0])["beat"])
    assert store.names(store.path("claims")) == []


def test_claims_on_what_is_done_are_swept(store, stages):
    done, open_one = stages[:2]
    for stage in (done, open_one):
        claim = {"attempt": "killed", "machine": "x", "pid": 1, "started": "1"}
        store.write_json(store.path("claims", f"{stage.id}.json"), claim)
    commit(store, done)
    with Claims(store, "one") as one:
        one.remove_stale()
    assert store.names(store.path("claims")) == [f"{open_one.id}.json"]


def test_another_users_process_is_not_taken_for_dead(store, stages, monkeypatch):
    def refuse(pid, signal):
        raise PermissionError

    with Claims(store, "theirs") as theirs:
        assert theirs.take(stages[0].id) is None
        monkeypatch.setattr(claims.os, "kill", refuse)
        assert Claims(store, "ours").take(stages[0].id)["attempt"] == "theirs"


def test_two_that_find_the_same_dead_claim_do_not_both_hold_it(store, stages, monkeypatch):
    path = store.path("claims", f"{stages[0].id}.json")
    one, two = Claims(store, "one"), Claims(store, "two")
    store.write_json(path, one.holder | {"attempt": "dead", "pid": 2**22 + 1, "beat": 0})
    find = one._is_stale

    def overtaken(what, data):
        found = find(what, data)
        monkeypatch.setattr(one, "_is_stale", find)
        assert two.take(stages[0].id) is None
        return found

    monkeypatch.setattr(one, "_is_stale", overtaken)
    assert one.take(stages[0].id) is not None
    assert content(store, stages[0])["attempt"] == "two"
