"""The Python that docs/python.md shows, and the notebook's cells, are run: here without Ray, and once with it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys

import pytest
import yaml

import wsss_ray
from tests.pages import ROOT, blocks, commands, fenced
from tests.photos import call, mask, photo
from tests.shapes import tiny_job
from wsss_ray.nets.torchvision_safe import torchvision

PAGE, NOTEBOOK, RUNS = "docs/python.md", "docs/first_steps.ipynb", "docs/runs.md"


def test_the_page(tmp_path, monkeypatch, without_ray, capsys):
    monkeypatch.chdir(tmp_path)
    job = tiny_job(name="photos")
    job["method"] |= {"metric": {"scales": [1.0], "crf": None}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    photo(tmp_path / "album/dog.jpg", "dog", 1)
    for number in (1, 2):
        photo(tmp_path / f"test/images/{number}.jpg", "dog", number)
        mask(tmp_path / f"test/masks/{number}.png", 2)
    torchvision()  # before the page imports it; its own library may not fit a torch of another build
    known: dict = {"__name__": "page"}
    for place, text in enumerate(fenced(PAGE, "python")):
        exec(compile(text.replace("[256, 256]", "[64, 64]"), f"{PAGE}, block {place}", "exec"), known)
    said = capsys.readouterr().out
    assert known["missing"] == ["images-weak", "classifier", "maps", "seeds", "seed_quality"]
    assert "photos: 12 stages, 0 done" in said
    assert "done 12 of 12 None" in said
    assert known["run"].scores["miou"].images == 8
    assert (known["data"].classes, len(known["data"])) == (("background", "square", "disc", "bar"), 24)
    assert known["image_BCHW"].shape == (8, 3, 64, 64)
    assert known["evaluated"].score.images == 2
    assert known["evaluated"].failed == ()
    assert known["both"].runs == ("photos", "own")
    assert known["both"].fields["method.classifier.trunk.kind"] == ("small_net", "patches")
    assert {stage_id.partition("-")[0] for stage_id, _ in known["found"].stages} == {"train", "localize", "seed", "evaluate"}
    assert wsss_ray.unused().stages == ()


def cells():
    return [("".join(cell["source"]), cell) for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]]


SMALL = {'"train": 300, "val": 40': '"train": 24, "val": 8', '"size": 192': '"size": 64', '"epochs": 10': '"epochs": 1'}


def run_cells(tmp_path, monkeypatch, smaller=None):
    """Execute the code cells in order, as a notebook does; what each shows, as HTML or as text. `smaller` replaces its sizes."""
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    known: dict = {"__name__": "__main__"}
    shown = []
    for text, cell in cells():
        if cell["cell_type"] != "code":
            continue
        for printed, small in (smaller or {}).items():
            text = text.replace(printed, small)
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), known)
        value = eval(compile(ast.Expression(last.value), cell["id"], "eval"), known) if last is not None else None
        shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    return known, shown


def test_the_notebook_is_one_and_keeps_no_output():
    found = json.loads((ROOT / NOTEBOOK).read_text())
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
    for text, cell in cells():
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert all(len(line) <= 130 for line in text.splitlines())
        else:
            for target in re.findall(r"\]\(([^)]+)\)", text):
                assert (ROOT / "docs" / target).is_file(), target


def check(known, shown, said):
    assert "'done'" in shown
    assert "seed_quality: mIoU 0." in said
    assert re.findall(r"attempt (\d) of 2: (\d+) stages, until (\w+)", said) == [("2", "7", "seed"), ("1", "11", "None")]
    assert "seeds: mIoU 0." in said
    assert "run 'first-steps', attempt 1 of 2: model 'segmenter' (train-" in said
    assert "{0: 'background', 1: 'bee', " in said
    assert shown[-1].startswith("<iframe"), "the report of the first attempt"


def test_the_notebook_without_ray(tmp_path, monkeypatch, without_ray, capsys):
    assert all(printed in "".join(text for text, _ in cells()) for printed in SMALL)
    check(*run_cells(tmp_path, monkeypatch, SMALL), capsys.readouterr().out)


KERNEL = """
import json, pathlib, sys
import pytest
from tests.contract.test_python_page import run_cells
_, shown = run_cells(pathlib.Path(sys.argv[1]), pytest.MonkeyPatch())
print(json.dumps(shown), file=sys.stderr)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_the_notebook(tmp_path):
    """It has a process of its own, as in a notebook: its Ray is another one than that of the tests in tests/ray."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", KERNEL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    check({}, json.loads(done.stderr.splitlines()[-1]), done.stdout)


def test_the_page_on_runs(tmp_path, monkeypatch, without_ray):
    """Every command of the page in its order; those that ask get --yes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tiny_job(name="photos")))
    said = []
    for block in blocks(RUNS):
        for command in commands(block):
            words = [*command.words[1:], *(["--yes"] if command.words[1] in ("rm", "gc") else [])]
            said.append((" ".join(command.words[1:]), call(*words)))
    first, second, shown, again, whole, compared, one, kept, gone, freed = (text for _, text in said)
    assert "photos: 12 stages, 0 done" in first
    assert "photos: 5 stages, 3 done" in second
    assert re.search(r"^2 .* seed +5/5 +method.seed_rule.theta=0.4$", shown, re.MULTILINE)
    assert "model: run 'photos', attempt 1 of 2: model 'retrain'" in shown
    assert "photos: 5 stages, 5 done" in again
    assert "photos: 12 stages, 7 done" in whole
    assert re.search(r"^method.seed_rule.theta +0.35 +0.4$", compared, re.MULTILINE)
    assert re.search(r"^IoU in seed_quality +photos@1 +photos@2$", compared, re.MULTILINE)
    assert re.search(r"^square +0\.\d{3} +0\.\d{3}$", compared, re.MULTILINE)
    assert "attempt 1 at photos is removed" in one
    assert re.search(r"^7 stages belong to no run", one, re.MULTILINE)
    assert "7 stages are deleted" in kept
    assert "photos is removed" in gone
    assert "12 stages are deleted" in freed
    assert list((tmp_path / "runs/stages").iterdir()) == []
