"""A data set is listed once for each command, one item after another, and the workers read what the driver has listed."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from tests.local import job_of, listing_digest, recommit, run_plan, run_stage, stage_named
from tests.shapes import Shapes, tiny_job
from wsss_ray.core.component import canonical
from wsss_ray.core.plan import ingest
from wsss_ray.data import folder as folder_module
from wsss_ray.data import lookup
from wsss_ray.data.folder import Folder
from wsss_ray.data.source import Item, Split, describe
from wsss_ray.data.stages import stages_of
from wsss_ray.data.voc import Voc
from wsss_ray.engine import records
from wsss_ray.engine.listing import FOLDER, StoredListing
from wsss_ray.engine.records import commit_shards
from wsss_ray.engine.unchanged import check_unchanged
from wsss_ray.engine.workers import worker_class
from wsss_ray.storage.shards import list_shards, read_all, shard_path
from wsss_ray.storage.store import RunStore

LISTED: list[str] = []


class CountedShapes(Shapes):
    """Shapes that note when they are listed."""

    def items(self, split: Split) -> list[Item]:
        LISTED.append(split)
        return super().items(split)


class Endless(Shapes):
    """So many items that one notices whether they are held."""

    def listed(self, split: Split) -> Iterator[Item]:
        for place in range(self.train):
            yield Item(f"{place:08d}", (place % 3,), path=f"/{'data' * 20}/{place:08d}.png", size=place + 1, changed=1.0)


@pytest.fixture
def ingested(tmp_path):
    """A store, and the ingest stage of 24 images in three shards."""
    plan = job_of(tiny_job(data={"kind": "counted_shapes"})).plan()
    LISTED.clear()
    return RunStore(str(tmp_path)), plan.stages[0]


def test_workers_read_what_the_driver_has_listed(ingested, tmp_path):
    store, stage = ingested
    StoredListing(store, stage).write()
    assert LISTED == ["weak"]
    workers = [worker_class(stage)(store, stage) for _ in range(2)]
    assert [workers[shard % 2](shard) for shard in range(3)] == [8, 8, 8]
    assert LISTED == ["weak"], "no worker lists the data"
    alone = RunStore(str(tmp_path / "alone"))
    for shard in range(3):
        worker_class(stage)(alone, stage)(shard)
        assert store.read(shard_path(store, stage, shard)) == alone.read(shard_path(alone, stage, shard))
    run_stage(store, stage)
    assert store.names(store.stage_path(stage)) == ["record.json", "shards"], "the listing has served"


@pytest.mark.parametrize("shard_size", [1, 3, 8, 100])
def test_each_shard_finds_its_items(tmp_path, monkeypatch, shard_size):
    monkeypatch.setattr("wsss_ray.engine.listing._ITEMS", 6)
    stage = ingest(describe(Shapes(train=20, shard_size=shard_size), "weak"), name="images")
    listing, store = StoredListing(RunStore(str(tmp_path)), stage), RunStore(str(tmp_path))
    listing.write()
    items = Shapes(train=20).items("weak")
    shards = range(stage.component.num_shards)
    assert [item for shard in shards for item in listing.shard(shard)] == items
    assert [item for _, found in listing.by_shard() for item in found] == items
    assert len(list_shards(store, stage, FOLDER)) == -(-20 // (max(1, 6 // shard_size) * shard_size))


@pytest.mark.parametrize("now", [23, 25, 200])
def test_a_listing_that_changed_since_the_plan_is_refused(tmp_path, now):
    split = describe(Shapes(), "weak")
    changed = split.model_copy(update={"source": Shapes(train=now)})
    listing = StoredListing(RunStore(str(tmp_path)), ingest(changed, name="images"))
    with pytest.raises(ValueError, match=f"data: weak: {now} images are listed here, 24 were planned"):
        listing.write()


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 2500])
def test_the_digest_is_that_of_the_whole_listing(count):
    items = [Item(f"müll/{k}", (k % 3,), size=k, annotation="x" if k % 7 == 0 else None) for k in range(count)]
    rows = [[item.image_id, item.tags, item.size, *([item.annotation] if item.annotation else [])] for item in items]
    assert listing_digest(items) == hashlib.sha256(canonical(rows).encode()).hexdigest()


def test_a_plan_holds_no_listing():
    """What is kept of an image is a hash of its id, to notice a second one: 14 to 20 bytes, where an id alone takes 100."""
    count = 32_000
    describe(Endless(train=10), "weak")
    tracemalloc.start()
    split = describe(Endless(train=count), "weak")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < count * 50
    assert (split.num_images, split.newest, split.num_bytes) == (count, 1.0, sum(range(count + 1)))
    first, between, last = (int(path[-12:-4]) for path in split.samples)
    assert (first, last) == (0, count - 1)
    assert count / 2 <= between + 1 <= count


def test_a_plan_does_little_for_an_image():
    """Counts calls in the place of time, which depends on the machine."""
    calls = Counter[str]()
    source = Endless(train=4000)
    sys.setprofile(lambda frame, event, arg: calls.update([event]))
    try:
        describe(source, "weak")
    finally:
        sys.setprofile(None)
    assert 4000 < calls["call"] + calls["c_call"] < 4000 * 25


class Yielding(Shapes):
    """Shapes whose `items` is a generator, as a plug-in may write it."""

    def items(self, split: Split) -> Iterator[Item]:
        yield from super().items(split)


def test_items_may_be_yielded(tmp_path):
    plain = job_of(tiny_job(data={"kind": "shapes"})).plan().stages[0]
    stage = job_of(tiny_job(data={"kind": "yielding"})).plan().stages[0]
    assert stage.component.listing == plain.component.listing
    store = RunStore(str(tmp_path))
    StoredListing(store, stage).write()
    assert [item for shard in range(3) for item in StoredListing(store, stage).shard(shard)] == Shapes().items("weak")
    run_stage(store, stage)
    assert store.record(stage)["counts"]["images"] == 24


class Alike(str):
    """An id whose hash is that of all others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


