"""Where a training's images lie, and the batches that are made of them ahead of its steps."""

from __future__ import annotations

import threading

import pyarrow.parquet as pq
import pytest

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.core.errors import DamagedFile
from wsss_ray.engine.loader import ShardedImages, automatic_processes, image_places, micro_batches
from wsss_ray.storage.shards import list_shards, open_shard, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore


@pytest.fixture
def packed(tmp_path):
    """A store with the images only, and the plan."""
    store, plan = RunStore(str(tmp_path / "packed")), job_of(tiny_job()).plan()
    run_plan(store, plan, last="images-weak")
    return store, plan


def test_where_images_lie_is_read_from_footers_or_else_from_the_rows(packed, tmp_path):
    store, stage = packed[0], stage_named(packed[1], "images-weak")
    shards = {shard: read_shard(store, stage, shard, "images") for shard in list_shards(store, stage)}
    expected = {row["image_id"]: (stage, shard, place) for shard, rows in shards.items() for place, row in enumerate(rows)}
    assert list(image_places(store, stage).items()) == list(expected.items())
    assert image_places(store, stage, ["mask"]) == expected
    bare = RunStore(str(tmp_path / "bare"))
    for shard in list_shards(store, stage):
        table = open_shard(store, stage, shard, "images").read()
        column = table.schema.get_field_index("mask")
        masks = [None if place == 2 else mask for place, mask in enumerate(table["mask"].to_pylist())]
        table = table.set_column(column, table.schema.field("mask"), [masks])
        bare.write(shard_path(bare, stage, shard), b"")
        pq.write_table(table, shard_path(bare, stage, shard), row_group_size=1, write_statistics=shard != 0)
    assert image_places(bare, stage) == expected
    assert image_places(bare, stage, ["mask"]) == {name: place for name, place in expected.items() if place[2] != 2}


def test_batches_ahead_end_with_their_reader_and_tell_what_failed(packed):
    store, stage = packed[0], stage_named(packed[1], "classifier")
    images = ShardedImages(store, stage, stage.component.augment, 3)
    call = dict(batch_size=8, start=0, stop=9, rank=0, world=1, micro=8, workers=0)
    batches = micro_batches(images, **call)
    assert len(next(batches)[0].ids) == 8
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    data = stage.input("data")
    images = ShardedImages(store, stage, stage.component.augment, 3)
    for shard in list_shards(store, data):
        store.write(shard_path(store, data, shard), b"no parquet")
    with pytest.raises(DamagedFile, match="Parquet"):
        next(micro_batches(images, **call))


def test_processes_for_decoding_are_what_a_gpu_leaves():
    assert automatic_processes(16, gpu=True, others=0) == 8
    assert automatic_processes(6, gpu=True, others=2) == 3
    assert automatic_processes(1, gpu=True, others=0) == 0
    assert automatic_processes(16, gpu=False, others=0) == 0


def test_an_image_that_fails_in_a_thread_is_named_once_and_all_threads_end(packed):
    store, stage = packed[0], stage_named(packed[1], "classifier")
    data = stage.input("data")
    rows = read_shard(store, data, 1, "images")
    write_shard(store, data, 1, "images", [*rows[:3], rows[3] | {"image": b"no image"}, *rows[4:]])
    images = ShardedImages(store, stage, stage.component.augment, 3)
    batches = micro_batches(images, batch_size=24, start=0, stop=9, rank=0, world=1, micro=8, workers=0, threads=3)
    with pytest.raises(ValueError, match=f"^image {rows[3]['image_id']}: "):
        next(batches)
    assert list(batches) == []
    assert not any(thread.name.startswith(("batches", "samples")) for thread in threading.enumerate())
