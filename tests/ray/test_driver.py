"""What is left of a submit that is ended from outside, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.shapes import tiny_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def children_of(pid: int) -> set[int]:
    """All processes below one, with the agents of its raylet."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, left = set(), {pid}
    while left:
        left = {child for child, parent in parents.items() if parent in left} - found
        found |= left
    return found


def alive(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
        except OSError:
            continue
    return found


def begun(tmp_path: Path) -> subprocess.Popen[str]:
    """A submit whose training runs: it has written a checkpoint, and is far from its end."""
    spec = tiny_job(run={"store": str(tmp_path / "runs"), "checkpoint_every": 2})
    spec["method"]["classifier"]["steps"] = 100_000
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    # A process that nohup started ignores SIGHUP, and so do those below it.
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); import tests.shapes; from wsss_ray.cli import main; main()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            "submit",
            str(tmp_path / "job.yaml"),
        ],
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 400
    while not list((tmp_path / "runs").glob("stages/train-*/checkpoints/step-*.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_a_submit_that_is_ended_leaves_no_process_behind(tmp_path, number):
    process = begun(tmp_path)
    below = children_of(process.pid)
    assert len(below) > 4
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    deadline = time.monotonic() + 20
    while left := alive(below):
        assert time.monotonic() < deadline, subprocess.run(["ps", "-fp", *map(str, left)], capture_output=True, text=True).stdout
        time.sleep(0.1)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert said.strip() == "error: ended by SIGTERM; what was done is kept, submit again to go on"
    else:
        assert process.returncode == -number
