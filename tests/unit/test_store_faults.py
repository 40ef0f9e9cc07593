"""The store when something fails: killed writers, full disks, interrupts, what they leave, and how a store may be named."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.filesystems import holds_credentials, shown
from wsss_ray.storage.store import RunStore

SIZE = 8 << 20
WRITER = """
import itertools, sys
from wsss_ray.storage.store import RunStore
store = RunStore(sys.argv[1])
for text in itertools.cycle(b"ab"):
    store.write(store.path("stages", "x", "file"), bytes([text]) * int(sys.argv[2]))
    print("written", flush=True)
"""
LIMITED = """
import resource, sys
from wsss_ray.storage.store import RunStore
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
store = RunStore(sys.argv[1])
try:
    store.write(store.path("stages", "x", "file"), b"n" * 5000)
except OSError as error:
    print(error.errno)
store.write(store.path("stages", "x", "small"), b"n" * 4096)
"""
STAGE = SimpleNamespace(id="x")


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "stages/x/file"
    for times in (1, 2, 3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(SIZE)], stdout=subprocess.PIPE)
        for _ in range(times):
            child.stdout.readline()
        child.kill()  # somewhere in the next write
        assert child.wait(timeout=60) == -signal.SIGKILL
        child.stdout.close()
        found = path.read_bytes()
        assert found in (b"a" * SIZE, b"b" * SIZE)
    store = RunStore(str(tmp_path))
    assert store.names(store.path("stages", "x")) == ["file"], "what a killed writer leaves is no name"


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path):
    store = RunStore(str(tmp_path))
    store.write(store.path("stages", "x", "file"), b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert everything(tmp_path) == ["stages/x/file", "stages/x/small"]
    assert store.read(store.path("stages", "x", "file")) == b"old"


def test_a_folder_in_the_place_of_a_file_leaves_nothing_behind(tmp_path):
    store = RunStore(str(tmp_path))
    (tmp_path / "stages/x/file").mkdir(parents=True)
    with pytest.raises(DamagedFile, match="is a folder, not a file"):
        store.write(store.path("stages", "x", "file"), b"1")
    assert everything(tmp_path) == []


def test_what_killed_writers_left_is_swept_when_the_stage_is_done(tmp_path):
    store = RunStore(str(tmp_path))
    store.write(store.path("stages", "x", "shards", "part-00000.parquet"), b"1")
    store.write(store.path("stages", "y", "shards", "part-00000.parquet"), b"1")
    left = [
        tmp_path / "stages" / place for place in ("x/.tmp-1-a", "x/shards/.tmp-2-b", "x/shards/.tmp-3-c", "y/shards/.tmp-4-d")
    ]
    for path in left:
        path.write_bytes(b"half")
    store.commit(STAGE, {"kind": "seed", "inputs": [], "counts": {"shards": 1}})
    assert [path.exists() for path in left] == [False, False, False, True], "y is not done"
    assert store.exists(store.path("stages", "x", "shards", "part-00000.parquet"))
    assert store.remove_unfinished(STAGE) == 0


def test_a_record_appears_after_its_files_and_their_folders_are_on_the_disk(tmp_path, monkeypatch):
    """A power failure must not leave a record whose shards are only in memory."""
    store, events = RunStore(str(tmp_path)), []
    sync, rename = os.fsync, os.replace

    def synced(number):
        events.append(("on disk", os.path.relpath(os.readlink(f"/proc/self/fd/{number}"), tmp_path)))
        sync(number)

    def renamed(source, target):
        events.append(("named", os.path.relpath(target, tmp_path)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    for folder in ("shards", "errors"):
        store.write(store.path("stages", "x", folder, "part-00000.parquet"), b"1")
    store.commit(STAGE, {"kind": "seed", "inputs": [], "counts": {"shards": 1}})
    record = events.index(("named", "stages/x/record.json"))
    for folder in ("shards", "errors"):
        named = events.index(("named", f"stages/x/{folder}/part-00000.parquet"))
        assert events[named - 1][0] == "on disk", "its content"
        assert named < events.index(("on disk", f"stages/x/{folder}")) < record
    assert ("on disk", "stages/x") in events[:record]
    assert ("on disk", "stages") in events[:record]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file://{}/runs", "runs"),
        ("file://localhost{}/runs/", "runs"),
        ("file:{}/runs", "runs"),
        ("file://{}/my%20runs", "my runs"),
        ("file://{}/my runs", "my runs"),
        ("{}/läufe #1?", "läufe #1?"),
    ],
)
def test_a_file_uri_is_a_path(tmp_path, uri, path):
    store = RunStore(uri.format(tmp_path))
    assert store.is_local
    assert store.path() == store.uri == str(tmp_path / path)
    store.write(store.path("a"), b"1")
    assert (tmp_path / path / "a").read_bytes() == b"1"
    assert everything(tmp_path) == [f"{path}/a"]


def test_a_file_uri_of_another_machine_is_refused():
    for uri in ("file://nas/runs", "file://", "file:"):
        with pytest.raises(ValueError, match="names no folder of this machine"):
            RunStore(uri)


@pytest.mark.parametrize(
    ("uri", "holds", "text"),
    [
        ("s3://KEY:secret@bucket/a", True, "s3://bucket/a"),
        ("s3://KEY:sec/ret@bucket/a", True, "s3://bucket/a"),
        ("S3://KEY@bucket/a", True, "S3://bucket/a"),
        ("s3://bucket/a?access_key=KEY", True, "s3://bucket/a"),
        ("hdfs://user:secret@host/a", True, "hdfs://host/a"),
        ("s3://bucket/a@b?region=x", False, "s3://b"),
        ("gs://anonymous@bucket/a", False, "gs://bucket/a"),
        ("abfs://container@account.dfs.core.windows.net/a", False, "abfs://account.dfs.core.windows.net/a"),
        ("s3://bucket/a?endpoint_override=host:9000", False, "s3://bucket/a"),
        ("/a/b@c:d", False, "/a/b@c:d"),
    ],
)
def test_credentials_in_a_uri_are_seen_and_not_shown(uri, holds, text):
    assert holds_credentials(uri) is holds
    assert shown(uri) == text
    if holds:
        with pytest.raises(ValueError, match="the URI holds credentials") as caught:
            RunStore(uri)
        assert "ret" not in str(caught.value).replace("credentials", "")
