"""What the check says would make a job shorter."""

from __future__ import annotations

import pytest

from tests.local import job_of
from wsss_ray.config.job import JobConfig
from wsss_ray.preflight.advice import advice
from wsss_ray.preflight.estimate import Estimate

TRUNK = {"kind": "efficientnet_lite0", "frozen": True}
WARP = {"kind": "warp", "size": 65}


def lines(job: JobConfig, seconds: dict[str, float], *, done: tuple[str, ...] = (), gpu: bool = False) -> list[str]:
    plan = job.plan()
    found = [
        Estimate(stage.name, stage.name in done, 10, "images", 1.0, seconds.get(stage.name, 1.0), 1, 1, 0, 1.0) for stage in plan
    ]
    return advice(job, plan, found, gpu=gpu)


def cam(trunk: dict, augment: dict, *, inference: str = "plain") -> JobConfig:
    learner = {"trunk": trunk, "augment": augment, "epochs": 4}
    segmenter = {"kind": "deeplab_segmenter", "trunk": trunk, "augment": augment, "epochs": 4, "steps": None}
    metric = {"scales": [1.0], "flip": True}
    method = {"name": "cam", "classifier": learner, "segmenter": segmenter, "metric": metric}
    return job_of({"name": "a", "method": method, "data": {"kind": "shapes"}, "run": {"inference": inference}})


@pytest.mark.parametrize(
    ("trunk", "augment", "inference", "gpu", "expected"),
    [
        (TRUNK, WARP, "plain", False, "run.inference: fused"),
        (TRUNK, {"kind": "random_crop", "size": 65}, "fused", False, "method.classifier.augment: {kind: warp, size: 65}"),
        (TRUNK, {"kind": "random_crop", "size": 65}, "plain", False, "size: 65} and run.inference: fused (it reads features"),
        (TRUNK, WARP, "fused", False, "fewer method.classifier.epochs (now 4; worse)"),
        (TRUNK | {"frozen": False}, WARP, "fused", False, "method.classifier.trunk.frozen: true and run.inference: fused"),
        (TRUNK | {"frozen": False}, WARP, "fused", True, "fewer method.classifier.epochs"),
        ({"kind": "resnet"}, WARP, "fused", False, "method.classifier.trunk.frozen: 5 and run.inference: fused"),
        ({"kind": "vgg16"}, WARP, "fused", False, "fewer method.classifier.epochs"),
    ],
)
def test_the_slowest_stage_is_named_with_the_field_that_decides_it(trunk, augment, inference, gpu, expected):
    found = lines(cam(trunk, augment, inference=inference), {"classifier": 91.0}, gpu=gpu)
    assert found[0].startswith("classifier takes 9")
    assert expected in found[0]


def test_only_stages_that_take_long_and_are_not_done_are_named():
    job = cam(TRUNK, WARP, inference="fused")
    quick = dict.fromkeys(("segmenter", "maps", "seeds"), 1.0) | {"features": 100.0}
    assert [line.split()[0] for line in lines(job, quick | {"classifier": 900.0})] == ["classifier"]
    assert lines(job, quick | {"classifier": 900.0}, done=("classifier",)) == []
    (line,) = lines(job, quick | {"miou": 900.0})
    assert line.endswith("with method.metric.flip: false (one pass through the network in the place of two; slightly worse).")
