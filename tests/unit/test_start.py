"""Commands that start nothing import nothing heavy, and list the data once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests.imports import HEAVY, TABLES
from tests.local import job_of, run_plan
from tests.shapes import tiny_job
from wsss_ray.storage.store import RunStore

SCRIPT = """
import json, sys
import wsss_ray.cli
listed = []
if "--help" not in sys.argv:
    import tests.shapes
    items = tests.shapes.Shapes.items
    tests.shapes.Shapes.items = lambda self, split: listed.append(split) or items(self, split)
before = set(sys.modules)
try:
    wsss_ray.cli.main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([sorted({name.partition(".")[0] for name in set(sys.modules) - before}), listed, len(before)]))
"""


def answered(*arguments):
    """What a command has imported, and which splits it has listed."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, listed, _ = json.loads(done.stdout.splitlines()[-1])
    return set(modules), listed


def job_file(tmp_path, **more):
    job = tiny_job() | {"method": {"name": "seeds", **{name: tiny_job()["method"][name] for name in ("localizer", "seed_rule")}}}
    job["method"]["classifier"] = tiny_job()["method"]["classifier"] | {"steps": 0}
    job = job | {"run": {"store": str(tmp_path / "runs")}} | more
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_help_imports_nothing():
    modules, _ = answered("--help")
    assert not modules & (HEAVY | TABLES | {"pydantic", "yaml", "rich"})


def test_a_plan_of_a_folder_of_files_imports_no_tables(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    (tmp_path / "tags.csv").write_text("image,tags\na,cat\n")
    path = job_file(tmp_path, data={"kind": "folder", "root": str(tmp_path / "images"), "tags": str(tmp_path / "tags.csv")})
    script = "import sys, wsss_ray.cli\ntry:\n wsss_ray.cli.main()\nexcept SystemExit as end:\n assert not end.code\n"
    script += "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script, "plan", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.splitlines()[-1].split()) & (HEAVY | TABLES)


@pytest.mark.parametrize("command", ["plan", "submit"])
def test_a_job_that_is_done_is_answered_without_ray_and_listed_once(tmp_path, command):
    path = job_file(tmp_path)
    run_plan(RunStore(str(tmp_path / "runs")), job_of(yaml.safe_load(path.read_text())).plan())
    modules, listed = answered(command, str(path))
    assert not modules & {"ray", "pandas", "torchvision"}
    assert listed == ["weak", "val"]


def test_a_sweeps_data_is_listed_once(tmp_path):
    thetas = {"method.seed_rule.theta": {"grid": [0.3, 0.5]}}
    path = job_file(tmp_path, sweep={"space": thetas})
    assert answered("plan", str(path))[1] == ["weak", "val"]
    document = yaml.safe_load(path.read_text())
    store = RunStore(str(tmp_path / "runs"))
    for theta in (0.3, 0.5):
        rule = document["method"]["seed_rule"] | {"theta": theta}
        run_plan(store, job_of(document | {"sweep": None, "method": document["method"] | {"seed_rule": rule}}).plan())
    modules, listed = answered("submit", str(path))
    assert listed == ["weak", "val"], "trials that are done take Ray no more than the base job"
    assert "ray" not in modules
