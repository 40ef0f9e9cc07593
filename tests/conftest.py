"""What several folders of tests look at."""

from __future__ import annotations

import pytest

from tests.local import job_of, run_plan
from tests.masked import masked_job
from tests.plugged import make_site
from wsss_ray.runners.execute import begin_run
from wsss_ray.store import RunStore


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A whole run with two segmenters and a CRF in its metric, to be read only: its store and its plan."""
    store = RunStore(str(tmp_path_factory.mktemp("trained")))
    job = job_of(masked_job(run={"store": store.uri}))
    plan = job.plan()
    begin_run(job, plan, store)
    run_plan(store, plan)
    return store, plan


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with two packages of others, one of them installed by pip."""
    return make_site(tmp_path_factory.mktemp("plugged"))
