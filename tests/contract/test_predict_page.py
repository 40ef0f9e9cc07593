"""What docs/predict.md and the README's section tell people to type works as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from tests.pictures import unpack
from wsss_ray.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/predict.md").read_text()
SECTION = (ROOT / "README.md").read_text().split("\n## Use the model\n")[1].split("\n## ")[0]


def lines(text):
    return [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]


def commands(text):
    """Those for one machine; the one for a cluster is called in tests/ray/test_predict.py."""
    return [line for line in lines(text) if line.startswith("wsss-ray ") and "--address" not in line]


@pytest.fixture
def at_home(trained_run, tmp_path, monkeypatch):
    """A folder with the run `photos` in `runs`, and pictures in `album`."""
    store, plan = trained_run
    shutil.copytree(store.uri, tmp_path / "runs")
    (tmp_path / "runs/runs/tiny").rename(tmp_path / "runs/runs/photos")
    about = tmp_path / "runs/runs/photos/run.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"name": "photos"}))
    first, second, *_ = unpack(store, plan, tmp_path / "packed").values()
    (tmp_path / "album/park").mkdir(parents=True)
    first.rename(tmp_path / "album/dog.jpg")
    second.rename(tmp_path / "album/park/bench.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def run_all(text):
    for line in commands(text):
        app(shlex.split(line, comments=True)[1:], standalone_mode=False)


def test_the_page(at_home, capsys):
    run_all(PAGE)
    for name in ("labels/masks/park/bench.png", "some/overlays/dog.jpg", "table/shards/part-00000.parquet", "raw/masks/dog.png"):
        assert (at_home / name).is_file(), name
    for name in ("safetensors/model.safetensors", "torch/model.pt2", "onnx/model.onnx"):
        assert (at_home / "exported" / name).is_file(), name
    python = "\n".join(line for line in lines(PAGE) if not line.startswith("wsss-ray "))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    capsys.readouterr()
    known = {"image_BCHW": torch.zeros(1, 3, 20, 24)}
    exec(compile(f"{python}\n{block}", "docs/predict.md", "exec"), known)
    said = capsys.readouterr().out
    assert "'image_id': 'dog', 'pixels': [" in said
    assert "('background', 'square', 'disc', 'bar')" in said
    assert known["logits_BLHW"].shape == (1, 4, 20, 24)
    folder = re.search(r"`wsss_ray.load\(\"(exported/safetensors)\"\)`", PAGE)[1]
    app(["predict", folder, "album", "--out", "again"], standalone_mode=False)
    assert (at_home / "again/masks/dog.png").read_bytes() == (at_home / "labels/masks/dog.png").read_bytes()


def test_the_section_of_the_readme(at_home):
    assert len(commands(SECTION)) == 2
    run_all(SECTION)
    assert (at_home / "labels/overlays/park/bench.jpg").is_file()
    assert (at_home / "photos-onnx/README.md").is_file()
    known: dict = {}
    exec("\n".join(line for line in lines(SECTION) if not line.startswith("wsss-ray ")), known)
    assert known["label_HW"].shape == (32, 32)
