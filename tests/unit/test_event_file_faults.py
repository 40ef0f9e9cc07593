"""TensorBoard's event files on a disk that is full for a while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.event_files import points
from wsss_ray.reporting.loggers import Tensorboard
from wsss_ray.reporting.loggers.logger import Run, StepFigures
from wsss_ray.storage.store import RunStore


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let files of this process have at most `size` bytes: what is beyond is not written, and the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def rows_at(step: int) -> list[StepFigures]:
    return [StepFigures(stage, f"{stage}-0", step, float(step), {"loss": 1 / step}) for stage in ("one", "two", "three")]


@pytest.mark.parametrize("room", [0, 7, 30, "no file yet"])
def test_a_write_that_fails_leaves_whole_records_and_is_made_up_for(tmp_path: Path, room: int | str) -> None:
    store = RunStore(str(tmp_path))
    sink = Tensorboard().open(Run(store=store, name="tiny", job={}, tags={}, before=None))
    if room != "no file yet":
        sink.write(rows_at(1))
    files = sorted(tmp_path.rglob("events.*"))
    sizes = [file.stat().st_size for file in files]
    with pytest.raises(OSError, match="too large"), files_at_most(max(sizes) + room if isinstance(room, int) else 20):
        sink.write(rows_at(2))
    assert [file.stat().st_size for file in files] == sizes
    sink.write(rows_at(2))
    sink.close("finished", None)
    expected = [(2, 0.5)] if room == "no file yet" else [(1, 1.0), (2, 0.5)]
    for stage in ("one", "two", "three"):
        (file,) = (tmp_path / "runs/tiny/tensorboard" / stage).iterdir()
        assert points(file.read_bytes()) == {"loss": expected}


def test_all_files_of_a_failed_write_are_as_before(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    sink = Tensorboard().open(Run(store=store, name="tiny", job={}, tags={}, before=None))
    sink.write(rows_at(1)[2:])  # the file of the last stage is longer, and only it has no room
    (longest,) = tmp_path.rglob("events.*")
    size = longest.stat().st_size
    with pytest.raises(OSError, match="too large"), files_at_most(size):
        sink.write(rows_at(2))
    assert sorted(file.stat().st_size for file in tmp_path.rglob("events.*")) == [0, 0, size]
    sink.write(rows_at(2))
    found = {file.parent.name: points(file.read_bytes())["loss"] for file in tmp_path.rglob("events.*")}
    assert found == {"one": [(2, 0.5)], "two": [(2, 0.5)], "three": [(1, 1.0), (2, 0.5)]}
