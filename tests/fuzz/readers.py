"""The readers of bytes: how each is called, the valid files that it starts from, and hostile ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from PIL import Image

from tests.coco_set import SHAPES, H, TRAIN, W
from tests.fuzz import corpus, hostile
from tests.fuzz.mutations import Recipe, mend_png, mutated, mutated_tree
from wsss_ray.config.job import parse_job, read_job
from wsss_ray.config.document import to_yaml
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.coco import Coco
from wsss_ray.data.codecs import decode_gray, decode_maps, decode_rgb
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency, read_header, shrink
from wsss_ray.data.tags import read_tag_table
from wsss_ray.data.voc import Voc, read_annotation
from wsss_ray.engine.checkpoints import load_checkpoint
from wsss_ray.engine.failures import failure_of
from wsss_ray.engine.training_log import LogTail, MetricsLog, last_rows, read_log
from wsss_ray.nets.weights import Weights, load_weights
from wsss_ray.reporting.status import run_status, sweep_status
from wsss_ray.storage.claims import Claims, read_claim
from wsss_ray.storage.schemas import ARTIFACTS
from wsss_ray.storage.shards import OpenShards, count_rows, read_rows, read_shard, shard_path
from wsss_ray.storage.store import RunStore

STORE_READERS = False
"""True once the readers of the store say in one line what is wrong with a damaged file."""

TOKENS = (
    *(b"\0", b"\n", b"\xff", b"\xef\xbb\xbf", b'"', b"'", b"\\", b"[" * 2000, b"{" * 100, b"9" * 5000, b"-", b"1e999", b"NaN", b"null"),
    *(b"../", b"/", b"\\ud800", b"\xed\xa0\x80", b"\xc3\xa4", b"%s{}", b"-1", b"0", b"1", b"18446744073709551616", b"true", b"[]", b"{}"),
)
_YAML = (
    *(b"&a ", b"*a", b"<<: *a", b"<<: [*a, *a]", b"!!int ", b"!!binary ", b"!!set ", b"? ", b"- ", b": ", b"| ", b"2001-99-99"),
    *(b"${HOME}", b"${NO}", b"base: ", b"kind: ", b"name: ", b"null", b"~", b".inf", b".nan", b"1:30:00", b"0x", b"yes", b"%YAML 9\n"),
    *(b"---\n", b"...\n", b"sweep: ", b"trials: ", b"space: ", b"vgg16", b"voc", b"coco", b"adam", b"imagenet", b"timm:", b"run: ", b"data: "),
)
_XML = (b"<!DOCTYPE a>", b"<object>", b"</object>", b"<name>", b"&x;", b"&#0;", b"&#x110000;", b"<![CDATA[", b"<!--", b"<?x?>", b"xmlns:a=")
_JSON_TOKENS = (b'"image":', b'"tags":', b'"split":', b'"id":', b'"segmentation":', b'"counts":', b'"size":', b'"iscrowd":', b"1.5", b"[[0,0]]")


@dataclass(frozen=True)
class Reader:
    """One way to read bytes.

    Attributes:
        read: Reads an input. The folder is its own; what lies there it may use or replace.
        files: Makes the valid files.
        attacks: Makes the hostile files.
        large: Makes files as large as they may be, which take seconds each.
        tokens: Pieces that a format knows.
        pack: Makes a file of a mutated part: puts a header before it, or a zip around it.
        mend: Computes the checksums of a mutated file anew.
        parse: Parses a file of this kind. What is parsed is mutated too, and then written as JSON.
        of_store: True for readers of the store.
        all_valid: True if the reader takes all valid files.
    """

    read: Callable[[bytes, Path], object]
    files: Callable[[], Sequence[bytes]]
    attacks: Callable[[], Sequence[bytes]] = tuple
    large: Callable[[], Sequence[bytes]] = tuple
    tokens: Sequence[bytes] = TOKENS
    pack: Callable[[bytes], bytes] | None = None
    mend: Callable[[bytes], bytes] | None = None
    parse: Callable[[bytes], Any] | None = None
    of_store: bool = False
    all_valid: bool = True

    @cached_property
    def corpus(self) -> tuple[bytes, ...]:
        """The valid files, or the parts that `pack` makes into files."""
        return tuple(self.files())

    def valid(self) -> list[bytes]:
        """The valid files, as they are read."""
        return [self.pack(one) if self.pack else one for one in self.corpus]

    def input(self, recipe: Recipe) -> bytes:
        """The file that a recipe makes."""
        start, mutations, mends = recipe
        if self.parse and mends:
            return json.dumps(mutated_tree(self.parse(self.corpus[start]), mutations)).encode()
        data = mutated(self.corpus, mutations, start, self.tokens)
        if self.mend and mends:
            data = self.mend(data)
        return self.pack(data) if self.pack else data


MOST_PIXELS = 80_000_000


def _image(data: bytes, _: Path) -> object:
    return shrink(normalise_image(data, max_pixels=MOST_PIXELS), None, 8)


def _header(data: bytes, folder: Path) -> object:
    path = _written(folder, "x.png", data)
    with path.open("rb") as file:
        return read_header(file)


def _mask(data: bytes, _: Path) -> object:
    side = 8900 if data in hostile.large_masks() else corpus.SIDE
    return normalise_mask(data, height=side, width=side, num_labels=3)


def _saliency(data: bytes, _: Path) -> object:
    whole = {"height": corpus.SIDE, "width": corpus.SIDE}
    return normalise_saliency(data, height=8, width=8, max_side=8, max_pixels=MOST_PIXELS), normalise_saliency(data, **whole)


def _labels(data: bytes, _: Path) -> object:
    return decode_gray(data, max_pixels=MOST_PIXELS)


def _stored_image(data: bytes, _: Path) -> object:
    return decode_rgb(data)


def _maps(data: bytes, _: Path) -> object:
    row = corpus.maps_row()
    cut = len(row["peak"])
    for place, name in enumerate(("height", "width")):
        row[name] = int.from_bytes(data[place * 4 : place * 4 + 4], "little", signed=True)
    rest = data[9:]
    row |= {"classes": list(range(data[8] if len(data) > 8 else 0)), "peak": rest[:cut], "mean": rest[cut : 2 * cut]}
    row["grid"] = row["grid"][: len(rest) // cut + 2]
    return decode_maps(row)


def _maps_files() -> tuple[bytes, ...]:
    row = corpus.maps_row()
    sizes = row["height"].to_bytes(4, "little") + row["width"].to_bytes(4, "little") + bytes([len(row["classes"])])
    return (sizes + row["peak"] + row["mean"],)


def _table(suffix: str, data: bytes, folder: Path) -> object:
    table = read_tag_table(_written(folder, f"tags{suffix}", data), "tags")
    return [row.where for row in table.rows]


def _coco(data: bytes, folder: Path) -> object:
    images = folder / "images"
    if not images.exists():
        images.mkdir()
        for image_id in SHAPES:
            Image.new("RGB", (W, H)).save(images / f"{TRAIN(image_id)}.jpg")
    path = _written(folder, "instances.json", data)
    state = path.stat()
    os.utime(path, ns=(state.st_mtime_ns, state.st_mtime_ns + _counted()))
    source = Coco(
        root=str(folder), train_annotations="instances.json", val_annotations=None, train_images="images", max_pixels=MOST_PIXELS, crowd="ignore"
    )
    names = source.class_names()
    return names, [source.load(item) for item in source.items("weak")]


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
    return source.class_names(), source.has_masks("weak"), source.items("weak")


def _voc_list(data: bytes, folder: Path) -> object:
    return _voc(folder, "list.txt", data, train="list.txt")


def _voc_xml(data: bytes, folder: Path) -> object:
    _written(folder, "one.txt", b"a")
    return read_annotation(data, "x.xml"), _voc(folder, "Annotations/a.xml", data, train="one.txt", drop_difficult=True)


def _voc_tags(data: bytes, folder: Path) -> object:
    _written(folder, "two.txt", b"2007_000000\n2007_000001\n")
    return read_cls_labels(data), _voc(folder, "cls_labels.npy", data, train="two.txt", tags="cls_labels.npy")


def _weights(suffix: str, data: bytes, folder: Path) -> object:
    return load_weights(Weights(source=str(_written(folder, f"net{suffix}", data))))


def _job(data: bytes, folder: Path) -> object:
    _written(folder, "base.yaml", corpus.JOB.encode())
    loaded = read_job(_written(folder, "job.yaml", data))
    trials = loaded.trials()[:5]
    for job in (loaded.job, *(one.job for one in trials)):
        text = to_yaml(job.spec())
        assert parse_job(text.encode(), "job.yaml").job.spec() == job.spec()
    return trials


def _override(data: bytes, folder: Path) -> object:
    path = folder / "good.yaml"
    if not path.exists():
        path.write_text(corpus.JOB)
    return read_job(path, [data.decode("utf-8", "surrogateescape")]).trials()[:5]


_stage: Any = SimpleNamespace(id=corpus.STAGE, name="seed", kind="seed")


def _store(folder: Path, path: tuple[str, ...], data: bytes) -> RunStore:
    store = RunStore(str(folder / "store"))
    target = Path(store.path(*path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return store


def _shard(schema: str, data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "shards", "part-00000.parquet"), data)
    assert Path(shard_path(store, _stage, 0)).exists()
    rows = read_shard(store, _stage, 0, schema)
    count = count_rows(store, _stage, 0)
    columns = list(ARTIFACTS[schema].schema.names)
    return rows, count, read_rows(store, _stage, 0, schema, range(min(count, 2)), columns[:1]), OpenShards(store, schema)


def _record(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "record.json"), data)
    return store.is_done(_stage), store.record(_stage), store.record_by_id(corpus.STAGE)


def _run(data: bytes, folder: Path) -> object:
    store = _store(folder, ("runs", "pets", "run.json"), data)
    Path(store.path("stages", corpus.STAGE, "record.json")).unlink(missing_ok=True)
    return run_status(store, "pets")


def _sweep(data: bytes, folder: Path) -> object:
    return sweep_status(_store(folder, ("runs", "pets", "sweep.json"), data), "pets")


def _claim(data: bytes, folder: Path) -> object:
    store = _store(folder, ("claims", f"{corpus.STAGE}.json"), data)
    return read_claim(store, corpus.STAGE), Claims(store, "me").take(corpus.STAGE)


def _failure(data: bytes, folder: Path) -> object:
    return failure_of(_store(folder, ("stages", corpus.STAGE, "failure.json"), data), corpus.STAGE)


def _log(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "metrics.jsonl"), data)
    tail = LogTail(store, corpus.STAGE)
    return read_log(store, corpus.STAGE), last_rows(store, corpus.STAGE, 3), tail.rows(), MetricsLog(store, _stage, 1, every=1)


def _checkpoint(data: bytes, folder: Path) -> object:
    store = _store(folder, ("stages", corpus.STAGE, "checkpoints", "step-00000004.pt"), data)
    return load_checkpoint(store, _stage, 4, "cpu")


def _written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


READERS: dict[str, Reader] = {
    "image": Reader(_image, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png, all_valid=False),
    "header": Reader(_header, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png),
    "mask": Reader(_mask, corpus.masks, hostile.images, large=hostile.large_masks, mend=mend_png),
    "saliency": Reader(_saliency, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png, all_valid=False),
    "labels": Reader(_labels, lambda: corpus.masks()[:3], hostile.images, mend=mend_png),
    "stored image": Reader(_stored_image, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png, all_valid=False),
    "maps": Reader(_maps, _maps_files),
    "csv": Reader(partial(_table, ".csv"), partial(corpus.tables, "csv"), hostile.csv_texts, (*TOKENS, *_JSON_TOKENS, b",", b";", b"\t")),
    "json": Reader(partial(_table, ".json"), partial(corpus.tables, "json"), hostile.json_texts, (*TOKENS, *_JSON_TOKENS), parse=json.loads),
    "jsonl": Reader(partial(_table, ".jsonl"), partial(corpus.tables, "jsonl"), hostile.json_texts, (*TOKENS, *_JSON_TOKENS)),
    "parquet": Reader(partial(_table, ".parquet"), partial(corpus.tables, "parquet"), hostile.parquet_files),
    "coco": Reader(_coco, corpus.coco, hostile.json_texts, (*TOKENS, *_JSON_TOKENS), parse=json.loads),
    "voc list": Reader(_voc_list, corpus.voc_lists, hostile.csv_texts, (*TOKENS, b" ", b".png", b"/JPEGImages/"), all_valid=False),
    "voc xml": Reader(_voc_xml, corpus.annotations, hostile.xml_texts, (*TOKENS, *_XML), all_valid=False),
    "cls_labels": Reader(_voc_tags, corpus.cls_labels, hostile.cls_labels),
    "pth": Reader(partial(_weights, ".pth"), corpus.torch_files, hostile.torch_files),
    "pickle in pth": Reader(partial(_weights, ".pth"), corpus.torch_pickles, pack=corpus.zipped_pickle),
    "safetensors": Reader(partial(_weights, ".safetensors"), corpus.safetensors, hostile.safetensors),
    "safetensors header": Reader(partial(_weights, ".safetensors"), corpus.safetensors_headers, pack=corpus.with_header),
    "params": Reader(partial(_weights, ".params"), corpus.params, hostile.params),
    "job": Reader(_job, corpus.jobs, hostile.json_texts, (*TOKENS, *_YAML), parse=yaml.safe_load),
    "set": Reader(_override, corpus.overrides, hostile.json_texts, (*TOKENS, *_YAML, b"=", b"."), all_valid=False),
    "checkpoint": Reader(_checkpoint, corpus.checkpoints, hostile.torch_files, of_store=True),
    "record.json": Reader(_record, partial(corpus.jsons, "record"), hostile.json_texts, parse=json.loads, of_store=True, all_valid=False),
    "run.json": Reader(_run, partial(corpus.jsons, "run"), hostile.json_texts, parse=json.loads, of_store=True, all_valid=False),
    "sweep.json": Reader(_sweep, partial(corpus.jsons, "sweep"), hostile.json_texts, parse=json.loads, of_store=True, all_valid=False),
    "claim": Reader(_claim, partial(corpus.jsons, "claim"), hostile.json_texts, parse=json.loads, of_store=True, all_valid=False),
    "failure.json": Reader(_failure, partial(corpus.jsons, "failure"), hostile.json_texts, parse=json.loads, of_store=True, all_valid=False),
    "metrics.jsonl": Reader(_log, corpus.logs, hostile.json_texts, of_store=True),
    **{
        f"shard of {schema}": Reader(
            partial(_shard, schema), partial(corpus.shards, schema), hostile.parquet_files, of_store=True
        )
        for schema in ("images", "maps", "seeds", "scores", "errors", "listing")
    },
}


def chosen(name: str = "", *, store: bool = STORE_READERS) -> dict[str, Reader]:
    """The readers whose name has a text in it, those of the store among them or not."""
    return {key: reader for key, reader in READERS.items() if name in key and (store or not reader.of_store)}
