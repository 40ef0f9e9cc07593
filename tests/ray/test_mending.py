"""A submit mends a damaged store on Ray: it ends in the bytes of an undamaged run, and says what it found."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.damage import copy_of, files_of, part
from tests.local import job_of, stage_named, whole_run
from tests.shapes import tiny_job
from wsss_ray.reporting.progress import Display
from wsss_ray.reporting.remaining import keep_expected
from wsss_ray.runners.execute import execute
from wsss_ray.storage.verify import Verification

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_submit_mends_what_is_damaged_and_makes_nothing_else(ray_session, tmp_path):
    spec = tiny_job(run={"cpus_per_worker": 1, "checkpoint_every": 4, "log_every": 1})
    clean, plan = whole_run(tmp_path / "clean", spec)
    store = copy_of(clean, tmp_path / "runs")
    before = files_of(clean)
    for shard in (0, 2):
        part(store, stage_named(plan, "images-weak"), f"shards/part-{shard:05d}.parquet").unlink()
    model = part(store, stage_named(plan, "segmenter"), "model.safetensors")
    model.write_bytes(model.read_bytes()[:-7])
    Path(store.stage_path(stage_named(plan, "retrain"), "record.json")).unlink()  # an unfinished training
    newest = part(store, stage_named(plan, "retrain"), "checkpoints/step-00000006.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    Path(store.stage_path(stage_named(plan, "maps"), "record.json")).unlink()  # unfinished shards
    part(store, stage_named(plan, "maps"), "shards/part-00001.parquet").write_bytes(b"")
    seeds = part(store, stage_named(plan, "seeds"), "shards/part-00001.parquet")
    flipped = bytearray(seeds.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    seeds.write_bytes(flipped)
    part(store, stage_named(plan, "seeds"), "record.json").write_text("[]")

    keep_expected(store, job_of(spec).name, {stage.id: 60.0 for stage in plan})
    said = io.StringIO()
    execute(job_of(spec), plan, store, Display(Console(file=said, width=400)))
    lines = said.getvalue()
    assert files_of(store) == before
    assert all(map(store.is_done, plan))
    assert sorted({line.split()[0] for line in lines.splitlines() if ", " in line and line.split()[1].count("-") == 1}) == sorted(
        ["images-weak", "maps", "seeds", "segmenter", "retrain"]
    ), "the classifier, for one, is not trained again"
    assert [line for line in lines.splitlines() if line.startswith("maps, seeds: starting ")], "one line for the chain"
    assert not [line for line in lines.splitlines() if line.startswith(("maps: ", "seeds: "))], lines
    rest = [line for line in lines.splitlines() if line.startswith("whole job ")]
    assert rest[0] == "whole job        about 4 min left", "of images, maps, seeds and the second training"
    assert len(rest) >= 3, "again after each stage"
    for path in (model, newest, seeds):
        assert any(str(path) in line and "made again" in line for line in lines.splitlines()), lines
    assert not [one.line for found in Verification(store, [stage.id for stage in plan]).run() for one in found.findings]
