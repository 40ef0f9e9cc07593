"""What is no file in the place of one, or a file in the place of a folder, is damage with a path; nothing waits for it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.damage import files_of, mend, part
from tests.local import stage_named
from wsss_ray.cli import app
from wsss_ray.core.errors import DamagedFile
from wsss_ray.reporting.status import run_status

SHARD = "shards/part-00001.parquet"


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("?")


def bound(path: Path) -> None:
    """A socket; its own name may have about 100 characters."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


MADE = {"pipe": os.mkfifo, "socket": bound, "empty folder": Path.mkdir, "folder": full_folder}


def verify(capsys, store, *options: str) -> tuple[int, dict]:
    """The exit code of the command, and what it finds as JSON."""
    try:
        app(["verify", "tiny", "--json", "--store", store.uri, *options], standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = end.code
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("file", [SHARD, "record.json"])
@pytest.mark.parametrize("kind", MADE)
def test_what_is_no_file_is_damage_and_what_is_nobodys_is_removed(run, capsys, kind, file):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, "seeds")
    path = part(store, stage, file)
    path.unlink()
    MADE[kind](path)
    code, found = verify(capsys, store)
    assert (code, [one["path"] for one in found["findings"] if one["kind"] == "damaged"]) == (2, [str(path)])
    assert [one["name"] for one in found["stages"] if one["state"] == "damaged"] == ["seeds"]
    status = run_status(store, "tiny")
    assert [one.name for one in status.stages if one.state == "damaged" and str(path) in one.error] == ["seeds"]
    code, found = verify(capsys, store, "--repair")
    if kind == "folder":
        assert (code, path.is_dir(), found["repaired"]) == (2, True, [])
        assert found["left"] == [f"{path}: is a folder, not a file. Remove it, then submit the job again."]
        with pytest.raises(DamagedFile, match="is a folder, not a file"):
            mend(store, plan)
        (path / "mine").unlink()
    else:
        assert (code, path.exists(), found["left"]) == (0, False, [])
    assert mend(store, plan)[1] == ["seeds"]
    assert files_of(store) == before
    assert verify(capsys, store)[0] == 0


@pytest.mark.parametrize("kind", MADE)
def test_an_unfinished_stage_has_only_files_too(run, capsys, kind):
    store, plan = run
    before, stage = files_of(store), stage_named(plan, "seeds")
    for name in (SHARD, "record.json"):
        part(store, stage, name).unlink()
    MADE[kind](part(store, stage, SHARD))
    code, found = verify(capsys, store)
    assert (code, [one["path"] for one in found["findings"] if one["kind"] == "damaged"]) == (2, [str(part(store, stage, SHARD))])
    if kind == "folder":
        with pytest.raises(DamagedFile, match="is a folder, not a file"):
            mend(store, plan)
    else:
        assert mend(store, plan)[1] == ["seeds"]
        assert files_of(store) == before


@pytest.mark.parametrize("place", ["", "shards"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_file_in_the_place_of_a_folder_is_named(run, capsys, place, recorded):
    store, plan = run
    stage = stage_named(plan, "seeds")
    path = part(store, stage, place)
    path.rename(path.with_name("away"))
    path.write_text("?")
    if not recorded and place:
        part(store, stage, "record.json").unlink()
    code, found = verify(capsys, store)
    assert code == 2
    assert [(one["kind"], one["path"]) for one in found["findings"] if one["kind"] == "damaged"] == [("damaged", str(path))]
    states = {one.name: one.state for one in run_status(store, "tiny").stages}
    assert states["maps"] == "done"
    assert states["seeds"] == ("damaged" if recorded or not place else "waiting")
    app(["show", "tiny", "--store", store.uri], standalone_mode=False)
    capsys.readouterr()
    code, found = verify(capsys, store, "--repair")
    assert (code, path.read_text()) == (2, "?")
    assert found["left"] == [f"{path}: is a file, not a folder. Remove it, then submit the job again."]


def test_strange_things_with_other_names_are_left_alone(run, capsys):
    store, plan = run
    path = part(store, stage_named(plan, "seeds"), "shards/mine")
    os.mkfifo(path)
    code, found = verify(capsys, store, "--repair")
    assert (code, [(one["kind"], one["path"]) for one in found["findings"]]) == (0, [("stranger", str(path))])
    assert path.is_fifo()
