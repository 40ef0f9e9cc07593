"""Draw docs/demo.png from the demo's run: the first two scenes with two tags of the training images, and of the held-out ones.

wsss-ray submit jobs/demo.yaml && python docs/picture.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsss_ray.config.job import load_job
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.codecs import decode_gray, decode_maps, decode_rgb
from wsss_ray.data.palette import voc_palette
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.reporting.report.pictures import heat_over
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore

SIDE, GAP, CAPTION = 112, 6, 16
Cell = tuple[str, NDArray[np.uint8]]


def stage_named(plan: Plan, name: str) -> Stage:
    """One stage of the plan."""
    return next(stage for stage in plan if stage.name == name)


def shard(store: RunStore, plan: Plan, name: str, schema: str) -> list[dict[str, Any]]:
    """The first shard of a stage."""
    return read_shard(store, stage_named(plan, name), 0, schema)


def training_rows(store: RunStore, plan: Plan, classes: Sequence[str]) -> list[list[Cell]]:
    """Image, two maps, seeds, mask."""
    parts = [shard(store, plan, *part) for part in (("maps", "maps"), ("seeds", "seeds"))]
    rows = []
    for image, maps, seed in zip(shard(store, plan, "images-weak", "images"), *parts, strict=True):
        if len(image["tags"]) == 2 and len(rows) < 2:
            image_HWC, found = decode_rgb(image["image"]), decode_maps(maps)
            peak_CHW = resize_maps(found.peak_CHW, *image_HWC.shape[:2], found.rows, found.columns)
            heats = [heat_over(image_HWC, map_HW) for map_HW in peak_CHW]
            rows.append(
                [
                    ("image", image_HWC),
                    *((f"map: {classes[k]}", heat) for k, heat in zip(found.classes, heats, strict=True)),
                    ("seeds", voc_palette()[decode_gray(seed["seed"])]),
                    ("mask (not used)", voc_palette()[decode_gray(image["mask"])]),
                ]
            )
    return rows


def held_out_row(store: RunStore, plan: Plan) -> list[Cell]:
    """Twice image, prediction, mask."""
    cells: list[Cell] = []
    for image, score in zip(shard(store, plan, "images-val", "images"), shard(store, plan, "miou", "scores"), strict=True):
        if len(image["tags"]) == 2 and len(cells) < 6:
            cells.append(("held-out image", decode_rgb(image["image"])))
            cells.append(("prediction", voc_palette()[decode_gray(score["prediction"])]))
            cells.append(("mask", voc_palette()[decode_gray(image["mask"])]))
    return cells


def draw(rows: list[list[Cell]]) -> Image.Image:
    """A grid of captioned pictures."""
    sheet = Image.new("RGB", (6 * (SIDE + GAP) - GAP, len(rows) * (SIDE + CAPTION + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for y, cells in enumerate(rows):
        for x, (caption, picture) in enumerate(cells):
            left, top = x * (SIDE + GAP), y * (SIDE + CAPTION + GAP)
            pen.text((left, top), caption, fill=(60, 60, 60), font=font)
            sheet.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top + CAPTION))
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="jobs/demo.yaml")
    parser.add_argument("--store", default="runs")
    parser.add_argument("--out", default="docs/demo.png")
    options = parser.parse_args()
    job, store = load_job(options.job), RunStore(options.store)
    plan = job.plan()
    if store.record(plan.targets[-1]) is None:
        sys.exit(f"{options.job} is not done in {store.uri}; run: wsss-ray submit {options.job}")
    rows = [*training_rows(store, plan, job.data.class_names()), held_out_row(store, plan)]
    draw(rows).quantize(128).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
