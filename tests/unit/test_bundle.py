"""What is shipped to a cluster, how it is started there, and what is refused before anything is sent."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml

import wsss_ray
from tests.local import job_of
from tests.shapes import tiny_job
from wsss_ray.config.document import JobError
from wsss_ray.config.job import load_job, register
from wsss_ray.core.plugins import PLUGINS
from wsss_ray.deploy import bundle
from wsss_ray.deploy.bundle import BundleError
from wsss_ray.storage.filesystems import shown

PACKAGE = Path(wsss_ray.__file__).parent


def write_package(folder, name="mine", size=10):
    package = folder / name
    (package / "data").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    for place in ("__init__.py", "part.py", "data/net.pth", "__pycache__/part.pyc", ".secret", "old.pyc"):
        (package / place).write_bytes(b"#" * size)
    return package


def test_the_package_is_shipped_whole_without_caches():
    files = bundle.gather()
    code = {"wsss_ray/__init__.py", "wsss_ray/cli/submit.py", "wsss_ray/py.typed", "wsss_ray/inference/model_card.md.j2"}
    assert code <= set(files)
    assert {f"wsss_ray/reporting/report/{name}" for name in ("style.css", "theta.js", "templates/page.html")} <= set(files)
    assert {place for place in files if place.endswith(".py")} == {
        file.relative_to(PACKAGE.parent).as_posix() for file in PACKAGE.rglob("*.py")
    }
    templates = {place for place in files if place.startswith("wsss_ray/deploy/manifests/templates/")}
    assert len(templates) == len(list((PACKAGE / "deploy/manifests/templates").iterdir())) > 0
    assert not [place for place in files if "__pycache__" in place or "/." in place]
    assert bundle.check_size(files) < 10 * 1024**2


def test_modules_and_packages_lie_beside_it(tmp_path):
    package = write_package(tmp_path)
    module = tmp_path / "single.py"
    module.write_text("x = 1")
    mine = {place for place in bundle.gather([package, module], ["mine/data/*"]) if not place.startswith("wsss_ray/")}
    assert mine == {"mine/__init__.py", "mine/part.py", "single.py"}
    with pytest.raises(BundleError, match="already a module mine"):
        bundle.gather([package, package])


def test_what_is_written_runs_by_itself(tmp_path):
    bundle.write(tmp_path, bundle.gather(), {"job.yaml": "name: x\n"})
    assert (tmp_path / "job.yaml").read_text() == "name: x\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import wsss_ray.cli; print(wsss_ray.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, capture_output=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "wsss_ray" / "__init__.py"


def test_a_bundle_that_is_too_large_names_what_to_leave_out(tmp_path):
    package = write_package(tmp_path, size=1024**2)
    files = {place: file for place, file in bundle.gather([package]).items() if place.startswith("mine")}
    assert bundle.check_size(files, most=3 * 1024**2) == 3 * 1024**2
    with pytest.raises(BundleError) as raised:
        bundle.check_size(files, most=3 * 1024**2 - 1)
    assert "would ship 3.0 MiB" in str(raised.value)
    assert "mine/data/net.pth (1.0 MiB)" in str(raised.value)
    assert "--exclude" in str(raised.value)


@pytest.mark.parametrize("name", ["no-name.py", "json.py", "wsss_ray.py", "folder", "data.csv", "missing.py"])
def test_what_is_no_module_is_refused(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
    elif name != "missing.py":
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=f"--include .*{re.escape(name)}: "):
        bundle.module_name(tmp_path / name)


def test_a_module_of_the_user_s_own_is_imported_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv(PLUGINS, "")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, text in (("own_part", "x = 1"), ("own_broken", "import there_is_no_such_module"), ("yaml", "")):
        (tmp_path / f"{name}.py").write_text(text)
    bundle.import_includes([tmp_path / "own_part.py"])
    bundle.import_includes([tmp_path / "own_part.py"])
    assert os.environ[PLUGINS] == "own_part"
    offered = os.environ["PYTHONPATH"].split(os.pathsep)[-1]
    assert os.listdir(offered) == ["own_part.py"], "workers see the module, and nothing that lies beside it"
    register()
    with pytest.raises(BundleError, match="ModuleNotFoundError: No module named 'there_is_no_such_module'"):
        bundle.import_includes([tmp_path / "own_broken.py"])
    with pytest.raises(BundleError, match="there is another module yaml"):
        bundle.import_includes([tmp_path / "yaml.py"])
    monkeypatch.setenv(PLUGINS, "there_is_no_such_module")
    with pytest.raises(JobError, match=r"WSSS_RAY_PLUGINS: importing .*: No module named"):
        register()


def test_the_shipped_job_is_the_resolved_one(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE_IT_IS", "/shared")
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_job(run={"store": "/somewhere"})))
    file = tmp_path / "job.yaml"
    file.write_text("base: base.yaml\nname: mine\n")
    overrides = ["run.store=${WHERE_IT_IS}/runs", "method.seed_rule.background.threshold=0.2"]
    loaded, text = bundle.resolve(file, overrides)
    shipped = tmp_path / "elsewhere.yaml"
    shipped.write_text(text)
    monkeypatch.delenv("WHERE_IT_IS")
    assert load_job(shipped) == loaded.job
    assert (loaded.job.name, loaded.job.run.store) == ("mine", "/shared/runs")
    with pytest.raises(JobError, match="no such field"):
        bundle.resolve(file, [*overrides[1:], "run.stores=/x"])
    with pytest.raises(BundleError, match=r"^run.store: runs is relative; .* absolute path that all of them see$"):
        bundle.resolve(file, ["run.store=runs"])


def test_every_path_of_a_job_is_checked():
    data = {"kind": "folder", "root": "photos", "tags": "/all/tags.csv", "val": "~/val.csv", "masks": "masks"}
    job = tiny_job(data=data, run={"store": "s3://bucket/runs"})
    job["method"]["classifier"]["trunk"] = job["method"]["classifier"]["trunk"] | {"kind": "vgg16", "weights": "vgg.pth"}
    for name in ("widths", "strides"):
        job["method"]["classifier"]["trunk"].pop(name)
    fields = [line.partition(":")[0] for line in bundle.relative_paths([job_of(job), job_of(job)])]
    assert fields == ["data.root", "data.val", "data.masks", "method.classifier.trunk.weights.source"]
    voc = {"kind": "voc", "root": "/data/VOC2012", "train": "ImageSets/train.txt"}
    assert bundle.relative_paths([job_of(tiny_job(data=voc, run={"store": "/runs"}))]) == []


def test_a_sweep_s_trials_are_checked_too(tmp_path):
    trials = [{"name": "one"}, {"name": "two", "set": {"data": {"kind": "folder", "root": "photos"}}}]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(tiny_job(run={"store": "/runs"}, sweep={"trials": trials})))
    with pytest.raises(BundleError, match=r"^data\.root: photos is relative"):
        bundle.resolve(file, [])


def test_an_attempt_is_known_by_run_and_time():
    now = datetime(2026, 11, 21, 12, 34, 56, tzinfo=timezone.utc)
    ids = {bundle.attempt_id("demo.1", now=now) for _ in range(20)}
    assert len(ids) > 1
    assert all(re.fullmatch(r"demo\.1-20261121T123456-[0-9a-f]{4}", one) for one in ids)


def test_the_entrypoint_is_quoted_and_prefers_the_interpreter_that_is_there(tmp_path):
    arguments = ["resume", "x; touch /tmp/evil", "--store", "/a b"]
    assert shlex.split(bundle.entrypoint(arguments, python="my python")) == ["my python", "-m", "wsss_ray", *arguments]
    fake = tmp_path / "a 'python'"
    fake.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    fake.chmod(0o755)
    there = tmp_path / "python"
    for here, python in ((fake, "python"), (tmp_path / "none", fake)):
        command = bundle.entrypoint(arguments, python=str(python), here=str(here))
        done = subprocess.run(command, shell=True, text=True, capture_output=True, check=True)
        assert done.stdout == "|".join(["-m", "wsss_ray", *arguments, ""])
    assert not there.exists()


def test_keys_in_a_store_s_uri_are_not_for_all():
    assert shown("s3://key:secret@bucket/runs?region=x") == "s3://bucket/runs"
    assert shown("/nfs/runs/") == "/nfs/runs"
