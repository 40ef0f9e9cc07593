"""The maps of a run as arrays: damage is named, never served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import wsss_ray
from tests.local import stage_named, whole_run
from tests.shapes import tiny_job
from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.shards import shard_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole"), tiny_job())


@pytest.fixture
def run(whole, tmp_path):
    """The run in a store of its own, and its shards of maps."""
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    one = wsss_ray.open_run("tiny", str(tmp_path / "runs"))
    stage = stage_named(whole[1], "maps")
    return one, [Path(shard_path(one.store, stage, shard)) for shard in range(3)]


def test_a_shard_of_others_is_not_served(run):
    one, (first, second, _) = run
    assert len(list(one.maps())) == 24
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match=r"part-00000.parquet|no stage of localization maps is done"):
        list(one.maps())


def test_flipped_bits_are_named(run):
    one, (first, *_) = run
    whole = first.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        first.write_bytes(bytes(damaged))
        with pytest.raises(DamagedFile, match=first.name):
            list(one.maps())


def test_a_lost_shard_makes_the_stage_not_done(run):
    one, (first, *_) = run
    first.unlink()
    with pytest.raises(ValueError, match="no stage of localization maps is done"):
        one.maps()
