"""The store: whole files or none, records last, Parquet that anyone reads, and no other version's files."""

from __future__ import annotations

import io
from typing import get_args

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Kind, Stage
from wsss_ray.core.rules import SeedScore
from wsss_ray.core.values import Axis, Maps
from wsss_ray.data.codecs import decode_gray, decode_maps, decode_rgb, encode_labels, encode_maps
from wsss_ray.storage import schemas
from wsss_ray.storage.shards import list_shards, read_shard, shard_path, write_shard
from wsss_ray.storage.store import STAGE_ID, RunStore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = RunStore(str(tmp_path_factory.mktemp("store")))
    plan = job_of(tiny_job()).plan()
    run_plan(store, plan, last="seeds")
    return store, plan


def test_a_uri_is_a_store_too(tmp_path):
    store = RunStore(f"file://{tmp_path}/runs")
    store.write(store.path("a", "b.txt"), b"x")
    assert (tmp_path / "runs/a/b.txt").read_bytes() == b"x"
    assert store.is_local


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    store = RunStore(str(tmp_path))
    path = store.path("folder", "file")
    store.write(path, b"old")
    with pytest.raises(TypeError):
        store.write(path, "not bytes")  # type: ignore[arg-type]
    assert store.read(path) == b"old"
    assert store.names(store.path("folder")) == ["file"]
    assert store.names(store.path("nowhere")) == []


def test_a_stage_is_done_when_its_record_is_there(made):
    store, plan = made
    done = [stage.name for stage in plan if store.record(stage) is not None]
    assert done == ["images-weak", "images-val", "classifier", "tag_quality", "maps", "seeds"]
    record = store.record(stage_named(plan, "seeds"))
    assert record["identity"] == stage_named(plan, "seeds").identity()
    assert record["counts"] == {"images": 24, "errors": 0, "shards": 3}
    assert {"versions", "machine", "git", "started", "finished", "seconds"} <= set(record)


def test_shards_are_aligned_with_the_data(made):
    store, plan = made
    data, maps, seeds = (stage_named(plan, name) for name in ("images-weak", "maps", "seeds"))
    for shard in (0, 1, 2):
        ids = [row["image_id"] for row in read_shard(store, data, shard, "images")]
        assert ids == [row["image_id"] for row in read_shard(store, maps, shard, "maps")]
        assert ids == [row["image_id"] for row in read_shard(store, seeds, shard, "seeds")]


def test_others_read_the_parquet_without_us(made):
    store, plan = made
    table = pq.read_table(store.stage_path(stage_named(plan, "seeds"), "shards"))
    assert table.num_rows == 24
    assert {str(field.type) for field in table.schema} == {"string", "binary"}
    from PIL import Image

    with Image.open(io.BytesIO(table["seed"][0].as_py())) as seed:
        assert seed.size == (32, 32)
    images = pq.read_table(store.stage_path(stage_named(plan, "images-weak"), "shards"))
    assert images["tags"].type == pa.list_(pa.uint16())


def test_maps_round_trip():
    rng = np.random.default_rng(1)
    peak, mean = rng.random((2, 3, 5, 7), np.float32)
    maps = Maps((0, 4, 17), peak, mean, rows=Axis(0.1, 0.2), columns=Axis(0.05, 1 / 7))
    again = decode_maps(encode_maps(maps))
    assert (again.classes, again.rows, again.columns) == (maps.classes, maps.rows, maps.columns)
    np.testing.assert_array_equal(again.peak_CHW, peak.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(again.mean_CHW, mean.astype(np.float16).astype(np.float32))
    none = Maps((), peak[:0], mean[:0], maps.rows, maps.columns)
    assert decode_maps(encode_maps(none)).peak_CHW.shape == (0, 5, 7)


@pytest.mark.parametrize("part", ["peak_CHW", "mean_CHW"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_not_stored(part, value):
    map_CHW, cells = np.zeros((1, 2, 2), np.float32), Axis(0.25, 0.5)
    wrong_CHW = np.full((1, 2, 2), value, np.float32)
    maps = Maps((0,), **{"peak_CHW": map_CHW, "mean_CHW": map_CHW, part: wrong_CHW}, rows=cells, columns=cells)
    with pytest.raises(ValueError, match="the localization maps are not finite"):
        encode_maps(maps)


def test_labels_round_trip():
    label = np.random.default_rng(2).integers(0, 256, (9, 4)).astype(np.uint8)
    assert encode_labels(label) == encode_labels(np.asfortranarray(label))
    again = decode_gray(encode_labels(label))
    np.testing.assert_array_equal(again, label)
    again[:] = 0
    assert decode_rgb(encode_labels(label)).shape == (9, 4, 3)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"wsss_ray.schema": "seeds", "wsss_ray.version": "99"},
            r"part-00000\.parquet: has schema version 99, .* delete the stage",
        ),
        ({"wsss_ray.schema": "maps", "wsss_ray.version": "1"}, "holds maps, expected seeds"),
        (None, "holds no artifact of wsss-ray"),
    ],
)
def test_a_file_of_another_version_is_refused(tmp_path, metadata, message):
    stage = Plan.of(job_of(tiny_job()).plan().targets).stages[0]
    store = RunStore(str(tmp_path))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image_id": ["a"], "seed": [b""]}).replace_schema_metadata(metadata), buffer)
    store.write(shard_path(store, stage, 0), buffer.getvalue())
    with pytest.raises(ValueError, match=message):
        read_shard(store, stage, 0, "seeds")


def test_the_same_rows_are_the_same_bytes(tmp_path):
    stage = job_of(tiny_job()).plan().stages[0]
    rows = [{"image_id": str(k), "seed": encode_labels(np.full((3, 3), k, np.uint8))} for k in range(5)]
    written = []
    for name in ("a", "b"):
        store = RunStore(str(tmp_path / name))
        write_shard(store, stage, 0, "seeds", rows)
        written.append(store.read(shard_path(store, stage, 0)))
    assert written[0] == written[1]
    assert pq.ParquetFile(io.BytesIO(written[0])).num_row_groups == 5, "training reads one image at a time"
    assert schemas.VERSION == 1


class MemoryStore(RunStore):
    """A store that is no mounted path: fsspec's file system in memory, in the place of s3:// or gs://."""

    is_local = False

    @property
    def _root(self):
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem("memory"))), self.uri


def test_a_store_that_is_no_mounted_path_holds_the_same(made, tmp_path):
    local, plan = made
    remote = MemoryStore(str(tmp_path / "bucket"))
    assert not remote.is_local
    run_plan(remote, plan, last="seeds")
    for stage in plan.stages[:4]:
        assert remote.record(stage)["counts"] == local.record(stage)["counts"]
        assert list_shards(remote, stage) == list_shards(local, stage)
        for shard in list_shards(remote, stage):
            path = shard_path(remote, stage, shard)
            assert remote.read(path) == local.read(shard_path(local, stage, shard))
    classifier = stage_named(plan, "classifier")
    assert remote.names(remote.stage_path(classifier, "checkpoints"))[-1] == "step-00000012.pt"
    remote.delete_folder(remote.stage_path(classifier, "checkpoints"))
    assert remote.names(remote.stage_path(classifier, "checkpoints")) == []


def test_the_store_knows_the_ids_of_every_kind_of_stage():
    for kind in get_args(Kind):
        assert STAGE_ID.fullmatch(Stage(kind, "name", SeedScore()).id)
    assert not STAGE_ID.fullmatch("../runs-0123456789abcdef")
