"""How a cluster is divided among training workers and actors."""

from __future__ import annotations

import pytest

from tests.nodes import cluster
from wsss_ray.config.resources import equal_share, training_share
from wsss_ray.config.run import Execution


def share(have, **run):
    found = training_share(Execution(**run), have)
    return found.workers, found.cpus, found.gpu


def test_cpus_are_divided_and_one_is_left():
    assert share(cluster(8)) == ((1, 1), 7, False)
    assert share(cluster(8), workers=3) == ((3, 3), 2, False)
    assert share(cluster(8), workers=(1, 3)) == ((1, 3), 2, False)
    assert share(cluster(4, 4, 4), workers=2) == ((2, 2), 4, False), "a worker is on one machine"
    assert share(cluster(4, 16, 16, gpus=(0, 4, 2)), workers=6) == ((6, 6), 4, True)
    assert share(cluster(8, 8), workers=3) == ((3, 3), 4, False), "as many as find a place"
    assert share(cluster(9, at_once=2), workers=(1, 9), cpus_per_worker=2) == ((1, 2), 2, False), "no more than its part"
    assert share(cluster(9, at_once=2), workers=2) == ((2, 2), 2, False), "two trials at once have half each"


@pytest.mark.parametrize(
    ("have", "run", "message"),
    [
        (
            cluster(4),
            {"workers": 4, "cpus_per_worker": 1},
            "run.workers = 4 needs 4 CPUs, but the cluster has 3 CPUs and 0 GPUs for the job. Lower run.workers.",
        ),
        (
            cluster(8, gpus=(1,)),
            {"workers": 2},
            "run.workers = 2 needs .* CPUs and 2 GPUs, but the cluster has 7 CPUs and 1 GPUs for the job.",
        ),
        (
            cluster(9, at_once=4),
            {"workers": 3, "cpus_per_worker": 1},
            r"the cluster has 2 CPUs and 0 GPUs for each of 4 trials at once\.",
        ),
        (
            cluster(4, at_once=8),
            {"workers": 1, "cpus_per_worker": 1},
            r"has 0\.375 CPUs and 0 GPUs for .*\. Lower sweep\.max_c",
        ),
        (
            cluster(2, 2, 2),
            {"workers": 1, "cpus_per_worker": 4},
            "but only 0 fit, because the largest machine has 2 CPUs. Lower run.cpus_per_worker.",
        ),
        (cluster(4, 4), {"workers": [3, 9], "cpus_per_worker": 3}, "needs 9 CPUs, but the cluster has 7"),
    ],
)
def test_too_little_is_said_with_the_numbers(have, run, message):
    with pytest.raises(ValueError, match=message):
        training_share(Execution(**run), have)


@pytest.mark.parametrize(("amount", "workers", "expected"), [(8, 4, 1.0), (3, 4, 0.75), (1, 3, 0.33), (1, 1000, 0.01)])
def test_shares_are_hundredths_that_fit(amount, workers, expected):
    assert equal_share(amount, workers) == expected


@pytest.mark.parametrize(("given", "expected"), [(None, None), (3, (3, 3)), ([2, 5], (2, 5))])
def test_image_workers_are_a_range(given, expected):
    assert Execution.model_validate({"image_workers": given}).image_worker_range == expected
