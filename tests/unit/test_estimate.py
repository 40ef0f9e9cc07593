"""What a job gets on a machine, and what it lacks there."""

from __future__ import annotations

import shutil

import pytest

from wsss_ray.config.run import Execution
from wsss_ray.preflight.estimate import Estimate, JobResources, free_disk, memory_shortage
from wsss_ray.preflight.survey.sizes import Machine
from wsss_ray.storage.store import RunStore

LAPTOP = Machine(cpus=8, memory=16e9)
WITH_GPUS = Machine(cpus=8, memory=64e9, gpus=(24e9, 24e9))


@pytest.mark.parametrize(
    ("machine", "run", "expected"),
    [
        (LAPTOP, {}, JobResources(workers=1, threads=8, cpus=8, gpus=0)),
        (LAPTOP, {"workers": [1, 4]}, JobResources(workers=4, threads=2, cpus=8, gpus=0)),
        (LAPTOP, {"gpu": True}, JobResources(workers=1, threads=8, cpus=8, gpus=0)),
        (LAPTOP, {"workers": 4, "cpus_per_worker": 3}, JobResources(workers=4, threads=3, cpus=12, gpus=0)),
        (Machine(cpus=1, memory=4e9), {}, JobResources(workers=1, threads=2, cpus=2, gpus=0)),
        (WITH_GPUS, {"workers": 2}, JobResources(workers=2, threads=4, cpus=8, gpus=2)),
        (WITH_GPUS, {"gpu": False}, JobResources(workers=1, threads=8, cpus=8, gpus=0)),
    ],
)
def test_a_job_gets_what_a_private_ray_would_give(machine, run, expected):
    assert JobResources.on(machine, Execution(**run)) == (expected, None)


def test_a_job_that_does_not_fit_gets_machines_like_this_one():
    resources, problem = JobResources.on(WITH_GPUS, Execution(workers=4))
    assert resources == JobResources(workers=4, threads=8, cpus=8, gpus=2)
    assert problem is not None
    assert problem.startswith("run.workers = 4 needs ")
    assert problem.endswith(" 4 GPUs, but the cluster has 8 CPUs and 2 GPUs for the job. Lower run.workers.")


def stage(name, processes, resident):
    return Estimate(name, False, 10, "images", 1.0, 10.0, processes, resident, 0, 1.0)


def test_the_stage_that_takes_the_most_memory_is_found():
    small, large = stage("maps", 1, 5_000), stage("seeds", 4, 2_000)
    assert memory_shortage([small, large], 7_999) is large
    assert memory_shortage([small, large], 8_000) is None


def test_free_disk_of_a_store_that_is_not_there_yet(tmp_path):
    store = RunStore(str(tmp_path / "not" / "there"))
    assert free_disk(store) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert not (tmp_path / "not").exists()
