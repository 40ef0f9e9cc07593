"""Scores that say that something went wrong, although no stage failed."""

from __future__ import annotations

from typing import Any

from tests.local import job_of, stage_named
from tests.tiny import tiny_job_of
from wsss_ray.core.graph import Plan
from wsss_ray.reporting.doubts import doubts

ALL_BACKGROUND = [[900, 0, 0, 0, 0], [40, 0, 0, 0, 0], [30, 0, 0, 0, 0], [30, 0, 0, 0, 0]]
GOOD = [[890, 4, 3, 3, 0], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [5, 0, 0, 25, 0]]
ONE_LOST = [[890, 5, 5, 0, 0], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [30, 0, 0, 0, 0]]


def plan() -> Plan:
    return job_of(tiny_job_of("ficklenet")).plan()


def found(**matrices: list[list[int]]) -> list[str]:
    stages = plan()
    records: dict[str, Any] = {stage_named(stages, name).id: {"metrics": {"confusion": one}} for name, one in matrices.items()}
    return doubts(stages.stages, records)


def test_good_scores_raise_no_doubt():
    assert found(seed_quality=GOOD, relabel_quality=GOOD, miou=GOOD) == []
    assert doubts(plan().stages, {}) == []


def test_a_model_that_calls_everything_background():
    (line,) = found(miou=ALL_BACKGROUND)
    assert line.startswith("miou: mIoU 0.225 is no better than calling every pixel background (0.225). Look at the maps ")


def test_classes_that_are_never_found_are_named():
    (line,) = found(seed_quality=ONE_LOST)
    assert line.startswith("seed_quality: 1 of 3 classes is never found: bar. Look at their maps in the report; ")


def test_a_relabelling_that_loses_the_foreground():
    small = [[896, 2, 1, 1, 0], [30, 10, 0, 0, 0], [20, 0, 10, 0, 0], [20, 0, 0, 10, 0]]
    (line,) = found(seed_quality=GOOD, relabel_quality=small)
    assert line.startswith("relabel_quality: relabelling shrinks the foreground from 10% to 3% of the pixels. ")
    assert found(relabel_quality=small) == [], "there is nothing to compare with"


def test_undecided_pixels_are_neither_foreground_nor_background():
    undecided = [[0, 0, 0, 0, 900], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [5, 0, 0, 25, 0]]
    assert found(seed_quality=undecided) == []


def test_images_without_objects_say_nothing():
    assert found(miou=[[900, 0, 0, 0, 0], [0] * 5, [0] * 5, [0] * 5]) == []
