"""Counts in words."""

from __future__ import annotations

import pytest

from wsss_ray.core.counted import counted
from wsss_ray.reporting.words import work_done


@pytest.mark.parametrize(
    ("count", "noun", "verb", "words"),
    [
        (0, "image", None, "0 images"),
        (1, "image", None, "1 image"),
        (1, "class", None, "1 class"),
        (20, "class", "have", "20 classes have"),
        (1, "stage", "belong", "1 stage belongs"),
        (2, "stage", "are", "2 stages are"),
    ],
)
def test_a_count_and_its_verb_agree(count, noun, verb, words):
    assert counted(count, noun, verb) == words


def test_the_work_of_a_stage():
    assert [work_done(counts) for counts in ({}, {"steps": 1, "images": 9}, {"images": 12})] == ["", "1 step", "12 images"]
