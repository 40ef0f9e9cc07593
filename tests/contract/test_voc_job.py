"""Job files as they are, but for fewer steps and thinner networks, on a folder laid out like VOC 2012."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.local import job_of, run_plan, stage_named
from tests.tiny import skip_without_extras
from tests.voc_folder import make_voc, thin
from wsss_ray.config.document import read_document
from wsss_ray.config.job import load_job
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

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
    return make_voc(tmp_path_factory.mktemp("VOC2012"))


def test_the_papers_job_runs_on_a_voc_folder(voc, tmp_path):
    job = load_job(JOB, [*SMALL, f"data.root={voc}", f"data.saliency={voc}/Saliency"])
    plan, store = job.plan(), RunStore(str(tmp_path))
    assert [stage.name for stage in plan] == [
        *("images-weak", "images-val", "saliency"),
        *("classifier", "tag_quality", "maps", "seeds", "seed_quality"),
        *("segmenter", "relabel", "relabel_quality", "retrain", "miou"),
    ]
    run_plan(store, plan)
    maps = read_all(store, stage_named(plan, "maps"), "maps").to_pylist()
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
    with pytest.raises(ValueError, match=r"Set data\.saliency to their folder"):
        load_job(JOB, [*SMALL, f"data.root={voc}"]).plan()


WHOLE = ["mdc", "rrm_two_step_vgg16", "multi_estimations", "dsrg", "cam", "ficklenet_rrm", "ficklenet_estimates",
         "noisy_masks", "mdc_semi", "rrm_as_printed", "psa", "mctformer"]  # fmt: skip
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("deeplab_resnet101", "clip_es")]


@pytest.mark.parametrize("name", [*WHOLE, *LARGE])
def test_jobs_run_whole_on_a_voc_folder(voc, tmp_path, name):
    if name in ("mctformer", "clip_es"):
        skip_without_extras(name)
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
