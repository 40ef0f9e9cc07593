"""A package of somebody else on Ray: its workers import it, and machines that lack it are named before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from tests.head import running_head
from tests.plugged import environment, otsu_job
from wsss_ray.runners.admission import _ask_machines
from wsss_ray.storage.documents import RUN
from wsss_ray.storage.store import RunStore

pytestmark = pytest.mark.ray


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(otsu_job(run={"store": str(tmp_path / "runs")})))
    return path


@pytest.mark.slow
def test_its_job_is_submitted(site, job, tmp_path):
    command = [sys.executable, "-m", "wsss_ray", "submit", str(job), "--until", "seed"]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    store = RunStore(str(tmp_path / "runs"))
    (seeds,) = [one["id"] for one in store.read_json(store.run_path("otsu", "run.json"), RUN)["stages"] if one["name"] == "seeds"]
    record = store.record_by_id(seeds)
    assert record["counts"] == {"images": 8, "errors": 0, "shards": 1}
    assert record["versions"]["wsss-ray-otsu"] == "0.1"


def test_every_machine_says_what_it_lacks(ray_session, tmp_path):
    store = RunStore(str(tmp_path / "runs"))
    store.write_json(store.path("probe"), {"submitted": 5.0})
    (node,) = ray_session.nodes

    def ask(**needed):
        return _ask_machines(store, store.path("probe"), 5.0, [], [node], needed)[f"machine {node.address}"]

    assert ask() is None
    assert ask(nowhere="1.0") == "has no plug-in, the job needs nowhere 1.0; install it on all machines"


@pytest.mark.slow
def test_a_cluster_that_lacks_it_says_so_in_one_line(site, job):
    with running_head() as head:
        paths = environment(site)["PYTHONPATH"]
        done = head.call("submit", job, "--address", head.url, PYTHONPATH=paths)
    assert done.returncode == 2
    log = done.stdout + done.stderr
    why = "importing toy_parts: ModuleNotFoundError: No module named 'toy_parts'; install it on this machine"
    assert f"error: WSSS_RAY_PLUGINS: {why}" in log.splitlines(), "the first of the two"
    assert "Traceback" not in log
