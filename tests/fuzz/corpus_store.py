"""Small valid files of the store, and job files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from tests.fuzz.corpus import SIDE, STAGE, as_parquet, extras, images, maps_row, masks
from wsss_ray.storage.schemas import ARTIFACTS, table


@cache
def checkpoints() -> tuple[bytes, ...]:
    """A checkpoint of a training, with labels made ahead."""
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"step": 4, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "labels": {5: torch.zeros(1, 2, 2).byte()}}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return (buffer.getvalue(),)


def rows_of(schema: str) -> list[dict[str, Any]]:
    """Two rows of an artifact of the store."""
    label = masks()[0]
    row: dict[str, dict[str, Any]] = {
        "images": {"tags": [0, 2], "height": SIDE, "width": SIDE, "image": images()[0], "sha256": "0" * 64, "mask": label},
        "saliency": {"saliency": label},
        "extra": {"extra": extras()[0]},
        "features": {"key": b"k", "mirrored_key": b"m", "shape": [1, 2, 2], "features": bytes(16), "mirrored": bytes(16)},
        "maps": maps_row(),
        "seeds": {"seed": label},
        "scores": {"prediction": label, "cells": [0, 5], "counts": [100, 44]},
        "errors": {"path": "a.png", "reason": "the file is empty"},
        "listing": {"tags": [1], "path": "a.png", "mask": None, "size": 3, "annotation": None},
        "predictions": {"path": "a.png", "height": SIDE, "width": SIDE, "prediction": label, "pixels": [1], "reason": None},
    }
    return [{"image_id": name} | row[schema] for name in ("a", "b/c")]


@cache
def shards(schema: str) -> tuple[bytes, ...]:
    """Shards of an artifact: as the store writes them, without compression, and without dictionaries."""
    rows, one = table(schema, rows_of(schema)), ARTIFACTS[schema]
    written = as_parquet(rows, "zstd", row_group_size=1 if one.by_row else 2, write_statistics=list(one.statistics))
    return (
        written,
        as_parquet(rows, "none"),
        as_parquet(rows, "none", use_dictionary=False),
        as_parquet(table(schema, []), "zstd"),
    )


_RECORD = {
    "id": STAGE,
    "name": "seed",
    "kind": "seed",
    "identity": {"component": {"kind": "threshold_seeds", "revision": 1}},
    "inputs": [["maps", "localize-0123456789abcdef"]],
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:00+00:00",
    "seconds": 60.0,
    "counts": {"images": 2, "errors": 0, "shards": 1},
    "metrics": {"miou": 0.5, "iou": [0.5, None]},
    "versions": {"wsss-ray": "0"},
    "machine": {"cores": 2},
    "git": None,
}
_RUN = {
    "name": "pets",
    "stages": [
        {"id": STAGE, "name": "seed", "kind": "seed", "work": 3},
        {"id": "train-0123456789abcdef", "name": "t", "kind": "train", "work": 9},
    ],
    "submitted": 1.0,
    "attempt": "process 1 on here",
    "versions": {},
    "git": None,
}
_CLAIM = {"attempt": "process 1 on here", "machine": "here", "pid": 1, "started": "5", "since": 1.0, "beat": "000000001"}
_FAILURE = {"error": "stage seed: the disk is full", "logs": None, "attempt": "x", "time": "2026-01-01T00:00:00+00:00"}
_SWEEP = {"name": "pets", "submitted": 1.0, "attempt": "x", "total": 3}
_TRIAL = {
    "name": "one", "run": "pets.one.0", "seed": 0, "method": "ficklenet", "parameters": {"a.b": 1}, "state": "done",
    "metrics": {"miou": 0.5}, "stages": [STAGE], "seconds": 1.0,
}  # fmt: skip
_LINES = [{"step": step, "epoch": 0.5, "time": 1.0 + step, "loss": 0.5, "terms": {"seed": 0.5}, "lr": 0.1} for step in (1, 2)]

JSON = {"record": _RECORD, "run": _RUN, "claim": _CLAIM, "failure": _FAILURE, "sweep": _SWEEP, "trial": _TRIAL}


def jsons(name: str) -> tuple[bytes, ...]:
    """A JSON file of the store, with what is not in it at the top."""
    return json.dumps(JSON[name]).encode(), json.dumps(JSON[name], indent=2).encode(), b"[]", b"{}", b"null", b"1"


def logs() -> tuple[bytes, ...]:
    """The log of a training."""
    return ("".join(json.dumps(line) + "\n" for line in _LINES)).encode(), b""


JOB = """\
name: pets
method:
  name: ficklenet
  classifier: {trunk: {kind: small_net, widths: [8, 16], strides: [2, 1]}, kernel_size: 3, epochs: null, steps: 4, batch_size: 4}
  localizer: {size: null, selections: 2}
  seed_rule: &rule {background: {kind: cam_background, threshold: 0.3}, crf: {iterations: 1}}
  segmenter:
    head: {kind: large_fov, dilation: 2, hidden: 8}
    optimizer: {kind: adam, lr: 1.0e-3}
    schedule: {kind: poly, power: 0.9}
  relabel: {sizes: [24], crf: {iterations: 1}}
data: {kind: folder, root: images, tags: tags.csv, masks: "${HOME}/masks", classes: [cat, dog]}
run: {store: runs, max_failures: 0, workers: [1, 2], loggers: [tensorboard, {kind: mlflow, tracking_uri: "http://h:1"}]}
"""
_SWEEPS = (
    """
sweep:
  paper: Table 1
  metrics: [miou]
  seeds: [1, 2]
  trials:
    - {name: one, set: {method.seed_rule.background.threshold: 0.2}, published: 50.1}
    - {name: two, set: {method.localizer.selections: 3}}
""",
    """
sweep:
  space:
    method.seed_rule.background.threshold: {grid: [0.1, 0.2]}
    method.classifier.optimizer.lr: {loguniform: [1.0e-4, 1.0e-2]}
    method.relabel: {choice: [null, {sizes: [12]}]}
  samples: 3
  scheduler: {kind: asha, grace: 0.2}
""",
    "\nsweep: {space: {method.classifier.optimizer.lr: {uniform: [0.1, 0.2]}}, samples: 4, scheduler: {kind: pbt}}\n",
)


def jobs() -> tuple[bytes, ...]:
    """Job files: with and without sweeps, on other data, and over a base."""
    voc = JOB.replace(JOB[JOB.index("data:") : JOB.index("run:")], "data: {kind: voc, root: voc, strong: x.txt}\n")
    return tuple(text.encode() for text in (JOB, *(JOB + sweep for sweep in _SWEEPS), voc, "base: base.yaml\nrun: {seed: 3}\n"))


def overrides() -> tuple[bytes, ...]:
    """Options `--set`."""
    return tuple(_overrides())


def _overrides() -> Iterator[bytes]:
    yield from (
        b"run.seed=1",
        b"method.classifier.trunk={kind: vgg16, weights: none}",
        b"data.classes.1=horse",
        b"sweep.seeds=[1, 2]",
    )
    yield from (b"run.loggers=[tensorboard, wandb]", b"run.workers=[1, 4]", b"method.relabel=null", b"data={kind: coco, root: x}")