class SameHash(Shapes):
    """Ids of one hash; the last may be the first again."""

    twice: bool = False

    def items(self, split: Split) -> list[Item]:
        return [Item(Alike(name), (0,), path=f"{name}.png") for name in ("a", "b", "c", "a" if self.twice else "d")]


def test_ids_of_one_hash_are_no_duplicates():
    assert describe(SameHash(), "weak").num_images == 4
    with pytest.raises(ValueError, match=r"image 'a' is listed twice \(a\.png\); remove one"):
        describe(SameHash(twice=True), "weak")


def put(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), shade, np.uint8)).save(path)


def folder_of(root):
    for name in "abc":
        for kind in ("images", "masks", "maps"):
            put(root / kind / f"{name}.png")
    (root / "tags.csv").write_text("image,tags,split\na,cat,\nb,dog,\nc,cat,val\n")
    places = {"root": "images", "tags": "tags.csv", "masks": "masks", "saliency": "maps"}
    return Folder(**{field: str(root / name) for field, name in places.items()})


def voc_of(root):
    for name in "abc":
        put(root / "JPEGImages" / f"{name}.png")
        put(root / "SegmentationClassAug" / f"{name}.png")
        put(root / "maps" / f"{name}.png")
    (root / "train.txt").write_text("a 0\nb 1\n")
    (root / "val.txt").write_text("c 0\n")
    return Voc(root=str(root), train="train.txt", val="val.txt", saliency="maps")


