"""What a set becomes: the job of `init`, and the images that its ingest packs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import wsss_ray
from tests.local import run_stage
from wsss_ray.config.job import load_job
from wsss_ray.data.codecs import decode_gray
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore


class Packed(NamedTuple):
    """One packed image: the names of its tags, (height, width), and the labels in its mask; None without a mask."""

    tags: tuple[str, ...]
    size: tuple[int, int]
    labels: tuple[int, ...] | None


def fresh(*typed: object, folder: Path, code: int = 0, timeout: float = 120) -> str:
    """What the real command says in a process of its own, which has imported nothing."""
    command = [sys.executable, "-m", "wsss_ray", *map(str, typed)]
    package = str(Path(wsss_ray.__file__).parents[1])  # the one that these tests import
    found = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, cwd=folder, env=found, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def ingest(job_file: Path, store: Path) -> dict[str, list[dict]]:
    """Pack every split of a job. The rows by split."""
    plan, made, found = load_job(job_file).plan(), RunStore(str(store)), {}
    for stage in plan:
        if stage.kind == "ingest":
            run_stage(made, stage)
            found[stage.component.split] = read_all(made, stage, "images").to_pylist()
    return found


def packed(job_file: Path, store: Path) -> dict[str, dict[str, Packed]]:
    """Pack every split of a job. What was packed, by split and id."""
    classes = load_job(job_file).data.class_names()
    return {
        split: {
            row["image_id"]: Packed(
                tuple(classes[tag] for tag in row["tags"]),
                (row["height"], row["width"]),
                None if row["mask"] is None else tuple(np.unique(decode_gray(row["mask"])).tolist()),
            )
            for row in rows
        }
        for split, rows in ingest(job_file, store).items()
    }


def tags(found: dict[str, Packed]) -> dict[str, tuple[str, ...]]:
    return {image_id: one.tags for image_id, one in found.items()}
