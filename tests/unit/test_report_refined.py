"""The mIoU of seeds after the CRF at a few thresholds, in the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report_set import IMAGES, SIZE, fill, maps_of, saliency_of
from tests.unit.test_report import CLASSES, JOB, Page, draw
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.core.rules import SeedRule
from wsss_ray.data.codecs import decode_rgb
from wsss_ray.methods.common.seed_rules import ThresholdSeeds
from wsss_ray.ops.background import CamBackground, SaliencyBackground
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.reporting import report
from wsss_ray.reporting.report.markup import number
from wsss_ray.reporting.report.refined import Refined, refined
from wsss_ray.reporting.report.thresholds import Curve, Rule, curve
from wsss_ray.storage.store import RunStore

CRF = DenseCrf(iterations=2, bilateral_sxy=20)
LABELS = len(CLASSES) + 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, tuple[tuple[str, Stage], ...]]:
    made = RunStore(str(tmp_path_factory.mktemp("store")))
    return made, next(stage for stage in fill(made) if stage.kind == "seed").inputs


def score(store: tuple[RunStore, Any], part: SeedRule) -> tuple[Curve | None, Refined | None]:
    rule = Rule.of(Stage("seed", "seeds", part, store[1]))
    assert rule is not None
    before = curve(store[0], rule, LABELS, IMAGES)
    return before, refined(store[0], rule, before, LABELS)


@pytest.mark.parametrize("background", [CamBackground(threshold=0.2), SaliencyBackground(threshold=0.4)], ids=["cam", "saliency"])
def test_the_figures_are_those_of_the_rule_with_its_crf(store: Any, background: Any) -> None:
    part = ThresholdSeeds(theta=0.33, background=background, crf=CRF)
    _, found = score(store, part)
    assert found is not None
    assert found.images == IMAGES
    assert len(found.points) == 5
    thetas = [point.theta for point in found.points]
    assert thetas == sorted(thetas)
    assert 0.33 in thetas, "the threshold of the job is among them"
    for point in found.points:
        for crf, value in ((CRF, point.after), (None, point.before)):
            rule = ThresholdSeeds(theta=point.theta, background=background, crf=crf)
            total = np.zeros((LABELS, LABELS + 1), np.int64)
            for index in range(IMAGES):
                image, mask = draw(index, SIZE)
                label = rule.seed(decode_rgb(image), maps_of(index), saliency_of(index).astype(np.float32) / np.float32(255))
                total += confusion(mask, label, LABELS)
            assert value == pytest.approx(scores(total).miou, abs=1e-9)
    assert any(point.before != point.after for point in found.points)


def test_without_a_crf_nothing_is_scored_again(store: Any) -> None:
    before, found = score(store, ThresholdSeeds(theta=0.3, background=CamBackground(threshold=0.2)))
    assert before is not None
    assert found is None


def test_the_report_says_that_it_is_a_sample(store: Any, tmp_path: Path) -> None:
    rule = Stage("seed", "seeds", ThresholdSeeds(theta=0.3, background=CamBackground(threshold=0.2), crf=CRF), store[1])
    page = Page(report.build(store[0], "r", Plan.of([rule]), JOB).decode())
    _, found = score(store, rule.component)  # type: ignore[arg-type]
    assert found is not None
    assert f"mIoU of a sample of {IMAGES} images, before and after the CRF" in page.texts
    for point in found.points:
        row = page.texts[page.texts.index(f"{point.theta:.2f}", page.texts.index("after the CRF")) :][:6]
        assert [text for text in row if text.startswith("0.")][1:3] == [number(point.before), number(point.after)]
    assert sum(attrs.get("class") == "refined" for name, attrs in page.tags if name == "circle") == len(found.points)