@pytest.mark.parametrize("make", [folder_of, voc_of])
def test_each_file_is_looked_at_once(tmp_path, monkeypatch, make):
    source, asked = make(tmp_path), Counter()
    look = os.stat

    def counted(path, *args, **kwargs):
        asked[str(path)] += str(path).endswith(".png")
        return look(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", counted)
    stages = stages_of(source)
    monkeypatch.undo()
    found = {name: times for name, times in asked.items() if times and os.path.isfile(name)}
    assert set(found.values()) == {1}
    assert len(found) == 8, "three images with their masks, two maps"
    newest = max(os.stat(path).st_mtime for path in found if "/maps/" not in path)
    assert newest == max(stage.component.newest for stage in (stages.weak, stages.val))


def test_a_table_is_read_once_and_a_folder_walked_once(tmp_path, monkeypatch):
    source, read, walked = folder_of(tmp_path), [], []
    table, names = folder_module.read_tag_table, folder_module.image_names
    monkeypatch.setattr(folder_module, "read_tag_table", lambda path, field: read.append(path) or table(path, field))
    monkeypatch.setattr(folder_module, "image_names", lambda root, skip: walked.append(root) or names(root, skip=skip))
    stages_of(source)
    assert (len(read), len(walked)) == (1, 1)
    stages_of(source)
    assert (len(read), len(walked)) == (2, 2), "what a later command finds is what is there then"
    assert lookup.once("key", lambda: 1) + lookup.once("key", lambda: 2) == 3


def test_data_that_is_done_is_listed_by_the_plan_alone(tmp_path):
    job = tiny_job(data={"kind": "counted_shapes"})
    plan, store = job_of(job).plan(), RunStore(str(tmp_path))
    stage = plan.stages[0]
    run_stage(store, stage)
    LISTED.clear()
    again = job_of(job).plan()
    assert LISTED == ["weak", "val"]
    check_unchanged(store, again.stages[0])
    assert LISTED == ["weak", "val"]


def test_only_files_newer_than_the_ingest_are_read_again(tmp_path, monkeypatch):
    (tmp_path / "tags.csv").write_text("image,tags\na,cat\nb,cat\n")
    for name, shade in (("a", 1), ("b", 2)):
        put(tmp_path / "images" / f"{name}.png", shade)
    data = {"kind": "folder", "root": str(tmp_path / "images"), "tags": str(tmp_path / "tags.csv")}
    store, loaded = RunStore(str(tmp_path / "runs")), []
    stage = job_of(tiny_job(data=data)).plan().stages[0]
    run_stage(store, stage)
    later = time.time() + 1000  # no file of a test can be made older than now: the system sets the change time
    for shard in list_shards(store, stage):
        os.utime(shard_path(store, stage, shard), (later, later))
    recommit(store, stage, started=datetime.fromtimestamp(later, timezone.utc).isoformat(timespec="seconds"))
    load = Folder.load
    monkeypatch.setattr(Folder, "load", lambda self, item: loaded.append(item.image_id) or load(self, item))
    for name, seconds in (("a", -100), ("b", 100)):
        written = later + seconds
        os.utime(tmp_path / "images" / f"{name}.png", (written, written))
    check_unchanged(store, job_of(tiny_job(data=data)).plan().stages[0])
    assert loaded == ["b"]


def test_a_run_leaves_no_listing(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    stage = stage_named(plan, "images-weak")
    StoredListing(store, stage).write()
    run_plan(store, plan, last="images-weak")
    assert FOLDER not in store.names(store.stage_path(stage))


def test_a_commit_counts_by_footers_only_what_it_is_not_told(tmp_path, monkeypatch):
    plan, store = job_of(tiny_job(data={"kind": "shapes", "broken": [3]})).plan(), RunStore(str(tmp_path))
    stage = stage_named(plan, "images-weak")
    made = {shard: worker_class(stage)(store, stage)(shard) for shard in range(3)}
    assert made == {0: 7, 1: 8, 2: 8}
    asked, count = [], records.count_rows
    monkeypatch.setattr(records, "count_rows", lambda *args: asked.append(args[2:]) or count(*args))
    known = {0: made[0], 1: 0}  # an earlier attempt made shard 1, and nobody tells of shard 2
    commit_shards(store, stage, started=0, finished=1, max_bad_fraction=0.1, made=known)
    assert sorted(asked) == [(0, "errors"), (1,), (2,)]
    assert store.record(stage)["counts"] == {"images": 23, "errors": 1, "shards": 3}


def test_scores_add_up_over_shards(tmp_path):
    plan, store = job_of(tiny_job()).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="seed_quality")
    stage = stage_named(plan, "seed_quality")
    rows = read_all(store, stage, "scores").to_pylist()
    matrix = np.zeros(4 * 5, np.int64)
    for row in rows:
        matrix[row["cells"]] += row["counts"]
    metrics = store.record(stage)["metrics"]
    assert metrics["confusion"] == matrix.reshape(4, 5).tolist()
    assert metrics["scored"] == len(rows) == 24
