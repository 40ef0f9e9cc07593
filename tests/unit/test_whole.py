"""A stage is done only while everything that its record lists is there; what is lost or damaged is made again, or named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.damage import copy_of, files_of, mend, part, torn
from tests.local import commit, recommit, run_stage, stage_named, train_stage
from tests.told import error_line
from wsss_ray.cli import app
from wsss_ray.core.errors import DamagedFile
from wsss_ray.engine.checkpoints import steps
from wsss_ray.engine.networks import load_model
from wsss_ray.engine.training_log import read_log
from wsss_ray.inference.trained import find_trained
from wsss_ray.reporting.report import build
from wsss_ray.reporting.status import run_status
from wsss_ray.storage.finished import Finished, content_of
from wsss_ray.storage.shards import list_shards, present_shards, read_shard, shard_path
from wsss_ray.storage.wholeness import remove_damaged


def told(capsys, *command: str) -> str:
    """The one line in which a command ends."""
    return error_line(capsys, lambda: app([*command], standalone_mode=False))


def test_a_record_lists_every_file_and_what_was_read(whole):
    store, plan = whole
    for stage in plan:
        record = store.record(stage)
        folder = Path(store.stage_path(stage))
        there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        assert {one["name"]: one["size"] for one in record["files"]} == {n: s for n, s in there.items() if n != "record.json"}
        assert set(record["made_from"]) == {source.id for _, source in stage.inputs}
        assert all(record["made_from"][source.id] == content_of(store.record(source)) for _, source in stage.inputs)
    assert all(map(store.is_done, plan))


def test_a_record_is_the_same_whoever_takes_the_digests(whole, tmp_path):
    store, plan = copy_of(whole[0], tmp_path / "runs"), whole[1]
    for stage in plan:
        before = store.record(stage)
        recommit(store, stage)  # all files are read
        assert store.record(stage) == before


@pytest.mark.parametrize("lost", [3, 1], ids=["all", "one"])
@pytest.mark.parametrize(("name", "waiting"), [("images-weak", 10), ("seeds", 6), ("miou", 0)])
def test_lost_shards_are_made_again_and_nothing_else(run, name, waiting, lost):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, name)
    for shard in list_shards(store, stage)[:lost]:
        Path(shard_path(store, stage, shard)).unlink()
    finished = Finished(store)
    assert "part-00000.parquet is missing" in finished.state(stage.id).damage
    assert not finished.is_done(stage)
    assert sum(not finished.is_done(other) for other in plan) == 1 + waiting, "what reads it is not done either"
    assert mend(store, plan)[1] == [name]
    assert files_of(store) == before
    assert all(map(store.is_done, plan))


@pytest.mark.parametrize("tear", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])], ids=["lost", "cut"])
def test_lost_weights_come_back_from_the_last_checkpoint(run, tear):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, "retrain")
    tear(part(store, stage, "model.safetensors"))
    said, made = mend(store, plan)
    assert made == ["retrain"]
    assert any("model.safetensors: " in line and line.endswith("It is made again.") for line in said)
    assert files_of(store) == before


def test_an_input_with_other_bytes_makes_what_was_made_from_it_undone(run):
    store, plan = run
    data, weak = stage_named(plan, "images-val"), stage_named(plan, "images-weak")
    for shard in present_shards(store, data):
        path = Path(shard_path(store, data, shard))
        path.write_bytes(Path(shard_path(store, weak, shard)).read_bytes())
    recommit(store, data)
    undone = [stage for stage in plan if not store.is_done(stage)]
    assert {stage.name for stage in undone} == {"tag_quality", "miou"}
    assert all("was made from another" in Finished(store).state(stage.id).stale for stage in undone)
    stale = stage_named(plan, "miou")
    before = store.record(stale)["metrics"]
    assert set(mend(store, plan)[1]) == {"tag_quality", "miou"}
    assert store.record(stale)["metrics"] != before, "it was made from what is there now"


def test_an_input_that_was_deleted_as_a_whole_is_no_damage(run):
    store, plan = run
    store.delete_folder(store.stage_path(stage_named(plan, "maps")))
    assert [stage.name for stage in plan if not store.is_done(stage)] == ["maps"]
    store.delete_folder(store.stage_path(stage_named(plan, "classifier"), "checkpoints"))
    assert store.is_done(stage_named(plan, "classifier")), "nothing goes on from its checkpoints"


def test_a_record_of_an_older_version_is_read_and_its_shards_are_counted(run):
    store, plan = run
    stage = stage_named(plan, "seeds")
    old = {name: value for name, value in store.record(stage).items() if name not in ("files", "made_from", "digest")}
    store.write_json(store.stage_path(stage, "record.json"), old)
    assert all(map(store.is_done, plan))
    assert len(read_shard(store, stage, 0, "seeds")) == 8
    Path(shard_path(store, stage, 2)).unlink()
    assert "1 of 3 shards are missing" in Finished(store).state(stage.id).damage
    assert mend(store, plan)[1] == ["seeds"]
    assert "files" in store.record(stage)


def test_a_torn_shard_of_an_unfinished_stage_is_made_again(run):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, "maps")
    path = Path(shard_path(store, stage, 1))
    for data in torn(path.read_bytes()):
        Path(store.stage_path(stage, "record.json")).unlink(missing_ok=True)
        path.write_bytes(data)
        said, made = mend(store, plan)
        assert made == ["maps"]
        assert [line.partition(": ")[0] for line in said] == [str(path)]
    assert files_of(store) == before


def test_the_newest_whole_checkpoint_is_taken(run):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, "classifier")
    newest = part(store, stage, "checkpoints/step-00000012.pt")
    for data in torn(newest.read_bytes()):
        Path(store.stage_path(stage, "record.json")).unlink(missing_ok=True)
        newest.write_bytes(data)
        said = remove_damaged(store, stage, {})[1]
        assert [line.partition(": ")[0] for line in said] == [str(newest)]
        assert steps(store, stage) == [8]
        run_stage(store, stage)
        assert files_of(store) == before
    Path(store.stage_path(stage, "record.json")).unlink()
    for step in steps(store, stage):
        part(store, stage, f"checkpoints/step-{step:08d}.pt").write_bytes(b"PK\3\4")
    assert mend(store, plan)[1] == ["classifier"]
    assert files_of(store) == before


def test_a_log_is_cut_at_its_first_bad_line(run):
    store, plan = run
    stage = stage_named(plan, "classifier")
    path = part(store, stage, "metrics.jsonl")
    for data in [*torn(path.read_bytes()), b'{"step": 2}\n[]\n{"step": 4}\n', b"\xff\n", b'{"step": "1"}\n', b"[" * 100_000]:
        path.write_bytes(data)
        assert run_status(store, "tiny").state in ("done", "damaged"), "it is only read"
        read_log(store, stage.id)
        Path(store.stage_path(stage, "record.json")).unlink(missing_ok=True)
        remove_damaged(store, stage, {})
        kept = path.read_bytes()
        assert data.startswith(kept)
        assert remove_damaged(store, stage, {})[1] == []
        train_stage(store, stage)
        commit(store, stage)


def test_a_damaged_run_has_a_report_that_says_so(run):
    store, plan = run
    flip = part(store, stage_named(plan, "images-val"))
    data = bytearray(flip.read_bytes())
    for place in range(len(data) // 2, 0, -500):
        data[place] ^= 1
    flip.write_bytes(data)
    part(store, stage_named(plan, "seeds")).unlink()
    part(store, stage_named(plan, "maps"), "record.json").write_text("{}")
    damage: list[str] = []
    page = build(store, "tiny", plan, "name: tiny", damage=damage).decode()
    named = [str(flip), store.stage_path(stage_named(plan, "seeds")), store.stage_path(stage_named(plan, "maps"))]
    assert all(any(line.startswith(path) for line in damage) for path in named), damage
    assert all(path in page for path in named)
    assert page.count(">damaged<") >= 2


def test_what_is_read_as_a_whole_is_compared(run, capsys, tmp_path):
    store, plan = run
    for name, file in (("seeds", "shards/part-00001.parquet"), ("retrain", "model.safetensors")):
        path = part(store, stage_named(plan, name), file)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes(data)
    seeds, out = part(store, stage_named(plan, "seeds"), "shards/part-00001.parquet"), str(tmp_path / "labels")
    said = told(capsys, "export", "tiny", "--stage", "seeds", "--format", "voc", "--out", out, "--store", store.uri)
    assert said.startswith(f"error: {seeds}: is damaged")
    assert "verify RUN --repair" in said
    with pytest.raises(DamagedFile, match=r"model\.safetensors: is damaged"):
        load_model(store, stage_named(plan, "retrain"), "cpu")
    with pytest.raises(ValueError, match=r"model\.safetensors: is damaged"):
        find_trained("tiny", store.uri).weights()


def test_a_lost_shard_is_not_left_out_of_an_export(run, capsys, tmp_path):
    store, plan = run
    part(store, stage_named(plan, "seeds"), "shards/part-00001.parquet").unlink()
    out = str(tmp_path / "labels")
    said = told(capsys, "export", "tiny", "--stage", "seeds", "--format", "voc", "--out", out, "--store", store.uri)
    assert "shards/part-00001.parquet is missing" in said
    app(["show", "tiny", "--store", store.uri], standalone_mode=False)
    app(["status", "tiny", "--store", store.uri], standalone_mode=False)
    shown = capsys.readouterr().out
    assert shown.count("shards/part-00001.parquet is missing") == 2


def test_strangers_are_left_alone(run):
    store, plan = run
    stage = stage_named(plan, "seeds")
    strange = [part(store, stage, f"shards/{name}") for name in ("part-00001 (copy).parquet", "part-00077.parquet", "notes.txt")]
    for path in strange:
        path.write_bytes(part(store, stage).read_bytes())
    assert list_shards(store, stage) == [0, 1, 2]
    assert store.is_done(stage)
    part(store, stage).unlink()
    assert mend(store, plan)[1] == ["seeds"]
    assert store.record(stage)["counts"]["shards"] == 3
    assert list_shards(store, stage) == [0, 1, 2]
    assert all(path.exists() for path in strange)
    os.rename(part(store, stage), part(store, stage, "shards/part-00000.parquet.bak"))
    assert not store.is_done(stage)


def test_a_record_of_another_stage_is_none(run):
    store, plan = run
    one, other = stage_named(plan, "relabel"), stage_named(plan, "seeds")
    part(store, one, "record.json").write_bytes(part(store, other, "record.json").read_bytes())
    assert f"is the record of {other.id}" in Finished(store).state(one.id).damage
    before = files_of(store)
    assert mend(store, plan)[1] == ["relabel"]
    assert files_of(store) == before


def test_records_in_a_circle_are_made_again(run):
    store, plan = run
    seeds, quality = stage_named(plan, "seeds"), stage_named(plan, "seed_quality")
    recommit(store, seeds, inputs=[["data", quality.id], ["maps", seeds.id]])
    assert not store.is_done(seeds)
    assert "seeds" in mend(store, plan)[1]
    assert all(map(store.is_done, plan))
    assert store.record(seeds)["inputs"] == [[role, stage.id] for role, stage in seeds.inputs]
