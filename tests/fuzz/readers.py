"""The readers of bytes: how each is called, the valid files that it starts from, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz import calls, corpus, corpus_store, hostile
from tests.fuzz.mutations import Recipe, mend_png, mutated, mutated_tree
from tests.fuzz.tokens import JSON, TOKENS, XML, YAML


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
        all_valid: True if the reader takes all valid files.
    """

    read: Callable[[bytes, Path], object]
    files: Callable[[], Sequence[bytes]]
    attacks: Callable[[], Sequence[bytes]] = tuple
    tokens: Sequence[bytes] = TOKENS
    pack: Callable[[bytes], bytes] | None = None
    mend: Callable[[bytes], bytes] | None = None
    parse: Callable[[bytes], Any] | None = None
    large: Callable[[], Sequence[bytes]] = tuple
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


def _of_json(name: str, read: Callable[[bytes, Path], object]) -> Reader:
    """A reader of a JSON file of the store."""
    files = partial(corpus_store.jsons, name)
    return Reader(read, files, hostile.json_texts, parse=json.loads, all_valid=False)


READERS: dict[str, Reader] = {
    "image": Reader(calls.as_image, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png, all_valid=False),
    "header": Reader(calls.as_header, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png),
    "mask": Reader(calls.as_mask, corpus.masks, hostile.images, large=hostile.large_masks, mend=mend_png),
    "saliency": Reader(
        calls.as_saliency, corpus.images, hostile.images, large=hostile.large_images, mend=mend_png, all_valid=False
    ),
    "extra": Reader(calls.as_extra, corpus.extras, hostile.images, large=hostile.large_images, mend=mend_png),
    "stored extra": Reader(calls.as_stored_extra, lambda: corpus.extras()[:1], hostile.images, mend=mend_png),
    "sbd": Reader(calls.as_sbd, corpus.sbd_masks, hostile.mat_files),
    "sbd, unpacked": Reader(calls.as_sbd, corpus.sbd_contents, pack=corpus.packed_mat),
    "labels": Reader(calls.as_labels, lambda: corpus.masks()[:2], hostile.images, mend=mend_png),
    "stored image": Reader(
        calls.as_stored_image, lambda: corpus.images()[:13], hostile.images, large=hostile.large_images, mend=mend_png
    ),
    "maps": Reader(calls.as_maps, calls.as_maps_files),
    "csv": Reader(
        partial(calls.as_table, ".csv"), partial(corpus.tables, "csv"), hostile.csv_texts, (*TOKENS, *JSON, b",", b";", b"\t")
    ),
    "json": Reader(
        partial(calls.as_table, ".json"), partial(corpus.tables, "json"), hostile.json_texts, (*TOKENS, *JSON), parse=json.loads
    ),
    "jsonl": Reader(partial(calls.as_table, ".jsonl"), partial(corpus.tables, "jsonl"), hostile.json_texts, (*TOKENS, *JSON)),
    "parquet": Reader(partial(calls.as_table, ".parquet"), partial(corpus.tables, "parquet"), hostile.parquet_files),
    "coco": Reader(calls.as_coco, corpus.coco, hostile.json_texts, (*TOKENS, *JSON), parse=json.loads),
    "voc list": Reader(
        calls.as_voc_list, corpus.voc_lists, hostile.csv_texts, (*TOKENS, b" ", b".png", b"/JPEGImages/"), all_valid=False
    ),
    "voc xml": Reader(calls.as_voc_xml, corpus.annotations, hostile.xml_texts, (*TOKENS, *XML), all_valid=False),
    "cls_labels": Reader(calls.as_voc_tags, corpus.cls_labels, hostile.cls_labels),
    "pth": Reader(partial(calls.as_weights, ".pth"), corpus.torch_files, hostile.torch_files),
    "pickle in pth": Reader(partial(calls.as_weights, ".pth"), corpus.torch_pickles, pack=corpus.zipped_pickle),
    "safetensors": Reader(partial(calls.as_weights, ".safetensors"), corpus.safetensors, hostile.safetensors),
    "safetensors header": Reader(
        partial(calls.as_weights, ".safetensors"), lambda: corpus.safetensors_headers()[:2], pack=corpus.with_header
    ),
    "params": Reader(partial(calls.as_weights, ".params"), corpus.params, hostile.params),
    "onnx": Reader(partial(calls.as_weights, ".onnx"), corpus.onnx_files, hostile.onnx_files),
    "job": Reader(calls.as_job, corpus_store.jobs, hostile.json_texts, (*TOKENS, *YAML), parse=yaml.safe_load),
    "set": Reader(calls.as_override, corpus_store.overrides, hostile.json_texts, (*TOKENS, *YAML, b"=", b"."), all_valid=False),
    "checkpoint": Reader(calls.as_checkpoint, corpus_store.checkpoints, hostile.torch_files),
    "record.json": _of_json("record", calls.as_record),
    "run.json": _of_json("run", calls.as_run),
    "sweep.json": _of_json("sweep", calls.as_sweep),
    "claim": _of_json("claim", calls.as_claim),
    "failure.json": _of_json("failure", calls.as_failure),
    "metrics.jsonl": Reader(calls.as_log, corpus_store.logs, hostile.json_texts),
    **{
        f"shard of {schema}": Reader(partial(calls.as_shard, schema), partial(corpus_store.shards, schema), hostile.parquet_files)
        for schema in ("images", "maps", "seeds", "scores", "errors", "listing", "extra")
    },
}


def chosen(name: str = "") -> dict[str, Reader]:
    """The readers whose name has a text in it."""
    return {key: reader for key, reader in READERS.items() if name in key}
