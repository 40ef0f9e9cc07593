"""What the pages tell people to type works as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

import wsss_ray.methods
from tests.local import job_of, run_plan
from tests.shapes import tiny_job
from wsss_ray.store import RunStore

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_method_of_the_page_runs(tmp_path, monkeypatch):
    (code,) = blocks("docs/adding_a_method.md", "python")
    (tmp_path / "otsu.py").write_text(code)
    monkeypatch.setattr(wsss_ray.methods, "__path__", [*wsss_ray.methods.__path__, str(tmp_path)])
    try:
        (job,) = (yaml.safe_load(text) for text in blocks("docs/adding_a_method.md", "yaml"))
        assert job["method"]["name"] == "otsu"
        tiny = tiny_job()
        parts = {name: tiny["method"][name] for name in ("classifier", "localizer", "metric")}
        parts["classifier"] = {k: v for k, v in parts["classifier"].items() if k != "kernel_size"}
        parts["segmenter"] = tiny["method"]["retrain"]
        tiny["method"] = {"name": "otsu", "seed_rule": job["method"]["seed_rule"], **parts}
        plan = job_of(tiny).plan()
        store = RunStore(str(tmp_path / "runs"))
        run_plan(store, plan)
        record = store.record(plan.targets[-1])
        assert record["kind"] == "evaluate"
        assert record["counts"]["errors"] == 0
    finally:
        sys.modules.pop("wsss_ray.methods.otsu", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:wsss_ray|tests|benchmarks|jobs|docs|cluster)/[\w/.]*\w)`", text):
        if path != "wsss_ray/methods/otsu.py":
            assert (ROOT / path).exists(), path

