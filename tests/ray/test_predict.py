"""Predictions over Ray are those of one process: on a private Ray, and on the nodes of a cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pictures import unpack

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def predict(folder, store, *arguments, **environment):
    """The command as a user calls it; 40 images, so that there are several parts, one of them broken."""
    return call(folder, "predict", "tiny", str(folder / "photos"), "--store", store.uri, *arguments, **environment)


def call(folder, *arguments, python=("-m", "wsss_ray"), **environment):
    command = [sys.executable, *python, *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = clean | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400)


@pytest.fixture(scope="module")
def photos(trained_run, tmp_path_factory):
    """Images in a folder, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("ray")
    found = list(unpack(*trained_run, folder / "photos", split="images-weak").values())
    for copy in range(16):
        (folder / f"photos/copy{copy}.png").write_bytes(found[copy].read_bytes())
    (folder / "photos/copy3.png").write_text("no image")
    done = predict(folder, trained_run[0], "--out", "alone", "--workers", "1")
    assert done.returncode == 1, done.stderr
    return folder


def content(folder):
    """All files but the one with times and host."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "predictions.json"
    }


@pytest.mark.parametrize("form", ["voc", "parquet"])
def test_a_private_ray_writes_the_same_files(trained_run, photos, form):
    store, _ = trained_run
    done = predict(photos, store, "--out", f"private-{form}", "--workers", "2", "--format", form)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "1 of 40 images failed" in done.stderr
    if form == "voc":
        assert content(photos / "private-voc") == content(photos / "alone")
    else:
        predict(photos, store, "--out", "alone-parquet", "--workers", "1", "--format", form)
        assert content(photos / "private-parquet") == content(photos / "alone-parquet")


def test_one_process_goes_on_with_more_where_that_pays(trained_run, photos):
    """With a start that costs nothing it pays at once: the first part is made here, the others there."""
    store, _ = trained_run
    code = "import wsss_ray.runners.predict as runner; runner._START_S = 0.0; runner._processes = lambda: 2\n"
    code += "from wsss_ray.cli import main; main()"
    command = ["predict", "tiny", str(photos / "photos"), "--store", store.uri, "--out", "switched"]
    done = call(photos, *command, python=["-c", code])
    assert done.returncode == 1, done.stderr
    assert re.search(r"^24 images left, .* by this process alone: on with 2 workers on a private Ray", done.stdout, re.MULTILINE)
    assert content(photos / "switched") == content(photos / "alone")


def test_a_cluster_writes_the_same_files(trained_run, photos, monkeypatch):
    from ray.cluster_utils import Cluster

    store, _ = trained_run
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2)
        arguments = ("--out", "cluster", "--address", cluster.address)
        done = predict(photos, store, *arguments, RAY_AUTH_MODE="disabled")
        again = predict(photos, store, *arguments, RAY_AUTH_MODE="disabled")
        (line,) = re.findall(r"^    wsss-ray (.*--address auto)$", (ROOT / "docs/predict.md").read_text(), re.MULTILINE)
        line = line.replace(" photos ", " tiny ").replace("/shared/runs", store.uri)
        line = line.replace("/shared/album", str(photos / "photos")).replace("/shared", str(photos))
        page = call(photos, *shlex.split(line), RAY_ADDRESS=cluster.address, RAY_AUTH_MODE="disabled")
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    assert "39 images to cluster" in done.stdout
    assert content(photos / "cluster") == content(photos / "alone")
    assert "0 images to cluster, 39 were there already" in again.stdout
    assert f"39 images to {photos / 'labels'}" in page.stdout, page.stderr
    assert content(photos / "labels") == content(photos / "alone")
