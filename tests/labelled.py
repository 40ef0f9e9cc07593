"""Photographs of many names and sizes, and a run whose pseudo-labels are given, so that one knows what an export must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.local import commit, job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.data.codecs import encode_labels
from wsss_ray.storage.shards import list_shards, read_shard, write_shard
from wsss_ray.storage.store import RunStore

CLASSES = ("C#", "big dog", "x:y", "#1")
SIDE = 24
PHOTOS = {  # file -> size as stored (width, height), tags
    "holiday 2019/Foto 00074.JPG": ((64, 40), ("C#", "big dog")),  # turned by EXIF
    "holiday 2019/dog #1.jpeg": ((32, 48), ("big dog",)),
    "ä b/x.tar.png": ((24, 10), ("#1", "x:y")),  # not shrunk
    "plain.webp": ((32, 32), ("x:y",)),
    "strange.tif": ((96, 28), ()),
}
TURNED = "holiday 2019/Foto 00074.JPG"


def full_size(file):
    """Height and width of a photograph as one sees it."""
    (width, height), _ = PHOTOS[file]
    return (width, height) if file == TURNED else (height, width)


def nearest(label_HW, height, width):
    """Every pixel takes the label at its centre. No photograph here has a centre on the border of two packed pixels."""
    sides = zip((height, width), label_HW.shape, strict=True)
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in sides)
    return label_HW[rows][:, columns]


def make_labelled(folder: Path) -> tuple[Path, RunStore, Any, dict[str, np.ndarray]]:
    """The folder, the store and the plan of the run, and by file the label maps that should come out."""
    rng = np.random.default_rng(0)
    lines = ["image,tags"]
    for file, (size, tags) in PHOTOS.items():
        path = folder / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if file == TURNED:
            exif[0x0112] = 6
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(path, exif=exif)
        lines.append(f'"{file}","{";".join(tags)}"')
    (folder / "tags.csv").write_text("\n".join(lines))
    data = {"kind": "folder", "root": str(folder / "photos"), "tags": str(folder / "tags.csv"), "max_side": SIDE, "shard_size": 2}
    store = RunStore(str(folder / "runs"))
    plan = job_of(tiny_job(data=data | {"classes": list(CLASSES)})).plan()
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    store.write_json(store.run_path("tiny", "run.json"), {"name": "tiny", "stages": stages})
    run_plan(store, plan, last="images-weak")
    images, seeds = stage_named(plan, "images-weak"), stage_named(plan, "seeds")
    labels = {}
    for shard in list_shards(store, images):
        rows = []
        for row in read_shard(store, images, shard, "images"):
            label_HW = rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (row["height"], row["width"]))
            rows.append({"image_id": row["image_id"], "seed": encode_labels(label_HW)})
            labels[row["file"]] = nearest(label_HW, *full_size(row["file"]))
        write_shard(store, seeds, shard, "seeds", rows)
    commit(store, seeds)
    return folder, store, plan, labels
