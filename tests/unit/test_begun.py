"""A stage that goes on keeps what it has, as far as that is whole and made from what there is now."""

from __future__ import annotations

from pathlib import Path

from tests.damage import part
from tests.local import commit, recommit, stage_named
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.storage.begun import Begun
from wsss_ray.storage.shards import present_shards
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.verify import Verification


def unfinished(store: RunStore, plan: Plan, name: str) -> tuple[Stage, list[str], Begun]:
    """A stage that has all its shards and a note about them, but no record; and the ids of its inputs."""
    stage = stage_named(plan, name)
    sources = [source.id for _, source in stage.inputs]
    Path(store.stage_path(stage, "record.json")).unlink()
    return stage, sources, Begun(store, stage, sources)


def test_a_stage_that_goes_on_reads_only_what_its_note_does_not_know(run):
    store, plan = run
    stage, sources, begun = unfinished(store, plan, "maps")
    assert sorted(begun.known) == [f"shards/part-{shard:05d}.parquet" for shard in range(3)]
    path = part(store, stage)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    again = Begun(store, stage, sources)
    assert (again.known, again.lines, again.anew) == (begun.known, [], False), "its size is right"
    commit(store, stage, known=again.known)
    assert not part(store, stage, "begun.json").exists()
    (found,) = Verification(store, [stage.id]).run()
    assert [one.path for one in found.findings] == [str(path)], "the digest is that of what was written"
    stage, sources, _ = unfinished(store, plan, "maps")
    part(store, stage, "shards/part-00002.parquet").write_bytes(b"PAR1")
    assert [line.partition(": ")[0] for line in Begun(store, stage, sources).lines] == [
        store.stage_path(stage, "shards", "part-00002.parquet")
    ]
    part(store, stage, "begun.json").write_text("[]")
    assert Begun(store, stage, sources).lines == []


def test_what_an_unfinished_stage_made_from_an_input_that_changed_is_made_again(run):
    store, plan = run
    stage, sources, _ = unfinished(store, plan, "maps")
    model = part(store, stage.input("model"), "model.safetensors")
    model.write_bytes(part(store, stage_named(plan, "segmenter"), "model.safetensors").read_bytes())
    recommit(store, stage.input("model"))
    begun = Begun(store, stage, sources)
    assert begun.anew
    assert "3 files were made from another train-" in begun.lines[0]
    assert present_shards(store, stage) == []
    assert Begun(store, stage, sources).lines == []
    later = unfinished(store, plan, "seeds")[0]
    assert "from damaged files" in Begun(store, later, [stage.id], anew=True).lines[0]
    assert present_shards(store, later) == []
