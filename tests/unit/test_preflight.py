"""What can't be met is said before the start, with the numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.local import job_of, stage_named
from tests.shapes import tiny_job
from wsss_ray.config.run import Execution
from wsss_ray.engine.records import StageError
from wsss_ray.runners.admission import estimate_bytes, look_from_here, preflight, training_share
from wsss_ray.runners.cluster import Node, Resources
from wsss_ray.storage.store import RunStore


def cluster(*cpus, gpus=(), **fields):
    found = [Node(str(k), f"10.0.0.{k}", cpu, dict(enumerate(gpus)).get(k, 0)) for k, cpu in enumerate(cpus)]
    return Resources(nodes=tuple(found), **fields)


def checked(store, stages, run, have):
    probe = store.path("runs", "r", "run.json")
    store.write_json(probe, {"submitted": 5.0})
    return preflight(store, stages, run, have, probe=probe)


def share(have, **run):
    found = training_share(Execution(**run), have)
    return found.workers, found.cpus, found.gpu


def test_cpus_are_divided_and_one_is_left():
    assert share(cluster(8)) == ((1, 1), 7, False)
    assert share(cluster(8), workers=3) == ((3, 3), 2, False)
    assert share(cluster(8), workers=(1, 3)) == ((1, 3), 2, False)
    assert share(cluster(4, 4, 4), workers=2) == ((2, 2), 4, False), "a worker is on one machine"
    assert share(cluster(4, 16, 16, gpus=(0, 4, 2)), workers=6) == ((6, 6), 4, True)
    assert share(cluster(8, 8), workers=3) == ((3, 3), 4, False), "as many as find a place"
    assert share(cluster(9, at_once=2), workers=(1, 9), cpus_per_worker=2) == ((1, 2), 2, False), "no more than its part"
    assert share(cluster(9, at_once=2), workers=2) == ((2, 2), 2, False), "two trials at once have half each"


@pytest.mark.parametrize(
    ("have", "run", "message"),
    [
        (cluster(4), {"workers": 4, "cpus_per_worker": 1}, "run.workers = 4 needs 4 CPUs, there are 3 and 0; lower run.workers"),
        (cluster(8, gpus=(1,)), {"workers": 2}, "run.workers = 2 needs .* CPUs and 2 GPUs, there are 7 and 1"),
        (cluster(9, at_once=4), {"workers": 3, "cpus_per_worker": 1}, r"there are 2 and 0 \(a sweep runs 4 trials at once"),
        (cluster(4, at_once=8), {"workers": 1, "cpus_per_worker": 1}, r"there are 0\.375 and 0 .*; lower sweep\.max_c"),
        (cluster(2, 2, 2), {"workers": 1, "cpus_per_worker": 4}, "find only 0 places: the largest machine has 2 CPUs"),
        (cluster(4, 4), {"workers": [3, 9], "cpus_per_worker": 3}, "needs 9 CPUs, there are 7"),
    ],
)
def test_too_little_is_said_with_the_numbers(have, run, message):
    with pytest.raises(ValueError, match=message):
        training_share(Execution(**run), have)


@pytest.fixture
def stages():
    return job_of(tiny_job()).plan().stages


def test_a_gpu_that_is_not_there(stages, tmp_path):
    with pytest.raises(StageError, match=r"before the start: run\.gpu is true and there is no GPU") as raised:
        checked(RunStore(str(tmp_path)), stages, Execution(gpu=True), cluster(4))
    assert raised.value.stages == tuple(stage.id for stage in stages)


def test_a_full_disk_is_foreseen(stages, tmp_path, monkeypatch):
    import wsss_ray.runners.admission as module

    big = [stage_named(job_of(tiny_job()).plan(), "maps")]
    assert estimate_bytes(RunStore(str(tmp_path)), big) == 24 * 30_000
    monkeypatch.setattr(module, "_MAP_BYTES", 10**15)
    with pytest.raises(StageError, match=r"has [\d.]+ GB free, the missing stages may need 24000000.0 GB"):
        checked(RunStore(str(tmp_path / "not" / "there")), big, Execution(), cluster(4))


def test_a_small_object_store(stages, tmp_path):
    with pytest.raises(StageError, match="object store has 10 MB, at least 70 MB are needed"):
        checked(RunStore(str(tmp_path)), stages, Execution(), cluster(4, object_store=1e7))


def test_all_is_well_and_nothing_is_left_behind(stages, tmp_path):
    store = RunStore(str(tmp_path / "runs"))
    have = cluster(4, object_store=1e9)
    assert checked(store, stages, Execution(), have) is have
    assert [file.name for file in Path(store.uri).rglob("*") if file.is_file()] == ["run.json"]


def test_what_a_machine_sees_of_the_store_and_the_data(tmp_path):
    from wsss_ray.core.plan import Stage

    store = RunStore(str(tmp_path / "runs"))
    store.write_json(store.path("probe"), {"submitted": 5.0})
    assert look_from_here(store, store.path("probe"), 5.0, []) is None
    assert re.search("does not see the store .*runs; give a folder", look_from_here(store, store.path("probe"), 5.1, []))
    assert re.search("does not see the store", look_from_here(store, store.path("nowhere"), 5.0, []))
    split = job_of(tiny_job()).plan().stages[0].component
    (tmp_path / "a.png").write_bytes(b"x")
    seen = split.model_copy(update={"samples": (str(tmp_path / "a.png"),)})
    ingest = Stage("ingest", "images-weak", seen)
    assert look_from_here(store, store.path("probe"), 4.0, [ingest]) is None
    os.remove(tmp_path / "a.png")
    assert re.search(r"does not see .*a\.png of images-weak", look_from_here(store, store.path("probe"), 4.0, [ingest]))
