"""TensorBoard's event files where files do not grow."""

from __future__ import annotations

import tempfile

import pytest
from pyarrow.fs import FileSelector

from tests.event_files import points
from tests.s3_server import request, serving
from wsss_ray.reporting.loggers import Tensorboard, tensorboard
from wsss_ray.reporting.loggers.logger import Run, StepFigures
from wsss_ray.storage.store import RunStore

pytest.importorskip("moto.server", reason="needs moto[server], an S3 endpoint for tests")


@pytest.fixture(scope="module")
def endpoint():
    with serving() as address:
        yield address


def test_a_put_to_s3_that_fails_is_made_up_for_by_the_next(endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tensorboard, "_PUT_S", -1.0)  # with every write
    request(endpoint, "PUT", "/lent")
    there = RunStore(f"s3://lent/runs?endpoint_override={endpoint}&scheme=http&attempts=1")
    sink = Tensorboard().open(Run(store=there, name="tiny", job={}, tags={}, before=None))
    request(endpoint, "DELETE", "/lent")
    sink.write([StepFigures("train", "train-0", 1, 1.0, {"loss": 2.0})])
    request(endpoint, "PUT", "/lent")
    sink.write([StepFigures("train", "train-0", 2, 2.0, {"loss": 1.0})])
    folder = there.run_path("tiny", "tensorboard", "train")
    (name,) = there.names(folder)
    assert points(there.read(f"{folder}/{name}")) == {"loss": [(1, 2.0), (2, 1.0)]}
    request(endpoint, "DELETE", f"/lent/runs/runs/tiny/tensorboard/train/{name}")
    for left in there.fs.get_file_info(FileSelector("lent", recursive=True)):
        request(endpoint, "DELETE", f"/{left.path}/")
    request(endpoint, "DELETE", "/lent")
    with pytest.raises(OSError, match="lent"):
        sink.close("failed", None)
    assert not list(tmp_path.iterdir()), "nothing is left here"
