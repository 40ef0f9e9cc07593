"""Every JSON file of the store that is not what it should be is one line with its path, and blocks nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.local import commit, job_of
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.core.errors import DamagedFile
from wsss_ray.engine.failures import failure_of
from wsss_ray.storage import claims, documents
from wsss_ray.storage.claims import Claims, read_claim
from wsss_ray.storage.documents import parse
from wsss_ray.storage.store import RunStore

BAD = {
    "a list": b"[]",
    "empty": b"{}",
    "null": b"null",
    "a number": b"1",
    "nothing": b"",
    "cut": b'{"stages": [',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a long number": b"9" * 5000,
    "not UTF-8": b'{"\xff": 1}',
    "other types": b'{"stages": {"id": 1}, "inputs": 3, "counts": [], "name": 4, "total": "many", "attempt": {}, "steps": []}',
    "bad stages": b'{"name": "a", "stages": [1, {}], "total": null, "newest": true, "submitted": {}, "error": 1, "attempt": 2}',
}
DOCUMENTS = {name: one for name, one in vars(documents).items() if isinstance(one, documents.Document)}


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def plan():
    return job_of(tiny_job()).plan()


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_bad_document_is_one_line(name, data):
    with pytest.raises(DamagedFile, match=r"^/runs/x\.json: is damaged \(.*\)\. [A-Z]") as caught:
        parse(data, "/runs/x.json", DOCUMENTS[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_stage_with_a_bad_record_is_not_done(store, plan, data):
    stage = plan.stages[0]
    store.write(store.stage_path(stage, "record.json"), data)
    assert not store.is_done(stage)
    with pytest.raises(DamagedFile, match=r"record\.json: is damaged"):
        store.record(stage)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("counts"),
        lambda record: record["metrics"].clear(),
        lambda record: record["metrics"].update(miou=float("nan")),
        lambda record: record["metrics"].update(more=[{"deep": float("-inf")}]),
        lambda record: record["counts"].pop("shards"),
        lambda record: record.update(inputs=[["data"]]),
        lambda record: record.update(started="2001-99-99"),
        lambda record: record["files"].append({"name": "shards/part-00009.parquet", "size": 1, "sha256": "0"}),
    ],
)
def test_an_evaluate_record_must_say_what_others_read(store, plan, change):
    stage = plan.stages[-1]
    metrics = {"miou": 0.5, "precision": None, "recall": 0.1, "coverage": 1.0, "scored": 3}
    commit(store, stage, metrics=metrics)
    assert store.is_done(stage)
    record = store.record(stage)
    change(record)
    store.write_json(store.stage_path(stage, "record.json"), documents.digested(record))
    assert not store.is_done(stage)


@pytest.mark.parametrize("data", [*BAD.values(), b'{"attempt": "x", "pid": 99999999999999999999, "machine": "MACHINE"}'])
def test_a_bad_claim_blocks_a_stage_only_until_it_is_stale(store, monkeypatch, data):
    path, now = store.path("claims", "train-0123456789abcdef.json"), [1000.0]
    store.write(path, data.replace(b"MACHINE", claims._machine().encode()))
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    waiter = Claims(store, "waiter")
    assert waiter.take("train-0123456789abcdef") is not None
    read_claim(store, "train-0123456789abcdef")
    waiter.remove_stale()
    now[0] += claims.STALE_S + 1
    assert waiter.take("train-0123456789abcdef") is None
    assert json.loads(store.read(path))["attempt"] == "waiter"


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_commands_name_a_bad_run_and_list_the_others(store, plan, capsys, data):
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    store.write_json(store.run_path("good", "run.json"), {"name": "good", "stages": stages})
    store.write(store.run_path("bad", "run.json"), data)
    app(["status", "--store", store.uri], standalone_mode=False)
    out = capsys.readouterr().out
    assert f"bad: damaged: {store.run_path('bad', 'run.json')}: is damaged" in out
    assert "good " in out
    for command in (["show", "bad"], ["status", "bad"], ["verify", "bad"], ["export", "bad", "--format", "voc"]):
        with pytest.raises((DamagedFile, SystemExit)) as caught:  # main() prints the first in one line too
            app([*command, "--store", store.uri], standalone_mode=False)
        said = capsys.readouterr().err + str(caught.value)
        assert "run.json: is damaged" in said
    store.write(store.stage_path(plan.stages[0], "failure.json"), data)
    assert "failure.json: is damaged" in failure_of(store, plan.stages[0].id)["error"]


@pytest.mark.parametrize("change", [{"kind": "train"}, {"id": "seed"}, {"work": -1}])
def test_a_stage_of_a_run_has_the_kind_of_its_id_and_work_to_do(store, plan, capsys, change):
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind, "work": 3} for stage in plan]
    store.write_json(store.run_path("good", "run.json"), {"name": "good", "stages": stages})
    place = next(k for k, stage in enumerate(stages) if stage["kind"] == "seed")
    stages[place] |= change
    for name, more in (("bad", {}), ("bad/attempts", {"first": 1.0, "text": None})):
        store.write_json(store.path("runs", name, "run.json"), {"name": "bad", "stages": stages} | more)
    app(["status", "--store", store.uri], standalone_mode=False)
    out = capsys.readouterr().out
    field = "work" if "work" in change else "kind"
    assert f"bad: damaged: {store.run_path('bad', 'run.json')}: is damaged (stages[{place}].{field}: is n" in out
    assert "good " in out
    with pytest.raises(DamagedFile, match=field):
        store.read_json(store.run_path("bad", "attempts", "run.json"), documents.ATTEMPT)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["claims", "runs", "runs/tiny", "stages", "STAGE", "STAGE/shards", "STAGE/record.json"])
def test_no_link_is_followed(tmp_path, plan, place):
    """For reading, writing or deleting: the store's own root may be a link, nothing below it."""
    stage, outside = plan.stages[0], tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    for name in ("a.json", "deep/b.json", "part-00000.parquet", "record.json", ".tmp-old", f"{stage.id}.json", "run.json"):
        (outside / name).write_text("{}")
    (tmp_path / "real").mkdir()
    (tmp_path / "runs").symlink_to("real")
    store = RunStore(str(tmp_path / "runs"))
    store.write(store.path("runs", "fine.txt"), b"the root may be a link")
    (tmp_path / "real/runs/fine.txt").unlink()
    (tmp_path / "real/runs").rmdir()
    link = Path(store.path(*place.replace("STAGE", f"stages/{stage.id}").split("/")))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "record.json" if place.endswith("record.json") else outside, target_is_directory=True)
    before = tree(outside)
    inside = {"claims": "claims", "runs": "runs/tiny", "runs/tiny": "runs/tiny"}.get(place, f"stages/{stage.id}/shards")
    path = str(link) if place.endswith("record.json") else store.path(*inside.split("/"), "part-00000.parquet")
    for attempt in (
        lambda: store.read(path),
        lambda: store.open(path),
        lambda: store.exists(path),
        lambda: store.info(path),
        lambda: store.write(path, b"x"),
        lambda: store.delete(path),
        lambda: store.delete_folder(os.path.dirname(path) if not place.endswith(".json") else path),
        lambda: store.names(path),
        lambda: store.sizes(path),
        lambda: store.files(path),
    ):
        with pytest.raises(DamagedFile, match=f"^{link}: is a link, and a store follows none"):
            attempt()
    if place == "claims":
        for step in (lambda one: one.take(stage.id), lambda one: one.remove_stale()):
            with pytest.raises(DamagedFile, match="is a link"), Claims(store, "one") as one:
                step(one)
    assert tree(outside) == before
    assert not store.is_local or link.is_symlink()
