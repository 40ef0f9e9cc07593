"""Job files as they are, but for fewer steps and thinner networks, on a folder laid out like VOC 2012."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.local import job_of, run_plan, stage_named
from wsss_ray.data.images import voc_palette
from wsss_ray.job import load_job
from wsss_ray.jobfile import read_document
from wsss_ray.store import RunStore

JOB = Path(__file__).parents[2] / "jobs" / "ficklenet.yaml"
SMALL = [
    *(f"method.{part}.trunk.weights=none" for part in ("classifier", "segmenter", "retrain")),
    *(f"method.{part}.trunk.width=0.125" for part in ("classifier", "segmenter", "retrain")),
    *(f"method.{part}.head.hidden=16" for part in ("segmenter", "retrain")),
    *("method.classifier.epochs=null", "method.classifier.steps=2", "method.segmenter.steps=2", "method.retrain.steps=2"),
    *(f"method.{part}.batch_size=2" for part in ("classifier", "segmenter", "retrain")),
    *("method.localizer.selections=10", "method.relabel.sizes=[161]", "method.metric.scales=[0.5]"),
]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Six images of 120 x 160 with XML tags, palette masks with a 255 border, and saliency maps."""
    root = tmp_path_factory.mktemp("VOC2012")
    rng = np.random.default_rng(0)
    lists = ("ImageSets/SegmentationAug", "ImageSets/Segmentation")
    for folder in ("JPEGImages", "Annotations", "SegmentationClassAug", "Saliency", *lists):
        (root / folder).mkdir(parents=True)
    names = [f"2007_{k:06d}" for k in range(6)]
    for place, name in enumerate(names):
        image = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
        mask = np.zeros((120, 160), np.uint8)
        mask[28:92, 38:102] = 255
        mask[30:90, 40:100] = 12 if place % 2 else 15
        image[mask > 0] = (200, 60, 40) if place % 2 else (40, 60, 200)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        png = Image.fromarray(mask, mode="P")
        png.putpalette(voc_palette().ravel().tolist())
        png.save(root / "SegmentationClassAug" / f"{name}.png")
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(root / "Saliency" / f"{name}.png")
        tag = "dog" if place % 2 else "person"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation><object><name>{tag}</name></object></annotation>")
    (root / "ImageSets/SegmentationAug/train_aug.txt").write_text("\n".join(names[:4]))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[4:]))
    (root / "ImageSets/Segmentation/strong.txt").write_text("\n".join([names[1], names[5]]))
    return root


def test_the_papers_job_runs_on_a_voc_folder(voc, tmp_path):
    job = load_job(JOB, [*SMALL, f"data.root={voc}", f"data.saliency={voc}/Saliency"])
    plan, store = job.plan(), RunStore(str(tmp_path))
    assert [stage.name for stage in plan] == [
        *("images-weak", "classifier", "maps", "saliency", "seeds", "seed_quality", "segmenter", "relabel", "relabel_quality"),
        *("images-val", "retrain", "miou"),
    ]
    run_plan(store, plan)
    maps = store.read_shards(stage_named(plan, "maps"), "maps").to_pylist()
    assert [(row["height"], row["width"], row["classes"]) for row in maps] == [(41, 41, [14]), (41, 41, [11])] * 2
    final = store.record(plan.targets[-1])
    assert final["counts"] == {"images": 2, "errors": 0, "shards": 1}
    assert 0 <= final["metrics"]["miou"] <= 1
    assert len(final["metrics"]["iou"]) == 21


def test_human_masks_of_some_images_are_trained_on(voc, tmp_path):
    """Semi-supervised (Eq. 2 and 3, Table 3): one strong image is among the weak ones, one is not."""
    changes = [f"data.root={voc}", f"data.saliency={voc}/Saliency", "data.strong=ImageSets/Segmentation/strong.txt"]
    plan = load_job(JOB, [*SMALL, *changes, "method.segmenter.batch_size=5", "method.segmenter.steps=1"]).plan()
    store = RunStore(str(tmp_path))
    run_plan(store, plan, last="segmenter")
    segmenter = stage_named(plan, "segmenter")
    assert store.record(segmenter)["counts"]["images"] == 5
    (line,) = map(json.loads, store.read(store.stage_path(segmenter, "metrics.jsonl")).splitlines())
    assert set(line["terms"]) == {"seed", "boundary", "full"}
    assert line["terms"]["full"] == pytest.approx(2 * 2 / 5 * np.log(21), rel=0.2), "alpha / B times two untrained images"


def test_without_saliency_it_says_so_before_it_starts(voc):
    with pytest.raises(ValueError, match=r"set data\.saliency"):
        load_job(JOB, [*SMALL, f"data.root={voc}"]).plan()


def thin(block):
    """The same job with two steps of two images a training, and VGG16 and ResNet38 of an eighth of their channels."""
    if isinstance(block, list):
        return [thin(part) for part in block]
    if not isinstance(block, dict):
        return block
    small = {key: thin(value) for key, value in block.items()}
    if small.get("kind") in ("vgg16", "resnet38"):
        small |= {"weights": "none", "width": 0.125}
    if small.get("kind") == "resnet":
        small |= {"weights": "none"}
    if "batch_size" in small:
        small |= {"batch_size": 2, "steps": 2, "epochs": None}
        small["optimizer"] |= {"lr": 1e-6}  # nets that start at random with fixed batch norms bear no more
    if "iterations" in small:
        small |= {"iterations": 2}
    for key, value in (("selections", 10), ("size", 161), ("sizes", [161]), ("hidden", 16)):
        if small.get(key):
            small[key] = value
    return small


WHOLE = ["mdc", "rrm_two_step_vgg16", "multi_estimations", "dsrg", "cam", "ficklenet_rrm", "ficklenet_estimates",
         "noisy_masks", "mdc_semi"]  # fmt: skip


@pytest.mark.parametrize("name", [*WHOLE, pytest.param("deeplab_resnet101", marks=pytest.mark.slow)])
def test_jobs_run_whole_on_a_voc_folder(voc, tmp_path, name):
    document = thin(read_document(JOB.parent / f"{name}.yaml").expanded())
    document["data"] |= {"root": str(voc), "saliency": str(voc / "Saliency")}
    if name.endswith("semi"):
        document["data"]["strong"] = "ImageSets/Segmentation/strong.txt"
    plan, store = job_of(document).plan(), RunStore(str(tmp_path))
    run_plan(store, plan)
    final = store.record(plan.targets[-1])
    assert final["counts"] == {"images": 2, "errors": 0, "shards": 1}
    assert len(final["metrics"]["iou"]) == 21
    assert all(store.record(stage)["counts"]["errors"] == 0 for stage in plan)
    if name == "multi_estimations":
        assert sum(stage.name.startswith("seeds-") for stage in plan) == 12
        assert sum(stage.name.startswith("classifier-") for stage in plan) == 2
