"""Rendering manifests by the command line, and the examples that are checked in."""

from __future__ import annotations

import shlex
from pathlib import Path

from typer.testing import CliRunner

from wsss_ray.cli import app

ROOT = Path(__file__).parents[1]
TARGETS = ("ray-up", "kuberay", "slurm", "compose")
NEEDED = ["--vm-image", "ami-0123456789abcdef0"]  # of ray-up, whatever the job


def commands() -> list[list[str]]:
    """The arguments of every render in cluster/render.sh."""
    text = (ROOT / "cluster/render.sh").read_text().replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("wsss-ray render ")]


def examples(target: str) -> list[Path]:
    found = [ROOT / command[command.index("--out") + 1] for command in commands() if command[1] == target]
    assert found
    return found


def render(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["render", *args])
    assert result.exit_code == code, result.output
    return result.output


def rendered(target: str, *args: str) -> str:
    return render(target, *(NEEDED if target == "ray-up" else []), *args)
