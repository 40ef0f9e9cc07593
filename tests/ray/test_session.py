"""The private Ray of a submit lets nobody else in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]

HOST = """
import os, subprocess, sys
from wsss_ray.runners.cluster import ray_session
with ray_session():
    address, token = os.environ["RAY_ADDRESS"], os.environ["RAY_AUTH_TOKEN"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for extra in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
                  {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}):
        code = "import sys, ray; print(ray._raylet.GcsClient(address=sys.argv[1]).get_all_node_info() and 'in')"
        command = [sys.executable, "-c", code, address]
        guest = subprocess.run(command, env=clean | extra, capture_output=True, text=True, timeout=100)
        print("in" if guest.returncode == 0 and "in" in guest.stdout else "out", flush=True)
print("RAY_AUTH_TOKEN" in os.environ, "RAY_ADDRESS" in os.environ)
with ray_session() as have:
    print("again" if have.cpus else "")
"""


def test_a_private_ray_turns_away_who_has_not_its_token():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", HOST],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["out", "out", "in", "False", "False", "again"], done.stdout + done.stderr
