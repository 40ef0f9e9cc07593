"""What pip builds and installs: the package and nothing else, with metadata that a registry takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

import wsss_ray
from tests.pages import ROOT

QUIET = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
LEFT = shutil.ignore_patterns("__pycache__", "*.egg-info", "runs")


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of this checkout, built without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in ("wsss_ray", "tests", "benchmarks", "jobs", "docs", "cluster"):
        shutil.copytree(ROOT / part, source / part, ignore=LEFT)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    pip("wheel", *QUIET, "--no-build-isolation", "--wheel-dir", out, source)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def about(wheel):
    """Its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_it_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"wsss_ray-{wsss_ray.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        top = {name.partition("/")[0] for name in names}
        entry_points = archive.read(f"wsss_ray-{wsss_ray.__version__}.dist-info/entry_points.txt").decode()
    assert top == {"wsss_ray", f"wsss_ray-{wsss_ray.__version__}.dist-info"}
    files = (file for file in (ROOT / "wsss_ray").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert {name for name in names if name.startswith("wsss_ray/")} == {str(file.relative_to(ROOT)) for file in files}
    assert {"wsss_ray/py.typed", "wsss_ray/reporting/report/style.css", "wsss_ray/reporting/report/templates/page.html"} <= names
    assert f"wsss_ray-{wsss_ray.__version__}.dist-info/licenses/LICENSE" in names
    assert "wsss-ray = wsss_ray.cli:main" in entry_points


def test_its_metadata_is_whole(about):
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("wsss-ray", wsss_ray.__version__, "Apache-2.0")
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload().startswith("# wsss-ray")
    assert about["Keywords"]
    assert "Typing :: Typed" in about.get_all("Classifier")  # that all are known, setuptools checks by trove-classifiers
    extras = set(about.get_all("Provides-Extra"))
    pages = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    assert {extra for found in re.findall(r"wsss-ray\[([\w,]+)\]", pages) for extra in found.split(",")} <= extras


@pytest.mark.slow
def test_it_works_where_it_is_installed(wheel, tmp_path):
    """In an environment of its own, which sees this one's packages but not this checkout."""
    venv, bin_folder = tmp_path / "venv", tmp_path / "venv/bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (libraries,) = (venv / "lib").glob("python3*/site-packages")
    (libraries / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", bin_folder / "python", "install", *QUIET, wheel)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WSSS_RAY_PLUGINS")}
    job = {"name": "mine", "method": {"name": "cam"}, "data": {"kind": "voc", "root": "voc"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    def call(*words):
        done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call(bin_folder / "wsss-ray", "--version") == f"wsss-ray {wsss_ray.__version__}\n"
    assert Path(call(bin_folder / "python", "-c", "import wsss_ray; print(wsss_ray.__file__)").strip()).is_relative_to(venv)
    assert "multi_estimations" in call(bin_folder / "wsss-ray", "methods")
    assert yaml.safe_load(call(bin_folder / "wsss-ray", "validate", "job.yaml"))["data"]["root"] == "voc"
    rendered = call(bin_folder / "wsss-ray", "render", "slurm", "job.yaml", "--store", "/runs", "--set", "data.root=/voc")
    assert "\n#SBATCH --job-name=mine\n" in rendered
    assert json.loads(call(bin_folder / "wsss-ray", "schema"))["title"] == "wsss-ray job"


def test_how_to_cite_it():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == wsss_ray.__version__
    assert [(one["year"], one["authors"][0]["family-names"]) for one in cited["references"]] == [
        *((2019, "Lee"), (2018, "Wei"), (2020, "Zhang"), (2018, "Ahn"), (2020, "Fan"), (2022, "Xu"), (2023, "Lin"))
    ]
    spec = find_spec("cffconvert")
    if spec is None:
        pytest.skip("needs the schema in cffconvert: pip install --no-deps cffconvert==2.0.0, as make venv does")
    schema = json.loads((Path(spec.origin).parent / "schemas/1.2.0/schema.json").read_text())
    jsonschema.validate(cited, schema)
