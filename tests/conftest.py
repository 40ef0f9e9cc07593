"""What several folders of tests look at."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A whole run with two segmenters and a CRF in its metric, to be read only: its store and its plan."""
    from tests.local import whole_run  # here, because `make gpu` has neither Ray nor the packages of the command line
    from tests.masked import masked_job

    folder = tmp_path_factory.mktemp("trained")
    return whole_run(folder, masked_job(run={"store": str(folder)}))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with two packages of others, one of them installed by pip."""
    from tests.plugged import make_site

    return make_site(tmp_path_factory.mktemp("plugged"))


@pytest.fixture
def without_ray(monkeypatch):
    """Let `submit` make stages in this process, with one thread."""
    import torch

    import wsss_ray.runners.execute as execution
    from tests.local import execute_here

    torch.set_num_threads(1)
    monkeypatch.setattr(execution, "execute", execute_here)
