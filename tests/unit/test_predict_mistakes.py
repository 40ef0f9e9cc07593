"""What a user can get wrong in a call of predict: one line that names it, exit code 2, nothing written."""

from __future__ import annotations

import pytest

from tests.pictures import unpack
from wsss_ray.cli import app
from wsss_ray.storage.store import RunStore


@pytest.fixture
def photos(trained_run, tmp_path):
    unpack(*trained_run, tmp_path / "photos", most=3)


def error_of(capsys, store, *arguments, run="tiny"):
    with pytest.raises(SystemExit) as end:
        app(["predict", run, *map(str, arguments), "--store", store.uri], standalone_mode=False)
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.jpg"], "nothing.jpg: there is no such file or folder; correct the path"),
        (["void"], "void: no image in this folder; formats: .jpg"),
        (["photos/*.bmp"], "photos/*.bmp: matches no image; formats: .jpg"),
        (["photos", "--model", "classifier"], "--model classifier: is not one of the trained segmenters: segmenter, retrain; "),
        (["photos", "--overlay", "--format", "parquet"], "--overlay: goes with --format voc"),
        (["photos", "--address", "http://127.0.0.1:8265"], "predict drives the cluster itself"),
        (["photos", "--address", "127.0.0.1:1"], "address 127.0.0.1:1: nothing answers there"),
        (["photos", "--address", "nonsense"], "address 'nonsense': give auto"),
        (["photos", "--out", "file"], "--out file: is a file; give a folder"),
        (["photos", "--out", "photos/val/0000.png"], "lies in --out"),
    ],
)
def test_mistakes_are_one_line(trained_run, photos, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "void").mkdir()
    (tmp_path / "file").write_text("")
    there = [] if "--out" in arguments else ["--out", "out"]
    assert said in error_of(capsys, trained_run[0], *arguments, *there)
    assert not (tmp_path / "out").exists()


def test_an_unknown_run_or_store_is_one_line(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    arguments = (tmp_path / "photos", "--out", tmp_path / "out")
    assert "no run 'other' in" in error_of(capsys, store, *arguments, run="other")
    assert "no run in" in error_of(capsys, store, *arguments, run="train-0123456789abcdef")
    assert "config.json: cannot be read: No such file" in error_of(capsys, store, *arguments, run="some/folder")
    assert "there is no store there" in error_of(capsys, RunStore(str(tmp_path / "none")), *arguments)
