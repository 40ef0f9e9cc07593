"""A small store for the report's slider: maps of two classes, saliency, and seeds by every kind of rule with a threshold."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.local import run_stage
from tests.recipes import CalledSeeds, RecipeSeeds
from tests.unit.test_report import CLASSES, HOSTILE, ReportPart, ReportSource, draw, record
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage, evaluate_seeds, ingest, seed
from wsss_ray.core.rules import SeedScore
from wsss_ray.core.values import Axis, Maps
from wsss_ray.data.codecs import encode_gray, encode_labels, encode_maps
from wsss_ray.data.source import describe
from wsss_ray.methods.common.seed_rules import CrfSeeds, ThresholdSeeds
from wsss_ray.methods.mdc import RegionSeeds
from wsss_ray.ops.background import CamBackground, PowerBackground, SaliencyBackground
from wsss_ray.storage.shards import write_shard
from wsss_ray.storage.store import RunStore

SIZE = (150, 230)  # larger than the thumbnails
AXES = (Axis(first=0.07, step=0.11), Axis(first=0.05, step=0.09))
IMAGES = 6
RULES = {
    "mean": ThresholdSeeds(theta=0.3, background=CamBackground(threshold=0.2), conflict="ignore"),
    "power": ThresholdSeeds(theta=0.45, background=PowerBackground(gamma=3), conflict="background"),
    "peak": CrfSeeds(background=CamBackground(threshold=0.5), crf=None),
    "salient": ThresholdSeeds(theta=0.25, background=SaliencyBackground(threshold=0.4), conflict="background"),
    "share": RegionSeeds(share=0.4, background=CamBackground(threshold=0.1)),
    "plugged": RecipeSeeds(threshold=0.6, source="mean", region="below_maximum", winner="peak", unclaimed="background"),
    "called": CalledSeeds(threshold=0.35),
}


def maps_of(index: int) -> Maps:
    """Two classes with a peak and a mean of their own, smooth and with flat parts."""
    rng = np.random.default_rng(index)
    peak = (rng.random((2, 9, 11)) ** 2).astype(np.float16).astype(np.float32)
    mean = (peak * rng.choice([0.25, 0.5, 1.0], (2, 9, 11))).astype(np.float16).astype(np.float32)
    classes = (index % len(CLASSES), (index + 1) % len(CLASSES))
    return Maps(classes, peak_CHW=peak, mean_CHW=mean, rows=AXES[0], columns=AXES[1])


def saliency_of(index: int) -> np.ndarray:
    """Smooth, as large as the image."""
    coarse = np.random.default_rng(100 + index).integers(0, 256, (4, 6)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BILINEAR))


def fill(store: RunStore) -> Plan:
    """Images, masks and maps written here; seeds and their scores made by the real stages."""
    weak = ingest(describe(ReportSource(count=IMAGES), "weak"), name=HOSTILE)
    maps = Stage("localize", "maps", ReportPart(title="maps"), (("data", weak),))
    salient = Stage("ingest", "saliency", weak.component, (("like", weak),))
    rules = [seed(rule, maps, weak, saliency=salient, name=f"by {name}") for name, rule in RULES.items()]
    plan = Plan.of([evaluate_seeds(SeedScore(), rule, weak, name=f"score {rule.name}") for rule in rules])
    for shard in range(2):
        images, found, saliency = [], [], []
        for index in range(4 * shard, min(IMAGES, 4 * shard + 4)):
            image, mask = draw(index, SIZE)
            tags, name = list(maps_of(index).classes), f"weak_{index:02d}"
            row = {"image_id": name, "tags": tags, "height": SIZE[0], "width": SIZE[1], "image": image, "sha256": "0" * 64}
            images.append(row | {"mask": encode_labels(mask)})
            found.append({"image_id": name} | encode_maps(maps_of(index)))
            saliency.append({"image_id": name, "saliency": encode_gray(saliency_of(index))})
        write_shard(store, weak, shard, "images", images)
        write_shard(store, salient, shard, "saliency", saliency)
        write_shard(store, maps, shard, "maps", found)
    for stage in (weak, maps, salient):
        record(stage, store, images=IMAGES)
    for stage in plan:
        if stage.kind in ("seed", "evaluate"):
            run_stage(store, stage)
    store.write(store.run_path("a", "logs", "x y#<b>.log"), b"")
    return plan
