"""One local Ray for all tests of this folder, small and quiet."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="package")  # the tests of other folders must not find its address
def ray_session():
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["OMP_NUM_THREADS"] = "1"
    from wsss_ray.runners.cluster import ray_session as session

    with session(needs_cpus=4) as have:
        yield have
