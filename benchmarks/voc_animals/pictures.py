r"""Draw what trained jobs make of photographs: image, saliency, localization map, seeds and prediction, side by side.

    python -m benchmarks.voc_animals.pictures OUT.png --store runs --photo dog=dog.jpg --photo cat=kitten.jpg \
        --job "benchmarks/voc_animals/cam.yaml:CAM, saliency and CRF" --set data.root=...

A photograph is given with its tag. It need not be one of the data set: nothing of the data set is drawn. Give --job (with a
trial, if it has several) once for a row with everything, or several times for the maps, seeds and predictions of each.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from wsss_ray.config.job import plans_of, read_job
from wsss_ray.core.contracts import Segmenter
from wsss_ray.core.graph import Plan
from wsss_ray.core.rules import Localizer, Metric, SaliencyNet, SeedRule
from wsss_ray.core.values import IGNORE
from wsss_ray.data.palette import voc_palette
from wsss_ray.engine.networks import load_model
from wsss_ray.reporting.report.pictures import heat_over
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray

SIDE, GAP, LINE = 240, 6, 20


@dataclass(frozen=True)
class Made:
    """What a job makes of one photograph; None where it has no such stage."""

    saliency: ImageArray | None
    maps: ImageArray | None
    seeds: LabelArray | None
    prediction: LabelArray


def resized(image_HWC: ImageArray, side: int) -> ImageArray:
    """Resize an image so that its longer side has `side` pixels."""
    scale = side / max(image_HWC.shape[:2])
    size = (round(image_HWC.shape[1] * scale), round(image_HWC.shape[0] * scale))
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.LANCZOS))


def overlay(image_HWC: ImageArray, label_HW: LabelArray) -> ImageArray:
    """Lay labels over the image: objects in the colours of VOC, undecided pixels white, and the background as it is."""
    color_HWC = voc_palette()[label_HW].astype(np.float64)
    color_HWC[label_HW == IGNORE] = 255
    weight_HW1 = np.where(label_HW == 0, 0.0, np.where(label_HW == IGNORE, 0.6, 0.65))[..., None]
    return np.asarray((image_HWC * (1 - weight_HW1) + color_HWC * weight_HW1).round(), np.uint8)


def make(store: RunStore, plan: Plan, image_HWC: ImageArray, tag: int) -> Made:
    """Run the stages of a finished plan on one photograph."""
    saliency_HW = maps = seeds = prediction = None
    for stage in plan:
        part = stage.component
        if isinstance(part, SaliencyNet):
            (saliency_HW,) = part.saliency(part.build(), [image_HWC])
        elif isinstance(part, Localizer) and maps is None:
            maps = part.localize(load_model(store, stage.input("model"), "cpu"), image_HWC, (tag,), 0)
        elif isinstance(part, SeedRule) and maps is not None and seeds is None:
            seeds = part.seed(image_HWC, maps, saliency_HW)
        elif isinstance(part, Metric):
            learner = stage.input("model").component
            assert isinstance(learner, Segmenter)
            prediction = part.predict(learner, load_model(store, stage.input("model"), "cpu"), image_HWC)
    if prediction is None:
        raise SystemExit("error: the plan scores no model on validation images")
    drawn: dict[str, Any] = {"saliency": None, "maps": None}
    if saliency_HW is not None:
        drawn["saliency"] = heat_over(image_HWC, saliency_HW)
    if maps is not None:
        from wsss_ray.ops.seeds import resize_maps

        (map_HW,) = resize_maps(maps.peak_CHW, *image_HWC.shape[:2], maps.rows, maps.columns)
        drawn["maps"] = heat_over(image_HWC, map_HW)
    return Made(**drawn, seeds=seeds, prediction=prediction)


def sheet(rows: list[list[ImageArray]], titles: list[str]) -> Image.Image:
    """Put pictures into a grid, with a title above each column."""
    height = max(image.shape[0] for row in rows for image in row)
    width = max(image.shape[1] for row in rows for image in row)
    size = (len(titles) * (width + GAP) - GAP, LINE + len(rows) * (height + GAP) - GAP)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        pen.text((column * (width + GAP) + 2, 2), title, fill="black", font_size=14)
    for place, row in enumerate(rows):
        for column, image in enumerate(row):
            page.paste(Image.fromarray(image), (column * (width + GAP), LINE + place * (height + GAP)))
    return page


def main() -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--store", default="runs")
    parser.add_argument("--photo", action="append", required=True, metavar="TAG=FILE")
    parser.add_argument("--job", action="append", required=True, metavar="FILE[:TRIAL]")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    store, jobs = RunStore(options.store), []
    for given in options.job:
        path, _, trial = given.partition(":")
        loaded = read_job(Path(path), options.set)
        named = {one.trial.name: one.job for one in reversed(loaded.trials())} or {loaded.job.name: loaded.job}
        if trial and trial not in named:
            raise SystemExit(f"error: {path}: no trial {trial!r}; there are: {', '.join(named)}")
        name = trial or next(reversed(named))
        (plan,) = plans_of([named[name]])
        jobs.append((name, named[name].data.class_names(), plan))
    rows, titles = [], ["photograph"]
    for photo in options.photo:
        tag, _, path = photo.partition("=")
        image_HWC = resized(np.asarray(Image.open(path).convert("RGB")), 320)
        row, titles = [image_HWC], ["photograph"]
        for name, classes, plan in jobs:
            made = make(store, plan, image_HWC, classes.index(tag))
            if len(jobs) == 1 and made.saliency is not None:
                row.append(made.saliency)
                titles.append("saliency")
            if made.maps is not None:
                row.append(made.maps)
                titles.append("localization map" if len(jobs) == 1 else f"{name}: map")
            if made.seeds is not None:
                row.append(overlay(image_HWC, made.seeds))
                titles.append("pseudo-label" if len(jobs) == 1 else f"{name}: seeds")
            row.append(overlay(image_HWC, made.prediction))
            titles.append("segmentation model" if len(jobs) == 1 else f"{name}: model")
        rows.append([resized(image, SIDE) for image in row])
    sheet(rows, titles).save(options.out)


if __name__ == "__main__":
    main()
