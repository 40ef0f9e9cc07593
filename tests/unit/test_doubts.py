"""Scores and counts that say that something went wrong, although no stage failed."""

from __future__ import annotations

from typing import Any

from tests.local import job_of, stage_named
from tests.tiny import tiny_job_of
from wsss_ray.core.graph import Plan
from wsss_ray.reporting.doubts import FEW, doubts

ALL_BACKGROUND = [[900, 0, 0, 0, 0], [40, 0, 0, 0, 0], [30, 0, 0, 0, 0], [30, 0, 0, 0, 0]]
GOOD = [[890, 4, 3, 3, 0], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [5, 0, 0, 25, 0]]
ONE_LOST = [[890, 5, 5, 0, 0], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [30, 0, 0, 0, 0]]
CHANCE = {"chance": 0.3, "chance_deviation": 0.05, "scored": 50}


def plan() -> Plan:
    return job_of(tiny_job_of("ficklenet")).plan()


def found(tagged: list[int] | None = None, map: float | None = None, **matrices: list[list[int]]) -> list[str]:
    """The doubts about a whole run of which these scores are known, and how many training images have each tag."""
    stages, records = plan(), []
    known: dict[str, Any] = {name: {"confusion": one} for name, one in matrices.items()}
    known |= {"images-weak": {"tagged": tagged}} if tagged is not None else {}
    known |= {"tag_quality": CHANCE | {"map": map}}
    for stage in stages:
        about = {"id": stage.id, "kind": stage.kind, "inputs": [[role, source.id] for role, source in stage.inputs]}
        records.append((stage.name, about | {"identity": stage.identity(), "metrics": known.get(stage.name, {})}))
    return doubts(records)


def test_good_scores_raise_no_doubt():
    assert found(seed_quality=GOOD, relabel_quality=GOOD, miou=GOOD, map=0.8, tagged=[FEW] * 3) == []
    assert doubts([]) == []


def test_a_model_that_calls_everything_background():
    (line,) = found(miou=ALL_BACKGROUND)
    assert line.startswith("miou: mIoU 0.225 is no better than calling every pixel background (0.225). Look at the maps ")


def test_classes_that_are_never_found_are_named():
    (line,) = found(seed_quality=ONE_LOST)
    assert line.startswith("seed_quality: 1 of 3 classes is never found: bar. Look at their maps in the report; ")


def test_a_relabelling_that_loses_the_foreground():
    small = [[896, 2, 1, 1, 0], [30, 10, 0, 0, 0], [20, 0, 10, 0, 0], [20, 0, 0, 10, 0]]
    (line,) = found(seed_quality=GOOD, relabel_quality=small)
    assert line.startswith("relabel_quality: relabelling shrinks the foreground from 10 % to 3 % of the pixels. ")
    assert found(relabel_quality=small) == [], "there is nothing to compare with"


def test_undecided_pixels_are_neither_foreground_nor_background():
    undecided = [[0, 0, 0, 0, 900], [5, 35, 0, 0, 0], [5, 0, 25, 0, 0], [5, 0, 0, 25, 0]]
    assert found(seed_quality=undecided) == []


def test_images_without_objects_say_nothing():
    assert found(miou=[[900, 0, 0, 0, 0], [0] * 5, [0] * 5, [0] * 5]) == []


def test_tags_within_two_deviations_of_chance_are_no_better_than_chance():
    (line,) = found(map=0.4)
    assert line.startswith("tag_quality: mAP 0.400 of the tags is no better than chance (0.300, and by luck up to 0.400 with 50 ")
    assert found(map=0.401) == []


def test_so_few_images_that_perfect_tags_could_be_luck_say_nothing(monkeypatch):
    monkeypatch.setitem(CHANCE, "chance_deviation", 0.35)
    assert found(map=0.9) == []


def test_classes_with_few_training_images_are_counted():
    (line,) = found(tagged=[FEW - 1, FEW, 0])
    assert line.startswith("images-weak: 2 of 3 classes have fewer than 20 images: square 19, bar 0. ")
    (line,) = found(tagged=[FEW, 7, 100])
    assert line.startswith("images-weak: 1 of 3 classes has fewer than 20 images: disc 7. ")


def test_few_images_are_those_that_miss_a_view_of_a_seventh_once_in_twenty_times():
    assert (6 / 7) ** FEW < 1 / 20 < (6 / 7) ** (FEW - 1)


def test_the_counts_of_validation_images_do_not_matter():
    stages = plan()
    val = stage_named(stages, "images-val")
    record = {"id": val.id, "kind": "ingest", "inputs": [], "identity": val.identity(), "metrics": {"tagged": [1, 1, 1]}}
    assert doubts([(val.name, record)]) == []
