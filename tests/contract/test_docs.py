"""What the pages tell people to type works as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_ray.job import load_trials

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md")]
PAGES += sorted(page for folder in ("docs", "benchmarks", "cluster") for page in (ROOT / folder).rglob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_walk_through_passes_the_contract_tests(tmp_path):
    """A copy of the package with one new file and one new job, nothing else touched."""
    for part in ("wsss_ray", "tests", "jobs", "benchmarks", "cluster", "docs", "README.md", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    (code,) = blocks("docs/adding_a_method.md", "python")
    (job,) = blocks("docs/adding_a_method.md", "yaml")
    (tmp_path / "wsss_ray/methods/otsu.py").write_text(code)
    (tmp_path / "jobs/otsu.yaml").write_text(job)
    only = ["tests/contract/test_methods.py", "tests/contract/test_jobs.py", "-k", "otsu or small_versions or every_method"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *only]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 12
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("text", blocks("docs/sweeps.md", "yaml"), ids=["trials", "space"])
def test_the_sweeps_of_the_page_are_jobs(tmp_path, text):
    (tmp_path / "job.yaml").write_text(f"base: {ROOT / 'jobs/demo.yaml'}\nname: page\n{text}")
    trials = load_trials(tmp_path / "job.yaml")
    assert len({one.job.name for one in trials}) == len(trials) > 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:wsss_ray|tests|benchmarks|jobs|docs|cluster)/[\w/.]*\w)`", text):
        if path not in ("wsss_ray/methods/otsu.py", "jobs/otsu.yaml"):
            assert (ROOT / path).exists(), path

