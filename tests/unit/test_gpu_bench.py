"""`make gpu`: it needs no Ray and no package beyond its list, and says where there is no GPU; its arithmetic, by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from benchmarks.device import Line, share_covered
from benchmarks.device_table import least_bytes
from tests.pages import ROOT
from wsss_ray.ops.lattice.base import spatial_features
from wsss_ray.ops.lattice.on_torch import TorchLattice

LIST = ROOT / "benchmarks" / "gpu-requirements.txt"
ABSENT = (
    *("ray", "aiohttp", "jinja2", "markupsafe", "requests", "rich", "tensorboardX", "typer"),  # needed by other parts
    *("sklearn", "hypothesis", "pandas", "polars", "duckdb", "pydensecrf", "timm", "optuna", "onnx", "arcade", "mlflow", "wandb"),
)
WITHOUT_RAY = f"""
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def without_ray(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process in which Ray cannot be imported, and no GPU is seen."""
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_table_needs_neither_ray_nor_a_gpu(tmp_path):
    out = tmp_path / "gpu.md"
    done = without_ray("benchmarks.gpu", "--no-tests", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().splitlines()[-1].startswith("no GPU: torch ")
    text = out.read_text()
    assert "no GPU: torch" in text
    for what in (
        "training, FickleNet",
        "training, RRM",
        "localize, ",
        "CRF, ",
        "dense energy, ",
        "product of two matrices",
        "localize, small_net, processes side by side",
    ):
        assert f"\n| {what}" in text


def test_its_tests_need_no_ray():
    chosen = ("tests/contract/test_gpu.py", "tests/contract/test_devices.py", "tests/parity/test_selection.py")
    done = without_ray("pytest", "-q", "--collect-only", *chosen)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "test_its_losses_are_those_of_the_cpu[rrm]" in done.stdout


def test_its_packages_have_the_ranges_of_pyproject():
    wanted = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    declared = re.findall(r'"([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted
    assert set(wanted) <= set(declared)


def test_ray_is_blocked():
    done = without_ray("wsss_ray.runners.train")
    assert done.returncode == 1
    assert "No module named 'ray'" in done.stderr


def test_share_covered():
    assert share_covered([]) is None
    assert share_covered([(5, 5)]) is None
    assert share_covered([(7, 10), (0, 2), (1, 3)]) == pytest.approx(0.6)
    assert share_covered([(0, 10), (1, 2)]) == 1.0


def test_least_bytes_of_a_lattice():
    lattice = TorchLattice.build(spatial_features(2, 2, sxy=1.0))
    entries = sum(len(rows.column_P) for rows in (lattice.splat, *lattice.blurs, lattice.slice))
    starts = sum(len(rows.start) for rows in (lattice.splat, *lattice.blurs, lattice.slice))
    corners = len(lattice.splat.start) - 1
    values = (4 + corners) + 3 * (corners + corners) + (corners + 4)
    assert least_bytes(lattice, 5) == 4 * starts + 8 * entries + 4 * 5 * values


def test_a_line():
    line = Line("x", "1 ms", one_core="3 ms", ratio=3.0, busy=0.5)
    assert str(line) == "| x | 1 ms | 3 ms | 3 | 50% |  |"
