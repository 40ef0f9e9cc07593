"""`wsss-ray verify` reads everything: every flipped bit is found, and what it removes comes back with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.damage import copy_of, files_of, flipped, mend, part, torn
from tests.local import stage_named
from tests.s3_server import serving
from wsss_ray.cli import app
from wsss_ray.core.errors import DamagedFile
from wsss_ray.engine.checkpoints import load_checkpoint
from wsss_ray.engine.networks import load_model
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.documents import RECORD, parse, serialised
from wsss_ray.storage.finished import Finished, StageId
from wsss_ray.storage.shards import digests_of, read_shard
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.verify import Verification
from wsss_ray.storage.wholeness import examine

ARTIFACTS = {
    "images": ("images-weak", "shards/part-00001.parquet", "images"),
    "maps": ("maps", "shards/part-00001.parquet", "maps"),
    "seeds": ("seeds", "shards/part-00001.parquet", "seeds"),
    "scores": ("miou", "shards/part-00000.parquet", "scores"),
    "checkpoint": ("classifier", "checkpoints/step-00000012.pt", None),
    "model": ("retrain", "model.safetensors", None),
    "log": ("retrain", "metrics.jsonl", None),
    "record": ("miou", "record.json", None),
}


def verify(capsys, store: RunStore, *options: str, damaged: bool) -> dict:
    """What the command finds, as JSON."""
    try:
        app(["verify", "tiny", "--json", "--store", store.uri, *options], standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = end.code
    out = capsys.readouterr()
    assert code == (2 if damaged else 0), out.err
    return json.loads(out.out)


def use(store: RunStore, stage, name: str, schema: str | None) -> None:
    """Read a file as the program does where a digest is at hand."""
    if schema is not None:
        read_shard(store, stage, int(name[-9:-8]), schema, digests=digests_of(store, stage))
    elif name == "record.json":
        store.record(stage)
    elif name.endswith(".pt"):
        load_checkpoint(store, stage, 12, "cpu")
    elif name.endswith(".safetensors"):
        load_model(store, stage, "cpu")


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found(whole, tmp_path, artifact, count):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    name, file, schema = ARTIFACTS[artifact]
    stage = stage_named(plan, name)
    path = part(store, stage, file)
    data, served = path.read_bytes(), 0
    for changed in flipped(data, count, seed=5):
        path.write_bytes(changed)
        (found,) = Verification(store, [stage.id]).run()
        assert found.is_damaged
        assert [one.path for one in found.findings] == [str(path)]
        said = ""
        try:
            use(store, stage, file, schema)
            served += 1
        except DamagedFile as error:
            said = str(error)
        assert said.startswith(str(path)) or not said
    assert served == {"log": count}.get(artifact, 0) or artifact == "record", f"{served} of {count} in silence"


def test_what_is_torn_is_found_and_comes_back(whole, tmp_path, capsys):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    before = files_of(store)
    for name, file, _ in ARTIFACTS.values():
        path = part(store, stage_named(plan, name), file)
        for data in torn(path.read_bytes())[::3]:
            path.write_bytes(data)
            found = verify(capsys, store, damaged=True)
            assert {one["stage"] for one in found["findings"] if one["kind"] == "damaged"} == {stage_named(plan, name).id}
            verify(capsys, store, "--repair", damaged=False)
            mend(store, plan)
            assert files_of(store) == before, file
            assert verify(capsys, store, damaged=False)["findings"] == []


def test_the_command_says_what_it_found(whole, tmp_path, capsys):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    seeds, old = stage_named(plan, "seeds"), stage_named(plan, "relabel")
    path = part(store, seeds)
    path.write_bytes(next(flipped(path.read_bytes(), 1, seed=1)))
    strange = part(store, seeds, "shards/part-00001 (copy).parquet")
    strange.write_bytes(b"?")
    part(store, seeds, "link").symlink_to(tmp_path)
    record = {name: value for name, value in store.record(old).items() if name not in ("files", "made_from", "digest")}
    store.write_json(store.stage_path(old, "record.json"), record)
    Path(store.run_path("tiny", "job.yaml")).write_text("name: other\n")
    found = verify(capsys, store, damaged=True)
    kinds = {(one["kind"], one["path"]) for one in found["findings"]}
    assert kinds == {
        ("damaged", str(path)),
        ("damaged", store.run_path("tiny", "job.yaml")),
        ("stranger", str(strange)),
        ("stranger", f"{store.stage_path(seeds)}/link"),
        ("old", f"{store.stage_path(old)}/record.json"),
    }
    states = {one["name"]: one["state"] for one in found["stages"]}
    assert (states["seeds"], states["relabel"], states["maps"]) == ("damaged", "old", "whole")
    with pytest.raises(SystemExit) as end:
        app(["verify", "tiny", "--store", store.uri], standalone_mode=False)
    out = capsys.readouterr()
    assert end.value.code == 2
    assert f"damaged: {path}: has other bytes than were written" in out.out
    assert "verify tiny --repair" in out.err
    assert strange.exists()


def test_what_another_process_makes_is_left_alone(whole, tmp_path):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    stage = stage_named(plan, "seeds")
    path = part(store, stage)
    path.write_bytes(b"")
    work = Verification(store, [stage.id])
    (found,) = work.run()
    with Claims(store, "other") as other, Claims(store, "one") as one:
        assert other.take(stage.id) is None
        assert work.repair(found, one) == [f"{store.stage_path(stage)}: is left alone, because other is making it."]
        assert path.exists()
        other.free(stage.id)
        assert work.repair(found, one)[0].startswith(str(path))
    assert not path.exists()
    assert store.record(stage) is None


def test_an_unfinished_stage_is_read_too(whole, tmp_path):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    stage = stage_named(plan, "classifier")
    store.delete(store.stage_path(stage, "record.json"))
    for data in torn(part(store, stage, "checkpoints/step-00000012.pt").read_bytes()):
        part(store, stage, "checkpoints/step-00000012.pt").write_bytes(data)
        (found,) = Verification(store, [stage.id]).run()
        assert [Path(one.path).name for one in found.findings] == ["step-00000012.pt"]
    for name in ("model.safetensors", "metrics.jsonl"):
        for data in torn(part(store, stage, name).read_bytes())[:-2]:
            part(store, stage, name).write_bytes(data)
            wrong = examine(store, StageId(stage.id), name)[1]
            assert (wrong is None) == (name == "metrics.jsonl" and (not data or data.endswith(b"\n"))), data


def test_a_record_is_compared_byte_by_byte(whole):
    store, plan = whole
    for stage in plan:
        data = store.read(store.stage_path(stage, "record.json"))
        assert serialised(parse(data, "record.json", RECORD)) == data


def test_a_store_on_s3_is_verified_and_repaired(whole, capsys, monkeypatch):
    with serving() as endpoint:
        s3, plan = RunStore(f"s3://data/runs?endpoint_override={endpoint}&scheme=http"), whole[1]
        local = whole[0]
        for name in local.sizes(local.path()):
            s3.write(s3.path(*name.split("/")), local.read(local.path(*name.split("/"))))
        assert verify(capsys, s3, damaged=False)["findings"] == []
        assert all(map(Finished(s3).is_done, plan))
        seeds, model = stage_named(plan, "seeds"), stage_named(plan, "retrain")
        path = s3.stage_path(seeds, "shards", "part-00001.parquet")
        s3.write(path, next(flipped(s3.read(path), 1, seed=2)))
        s3.delete(s3.stage_path(model, "model.safetensors"))
        assert [stage.name for stage in plan if not s3.is_done(stage)] == ["retrain", "miou"]
        found = verify(capsys, s3, "--repair", damaged=False)
        assert len(found["repaired"]) == 2
        assert sorted(mend(s3, plan)[1]) == ["retrain", "seeds"]
        assert verify(capsys, s3, damaged=False)["findings"] == []
        assert s3.read(path) == local.read(local.stage_path(seeds, "shards", "part-00001.parquet"))
