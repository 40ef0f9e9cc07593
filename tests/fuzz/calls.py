"""How each reader of bytes is called: with an input, and a folder of its own in which files may lie."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from tests.coco_set import SHAPES, TRAIN, H, W
from tests.fuzz import corpus, corpus_store
from wsss_ray.config.document import to_yaml
from wsss_ray.config.job import parse_job, read_job
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.coco import Coco
from wsss_ray.data.codecs import decode_extra, decode_gray, decode_maps, decode_rgb
from wsss_ray.data.extra_files import normalise_extra
from wsss_ray.data.folder import Folder
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency, read_header, shrink
from wsss_ray.data.lookup import looked_up_once
from wsss_ray.data.sbd import read_sbd_mask
from wsss_ray.data.source import DataSplit, Source
from wsss_ray.data.stages import stages_of
from wsss_ray.data.tables import read_tag_table
from wsss_ray.data.voc import Voc
from wsss_ray.data.voc_xml import read_annotation
from wsss_ray.engine.checkpoints import load_checkpoint
from wsss_ray.engine.failures import failure_of
from wsss_ray.engine.training_log import LogTail, MetricsLog, last_rows, read_log
from wsss_ray.nets.weights import Weights, load_weights
from wsss_ray.reporting.status import run_status, sweep_status
from wsss_ray.storage.claims import Claims, read_claim
from wsss_ray.storage.schemas import ARTIFACTS
from wsss_ray.storage.shards import count_rows, read_rows, read_shard, shard_path
from wsss_ray.storage.store import RunStore

MOST_PIXELS = 80_000_000


def as_image(data: bytes, _: Path) -> object:
    return shrink(normalise_image(data, max_pixels=MOST_PIXELS), None, 8)


def as_header(data: bytes, folder: Path) -> object:
    path = _written(folder, "x.png", data)
    with path.open("rb") as file:
        return read_header(file)


def as_mask(data: bytes, _: Path) -> object:
    side = 8900 if data[16:20] == (8900).to_bytes(4, "big") else corpus.SIDE  # of `hostile.large_masks`
    return normalise_mask(data, height=side, width=side, num_labels=3)


def as_saliency(data: bytes, _: Path) -> object:
    whole = {"height": corpus.SIDE, "width": corpus.SIDE}
    return normalise_saliency(data, height=8, width=8, max_side=8, max_pixels=MOST_PIXELS), normalise_saliency(data, **whole)


def as_extra(data: bytes, _: Path) -> object:
    whole = {"height": corpus.SIDE, "width": corpus.SIDE}
    return normalise_extra(data, height=8, width=8, max_side=8, max_pixels=MOST_PIXELS), normalise_extra(data, **whole)


def as_stored_extra(data: bytes, _: Path) -> object:
    return decode_extra(data)


def as_sbd(data: bytes, folder: Path) -> object:
    path = folder / "2008_000008.mat"
    path.write_bytes(data)
    return read_sbd_mask(path)


def as_labels(data: bytes, _: Path) -> object:
    return decode_gray(data, max_pixels=MOST_PIXELS)


def as_stored_image(data: bytes, _: Path) -> object:
    return decode_rgb(data)


def as_maps(data: bytes, _: Path) -> object:
    row = corpus.maps_row()
    cut = len(row["peak"])
    for place, name in enumerate(("height", "width")):
        row[name] = int.from_bytes(data[place * 4 : place * 4 + 4], "little", signed=True)
    rest = data[9:]
    row |= {"classes": list(range(data[8] if len(data) > 8 else 0)), "peak": rest[:cut], "mean": rest[cut : 2 * cut]}
    row["grid"] = row["grid"][: len(rest) // cut + 2]
    return decode_maps(row)


def as_maps_files() -> tuple[bytes, ...]:
    row = corpus.maps_row()
    sizes = row["height"].to_bytes(4, "little") + row["width"].to_bytes(4, "little") + bytes([len(row["classes"])])
    return (sizes + row["peak"] + row["mean"],)


def as_table(suffix: str, data: bytes, folder: Path) -> object:
    images = folder / "images"
    if not images.exists():
        (images / "sub").mkdir(parents=True)
        for name in ("a", "b", "sub/c", "ä"):
            (images / f"{name}.png").write_bytes(b"x")
    path = _written(folder, f"tags{suffix}", data)
    rows = [row.where for row in read_tag_table(path, "tags").rows]
    return rows, _listed(Folder(root=str(images), tags=str(path)))


def _listed(source: Source) -> list[str]:
    """List a source as a plan does, and describe its splits."""
    with looked_up_once():
        data = stages_of(source)
    splits = [stage.component for stage in (data.weak, data.val) if stage is not None]
    return [data.weak.id, *(split.summary() for split in splits if isinstance(split, DataSplit))]


def as_coco(data: bytes, folder: Path) -> object:
    images = folder / "images"
    if not images.exists():
        images.mkdir()
        for image_id in SHAPES:
            Image.new("RGB", (W, H)).save(images / f"{TRAIN(image_id)}.jpg")
    path = _written(folder, "instances.json", data)
    state = path.stat()
    os.utime(path, ns=(state.st_mtime_ns, state.st_mtime_ns + _counted()))
    source = Coco(
        root=str(folder),
        train_annotations="instances.json",
        val_annotations=None,
        train_images="images",
        max_pixels=MOST_PIXELS,
        crowd="ignore",
    )
    return _listed(source), [source.load(item) for item in source.items("weak")]


_calls = 0


def _counted() -> int:
    """A number that has not been before: files are cached by their time."""
    global _calls
    _calls += 1
    return _calls


def _voc(folder: Path, name: str, data: bytes, **fields: Any) -> object:
    for below in ("JPEGImages", "SegmentationClassAug", "Annotations"):
        (folder / below).mkdir(exist_ok=True)
    for image_id in ("a", "b", "2007_000000", "2007_000001"):
        for path in (folder / f"JPEGImages/{image_id}.jpg", folder / f"SegmentationClassAug/{image_id}.png"):
            if not path.exists():
                path.write_bytes(b"x")
        xml = folder / f"Annotations/{image_id}.xml"
        if not xml.exists():
            xml.write_bytes(b"<annotation><object><name>cat</name></object></annotation>")
    _written(folder, name, data)
    source = Voc(root=str(folder), val=None, **fields)
    return _listed(source)


def as_voc_list(data: bytes, folder: Path) -> object:
    return _voc(folder, "list.txt", data, train="list.txt")


def as_voc_xml(data: bytes, folder: Path) -> object:
    _written(folder, "one.txt", b"a")
    return read_annotation(data, "x.xml"), _voc(folder, "Annotations/a.xml", data, train="one.txt", drop_difficult=True)


def as_voc_tags(data: bytes, folder: Path) -> object:
    _written(folder, "two.txt", b"2007_000000\n2007_000001\n")
    return read_cls_labels(data), _voc(folder, "cls_labels.npy", data, train="two.txt", tags="cls_labels.npy")


def as_weights(suffix: str, data: bytes, folder: Path) -> object:
    return load_weights(Weights(source=str(_written(folder, f"net{suffix}", data))))


def as_job(data: bytes, folder: Path) -> object:
    _written(folder, "base.yaml", corpus_store.JOB.encode())
    loaded = read_job(_written(folder, "job.yaml", data))
    trials = loaded.trials()[:5]
    for job in (loaded.job, *(one.job for one in trials)):
        text = to_yaml(job.spec())
        assert parse_job(text.encode(), "job.yaml").job.spec() == job.spec()
    return trials


def as_override(data: bytes, folder: Path) -> object:
    path = folder / "good.yaml"
    if not path.exists():
        path.write_text(corpus_store.JOB)
    return read_job(path, [data.decode("utf-8", "surrogateescape")]).trials()[:5]


_stage: Any = SimpleNamespace(id=corpus.STAGE, name="seed", kind="seed")


def _store(folder: Path, path: tuple[str, ...], data: bytes) -> RunStore:
    store = RunStore(str(folder / "store"))
    target = Path(store.path(*path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return store


def as_shard(schema: str, data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "shards", "part-00000.parquet"), data)
    assert Path(shard_path(store, _stage, 0)).exists()
    rows = read_shard(store, _stage, 0, schema)
    count = count_rows(store, _stage, 0)
    columns = list(ARTIFACTS[schema].schema.names)
    return rows, count, read_rows(store, _stage, 0, schema, range(min(count, 2)), columns[:1])


def as_record(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "record.json"), data)
    return store.is_done(_stage), store.record(_stage), store.record_by_id(corpus.STAGE)


def as_run(data: bytes, folder: Path) -> object:
    store = _store(folder, ("runs", "pets", "run.json"), data)
    Path(store.path("stages", corpus.STAGE, "record.json")).unlink(missing_ok=True)
    return run_status(store, "pets")


def as_sweep(data: bytes, folder: Path) -> object:
    return sweep_status(_store(folder, ("runs", "pets", "sweep.json"), data), "pets")


def as_claim(data: bytes, folder: Path) -> object:
    store = _store(folder, ("claims", f"{corpus.STAGE}.json"), data)
    return read_claim(store, corpus.STAGE), Claims(store, "me").take(corpus.STAGE)


def as_failure(data: bytes, folder: Path) -> object:
    return failure_of(_store(folder, ("stages", corpus.STAGE, "failure.json"), data), corpus.STAGE)


def as_log(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "metrics.jsonl"), data)
    tail = LogTail(store, corpus.STAGE)
    return read_log(store, corpus.STAGE), last_rows(store, corpus.STAGE, 3), tail.rows(), MetricsLog(store, _stage, 1, every=1)


def as_checkpoint(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "checkpoints", "step-00000004.pt"), data)
    return load_checkpoint(store, _stage, 4, "cpu")


def _written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
