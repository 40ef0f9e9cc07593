"""What the store says of its runs."""

from __future__ import annotations

import pytest

from tests.local import job_of, run_plan, stage_named
from tests.shapes import tiny_job
from wsss_ray.claims import Claims
from wsss_ray.runners.execute import begin_run
from wsss_ray.status import quality, run_status, sweep_status
from wsss_ray.store import RunStore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store, job = RunStore(str(tmp_path_factory.mktemp("runs"))), job_of(tiny_job())
    plan = job.plan()
    begin_run(job, plan, store)
    run_plan(store, plan, last="maps")
    return store, plan


def test_a_run_that_nobody_makes_is_interrupted(made):
    store, plan = made
    found = run_status(store, "tiny")
    assert (found.state, found.done, found.total, found.now) == ("interrupted", 4, len(plan.stages), "seeds")
    assert (found.made, found.work, found.unit) == (0, 3, "shards")
    assert run_status(store, "another") is None
    assert sweep_status(store, "tiny") is None


def test_what_is_being_made_shows_its_maker_and_how_far_it_is(made):
    store, plan = made
    segmenter = stage_named(plan, "segmenter")
    store.write(store.stage_path(segmenter, "metrics.jsonl"), b'{"step": 2}\n{"step": 4}\n')
    with Claims(store, "attempt-7") as claims:
        assert claims.take(segmenter.id) is None
        found = run_status(store, "tiny")
        assert (found.state, found.now, found.holder) == ("running", "segmenter", "attempt-7")
        assert (found.made, found.work, found.unit) == (4, 6, "steps")
        assert found.silent_s < 60
    path = store.path("claims", f"{segmenter.id}.json")
    store.write_json(path, claims.holder | {"beat": 3, "pid": 2**22 + 1})
    assert run_status(store, "tiny").state == "interrupted", "its process is dead"
    store.delete(path)


def test_a_run_with_all_records_is_done(made):
    store, plan = made
    run_plan(store, plan)
    found = run_status(store, "tiny")
    assert (found.state, found.now, found.done) == ("done", None, len(plan.stages))


def test_the_quality_of_a_training_is_the_last_and_the_best(made):
    store, _ = made
    stage = {"id": "train-0123456789abcdef", "name": "segmenter", "kind": "train"}
    assert quality(store, stage) == []
    path = store.path("stages", stage["id"], "metrics.jsonl")
    store.write(path, b'{"step": 2}\n{"step": 4, "val_miou": 0.5}\n{"step": 6, "val_miou": 0.25}\n{"step": 7}\n')
    assert quality(store, stage) == [
        "segmenter: mIoU on validation images 0.250 after step 6, best 0.500 after step 4"
    ]


def test_a_sweep_counts_its_trials(made):
    store, _ = made
    store.write_json(store.run_path("many", "sweep.json"), {"total": 5})
    store.write_json(store.run_path("many", "trials", "a.json"), {})
    assert sweep_status(store, "many") == (1, 5)
