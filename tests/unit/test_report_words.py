"""The names of stages in words, in the report of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import wsss_ray
from tests.shapes import tiny_job
from tests.unit.test_report import JOB, Page
from wsss_ray.config.planning import open_store
from wsss_ray.reporting import report
from wsss_ray.reporting.headings import kind_words, stage_words

STAGES = json.loads((Path(__file__).parents[1] / "contract/stage_ids.json").read_text())["jobs"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("miou", "Model on the validation images"),
        ("maps-2.1", "Localization maps 2.1"),
        ("images-val", "Validation images"),
        ("features-2", "Features of the frozen trunk 2"),
        ("my_stage", "my_stage"),
        ("my-stage-3", "my-stage-3"),
        ("seeds-x", "seeds-x"),
        ("<b>", "<b>"),
    ],
)
def test_words_for_the_names_that_are_known(name: str, words: str) -> None:
    assert stage_words(name) == words


def test_every_stage_of_every_job_has_words() -> None:
    known = [line.split(" ", 1) for job in STAGES.values() for line in job["stages"]]
    assert len(known) > 100
    assert {name for _, name in known if stage_words(name) == name} == set()
    assert {stage.partition("-")[0] for stage, _ in known if kind_words(stage.partition("-")[0]) == stage} == set()


def test_every_kind_and_name_of_a_plan_has_words_and_its_name_beside_them(tmp_path: Path) -> None:
    plan = wsss_ray.plan(tiny_job(), store=tmp_path).plan
    page = Page(report.build(open_store(str(tmp_path)), "r", plan, JOB).decode())
    for stage in plan:
        assert stage_words(stage.name) != stage.name
        assert kind_words(stage.kind) != stage.kind
        assert stage_words(stage.name) in page.texts
        assert any(stage.name in text.split(", ")[0].split() for text in page.texts), stage.name
