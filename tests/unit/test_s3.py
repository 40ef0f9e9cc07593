"""A store on S3, at a real endpoint of this machine: the same files as on disk, whole objects or none, one line for mistakes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from tests.event_files import points
from tests.gate import gated
from tests.local import job_of, run_plan, stage_named
from tests.s3_server import request, serving
from tests.shapes import tiny_job
from tests.told import error_line
from wsss_ray.cli import app
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.follow import logged
from wsss_ray.storage.shards import count_rows, list_shards
from wsss_ray.storage.store import RunStore

pytest.importorskip("moto.server", reason="needs moto[server], an S3 endpoint for tests")

PARTS = 11 << 20  # bytes; more than one part of pyarrow's 10 MiB
CHILD = """
import sys
from wsss_ray.storage.store import RunStore
store = RunStore(sys.argv[1])
store.write(store.path("stages", "big"), sys.argv[2].encode() * int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def endpoint():
    with serving() as address:
        yield address


def uri(endpoint, folder):
    return f"s3://data/{folder}?endpoint_override={endpoint}&scheme=http"


@pytest.fixture
def store(endpoint, request):
    return RunStore(uri(endpoint, request.node.name))


@pytest.fixture
def gate(endpoint):
    with gated(endpoint) as found:
        yield found


@pytest.fixture(scope="module")
def both(endpoint, tmp_path_factory):
    """A whole plan, made on disk and on S3."""
    plan = job_of(tiny_job()).plan()
    stores = RunStore(str(tmp_path_factory.mktemp("disk"))), RunStore(uri(endpoint, "plan"))
    for store in stores:
        run_plan(store, plan)
    return plan, *stores


def files(store, folder):
    """The names below a folder; an empty folder is one without files, be there a marker or not."""
    found = set()
    for name in store.names(folder):
        path = f"{folder}/{name}"
        found |= {name} if store.exists(path) else {f"{name}/{below}" for below in files(store, path)}
    return found


def test_a_plan_on_s3_makes_the_same_files_as_on_disk(both):
    plan, disk, s3 = both
    assert not s3.is_local
    assert files(s3, s3.path("stages")) == files(disk, disk.path("stages"))
    compared = 0
    for stage in plan:
        assert s3.record(stage)["counts"] == disk.record(stage)["counts"]
        assert s3.record(stage)["metrics"] == disk.record(stage)["metrics"]
        assert list_shards(s3, stage) == list_shards(disk, stage)
        for path in files(disk, disk.stage_path(stage)):
            if path.endswith((".parquet", ".safetensors")):
                assert s3.read(s3.stage_path(stage, path)) == disk.read(disk.stage_path(stage, path)), path
                compared += 1
        for shard in list_shards(disk, stage):
            assert count_rows(s3, stage, shard) == count_rows(disk, stage, shard)
    assert compared == 24


def test_a_run_is_looked_at_on_s3(both, endpoint, capsys):
    plan, _, s3 = both
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    s3.write_json(s3.run_path("tiny", "run.json"), {"name": "tiny", "stages": stages})
    for command in (["status"], ["show", "tiny"]):
        app([*command, "--store", uri(endpoint, "plan")], standalone_mode=False)
    out = capsys.readouterr().out
    assert re.search(r"^tiny .*\b12/12\b", out, re.MULTILINE)
    assert stage_named(plan, "seeds").id in out


def test_event_files_are_put_on_s3(both, tmp_path, monkeypatch):
    plan, _, s3 = both
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with logged(job_of(tiny_job()), plan, s3, Display()):
        pass
    folder = s3.run_path("tiny", "tensorboard")
    found = {path.partition("/")[0]: points(s3.read(f"{folder}/{path}")) for path in files(s3, folder)}
    assert set(found) == {stage.name for stage in plan}
    assert found["miou"]["miou"] == [(1, pytest.approx(s3.record(stage_named(plan, "miou"))["metrics"]["miou"]))]
    assert not list(tmp_path.iterdir()), "nothing is left here"


def test_files_and_folders(store):
    assert store.path("a", "b") == f"{store.path()}/a/b"
    assert "?" not in store.path()
    path = store.path("folder", "deep", "file")
    assert store.names(store.path()) == store.names(store.path("folder")) == []
    assert not store.exists(path)
    with pytest.raises(FileNotFoundError):
        store.read(path)
    store.write(path, b"old")
    store.write(path, b"new")
    assert store.read(path) == b"new"
    assert store.names(store.path("folder")) == ["deep"]
    assert store.exists(path)
    assert not store.exists(store.path("folder", "deep")), "a folder is no file"
    store.delete(path)
    assert store.names(store.path("folder", "deep")) == [], "the marker that stays behind is no name"
    with pytest.raises(FileNotFoundError):
        store.delete(path)
    for name in ("1", "2"):
        store.write(store.path("folder", name), b"")
    store.delete_folder(store.path("folder"))
    store.delete_folder(store.path("folder"))
    assert store.names(store.path()) == []


def test_a_worker_opens_the_same_store(store):
    import pickle

    store.write(store.path("x"), b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.read(again.path("x")) == b"1"


def test_what_is_not_bytes_does_not_touch_the_object(store):
    store.write(store.path("x"), b"old")
    with pytest.raises(TypeError):
        store.write(store.path("x"), "text")
    assert store.read(store.path("x")) == b"old"


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_put_that_fails_raises_and_leaves_what_was_there(endpoint, gate, before):
    whole = RunStore(uri(endpoint, f"put-{before is None}"))
    path = whole.path("stages", "big")
    if before:
        whole.write(path, before)
    through = RunStore(uri(f"127.0.0.1:{gate.server_port}", f"put-{before is None}"))
    with pytest.raises(OSError, match="not this part"):
        through.write(path, b"x" * PARTS)
    assert whole.exists(path) is bool(before)
    assert whole.names(whole.path("stages")) == (["big"] if before else [])
    if before:
        assert whole.read(path) == before
    through.write(path, b"small")
    assert whole.read(path) == b"small"


def test_a_writer_that_is_killed_leaves_what_was_there(endpoint, gate):
    folder = RunStore(uri(endpoint, "killed"))
    through = uri(f"127.0.0.1:{gate.server_port}", "killed")
    path = folder.path("stages", "big")
    for before in (None, b"old"):
        if before:
            folder.write(path, before)
        child = subprocess.Popen([sys.executable, "-c", CHILD, through, "x", str(PARTS)])
        gate.refused = child.kill
        assert child.wait(timeout=60) == -signal.SIGKILL
        assert folder.exists(path) is bool(before)
        assert before is None or folder.read(path) == before
    folder.write(path, b"n" * PARTS)
    assert folder.read(path) == b"n" * PARTS


def error_of(capsys, *command):
    return error_line(capsys, lambda: app([*command], standalone_mode=False))


def test_a_bucket_that_is_not_there(endpoint, capsys):
    other = f"s3://nowhere/runs?endpoint_override={endpoint}&scheme=http"
    assert "there is no bucket 'nowhere'; create it, or correct the name" in error_of(capsys, "status", "--store", other)
    with pytest.raises(ValueError, match="there is no bucket"):
        RunStore(other).write("nowhere/runs/x", b"1")


def test_a_store_that_is_not_there(endpoint, capsys):
    assert "there is no store there" in error_of(capsys, "status", "--store", uri(endpoint, "nothing"))


def test_an_endpoint_that_is_down(endpoint, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"s3://data/runs?endpoint_override=127.0.0.1:{closed.getsockname()[1]}&scheme=http&attempts=1"
        assert "Could not connect to server" in error_of(capsys, "status", "--store", where)


def test_an_endpoint_that_never_answers(endpoint, capsys):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = f"s3://data/runs?endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http&request_timeout=1&attempts=1"
        assert "Timeout was reached" in error_of(capsys, "status", "--store", where)


@pytest.mark.parametrize("given", [{}, {"AWS_ACCESS_KEY_ID": "AKIDUNKNOWN", "AWS_SECRET_ACCESS_KEY": "not-the-secret"}])
def test_without_credentials_or_with_wrong_ones(endpoint, monkeypatch, capsys, given):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    request(endpoint, "POST", "/moto-api/reset-auth", b"0")
    try:
        said = error_of(capsys, "status", "--store", uri(endpoint, "plan"))
    finally:
        request(endpoint, "POST", "/moto-api/reset-auth", b"inf")
    assert "AWS Error ACCESS_DENIED" in said or not given, "without any, S3 says denied; this endpoint has no words for it"
    assert "not-the-secret" not in said


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://AKIDEXAMPLE:wJalrXUt@data/runs", "the URI holds credentials"),
        ("s3://AKIDEXAMPLE:wJal/rXUt@data/runs", "the URI holds credentials"),
        ("s3://AKIDEXAMPLE@data/runs", "the URI holds credentials"),
        ("s3://data/runs?secret_key=wJalrXUt", "the URI holds credentials"),
        ("s3://data/runs?regoin=eu-west-1", "unknown option 'regoin' after the ?; allowed: region, scheme"),
        ("s3://data/runs?attempts=many", "attempts=many is not a number; give one"),
        ("s3:///runs", "names no bucket"),
        ("http://user:wJalrXUt@data/runs", "the URI holds credentials"),
        ("http://data/runs", "Unrecognized filesystem type"),
    ],
)
def test_uris_that_cannot_be(capsys, address, message):
    said = error_of(capsys, "status", "--store", address)
    assert message in said
    assert "wJal" not in said
    assert "AKID" not in said


def test_google_cloud_storage_is_opened_without_a_network():
    store = RunStore("gs://anonymous@bucket/some/folder?retry_limit_seconds=1")
    assert store.path("a") == "bucket/some/folder/a"
    assert RunStore("gs://bucket/folder").path() == "bucket/folder"
    assert not store.is_local


def test_the_region_of_the_uri_is_used(endpoint):
    store = RunStore(uri(endpoint, "regional") + "&region=eu-west-1")
    assert store.fs.region == "eu-west-1"
    store.write(store.path("x"), b"1")
    assert RunStore(uri(endpoint, "regional")).read(store.path("x")) == b"1"
