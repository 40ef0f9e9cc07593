"""A run of which all is done, and a copy of it to be damaged. Modules that want another run define `whole` themselves."""

from __future__ import annotations

import pytest

from tests.damage import copy_of
from tests.local import whole_run
from tests.shapes import tiny_job
from wsss_ray.core.graph import Plan
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[RunStore, Plan]:
    """A run of the tiny job."""
    return whole_run(tmp_path_factory.mktemp("whole") / "runs", tiny_job())


@pytest.fixture
def run(whole, tmp_path) -> tuple[RunStore, Plan]:
    """A copy of a whole run."""
    return copy_of(whole[0], tmp_path / "runs"), whole[1]
