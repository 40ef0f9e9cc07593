"""What people get wrong: one clear message that names it and the mend, exit code 2, no traceback, and a store as it was."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.local import run_plan
from tests.mistakes import BEFORE, RUNNING, make_world
from wsss_ray.cli import main
from wsss_ray.config.job import load_job
from wsss_ray.config.paths import located
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def finished_world(tmp_path_factory):
    """The user's data and a finished run on it, to be copied."""
    root = tmp_path_factory.mktemp("world")
    make_world(root)
    before = os.getcwd()
    os.chdir(root)
    try:
        job = located(load_job("job.yaml"))
        plan, store = job.plan(), RunStore("runs")
        begin_run(job, plan, store)
        run_plan(store, plan)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def world(finished_world, tmp_path, monkeypatch):
    shutil.copytree(finished_world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "world"


def contents(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def said_of(typed, capfd, monkeypatch, code):
    monkeypatch.setattr(sys, "argv", ["wsss-ray", *shlex.split(typed)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == code, said
    assert "Traceback" not in said
    return said


def test_there_are_many():
    assert len({mistake.name for mistake in [*BEFORE, *RUNNING]}) == len(BEFORE) + len(RUNNING) >= 60


@pytest.mark.parametrize("mistake", BEFORE, ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_clear_message(world, capfd, monkeypatch, mistake):
    if mistake.change:
        mistake.change(world)
    before = contents(world)
    said = said_of(mistake.typed, capfd, monkeypatch, mistake.code)
    for part in mistake.said:
        assert part in said
    assert said.startswith(("error: ", "Usage: "))
    assert len(said.splitlines()) <= 6
    after = contents(world)
    kept = {name: content for name, content in before.items() if not name.startswith("runs/runs/")}
    assert {name: after.get(name) for name in kept} == kept, "nothing is lost"
    assert all(name.startswith(("labels/", "runs/runs/")) for name in after.keys() - before.keys()), "nothing is made"


@pytest.mark.parametrize(("path", "said"), [("images", "/images'"), ("images/more", "/images/more'"), ("tags.csv", "tags.csv")])
def test_no_permission(world, path, said):
    """As root there is nothing that may not be read: the process becomes another user when it has imported all it needs."""
    for place in (*world.rglob("*"), world, *(above for above in world.parents if Path(tempfile.gettempdir()) in above.parents)):
        place.chmod(place.stat().st_mode | 0o555)
    code = (
        "import os, sys\nfrom wsss_ray.cli import main\nsys.argv = ['wsss-ray', 'plan', 'job.yaml']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        f"os.chmod({path!r}, 0)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Permission denied" in done.stderr
    assert said in done.stderr
