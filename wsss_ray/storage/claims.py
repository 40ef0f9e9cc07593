"""Claims: who is making a stage now, so that others wait for it instead of making it twice.

A claim is a file `STORE/claims/<what>.json`, mostly of a stage by its id, with its holder and a beat that the holder counts up
every few seconds. It is void when its beat stands still for `STALE_S` by the clock of whoever waits (so that no clocks are
compared), or at once when its process is known to be dead. Claims save work and guard nothing: every write of a stage is atomic
and can be repeated, so that two holders, after a long pause of one of them, still end in the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from wsss_ray.storage.atomic import TEMPORARY
from wsss_ray.storage.store import RunStore

BEAT_S = 5.0
STALE_S = 40.0
_LEFT_S = 60.0
_POLL_S = 1.0
_SETTLE_S = 0.5  # on an object store, after which a claim that was written last is the one that counts


class Claims:
    """The claims of one process on the stages (sweeps, loggers) of a store; a context that keeps up the beats and frees all."""

    def __init__(self, store: RunStore, attempt: str) -> None:
        self.store = store
        self.holder = {"attempt": attempt, "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._held: dict[str, int] = {}  # what -> beat
        self._since: dict[str, float] = {}  # what -> when it was taken, in seconds since the epoch
        self._seen: dict[str, tuple[bytes, float]] = {}  # what -> another's claim, and since when it stands like that
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for what in list(self._held):
            self.free(what)

    def take(self, what: str) -> dict[str, Any] | None:
        """Claim a stage by its id. Returns None if it is ours now, else who holds it."""
        if what in self._held:
            return None
        self._since[what] = round(time.time(), 3)
        path, data = self._path(what), self._content(what, 0)
        if not self._create(path, data):
            other = self._read(path)
            if other is not None and not self._is_void(what, other):
                return _holder(other)
            if other is not None and not self._remove(path, other):
                return {"attempt": "another"}  # one that was faster than we
            if not self._create(path, data):
                return _holder(self._read(path) or b"")
        with self._lock:
            self._held[what] = 0
        return None

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        """Wait until something is done by its holder, or ours to make."""
        while not done() and self.take(what) is not None:
            time.sleep(_POLL_S)

    def free(self, what: str) -> None:
        """Give a stage back."""
        with self._lock:
            beat = self._held.pop(what, None)
            if beat is not None and self._read(self._path(what)) == self._content(what, beat):
                with suppress(OSError):
                    self.store.delete(self._path(what))

    def sweep(self) -> None:
        """Remove claims on stages that are done: their holders died between the record and this."""
        for name in self.store.names(self.store.path("claims")):
            what = name.removesuffix(".json")
            done = self.store.exists(self.store.path("stages", what, "record.json"))
            if done and what not in self._held:
                with suppress(FileNotFoundError):
                    self.store.delete(self._path(what))
        if self.store.is_local:
            for left in Path(self.store.path("claims")).glob(f"{TEMPORARY}*"):  # of who was killed while he took one
                with suppress(OSError):
                    if time.time() - left.stat().st_mtime > _LEFT_S:
                        left.unlink()

    def _is_void(self, what: str, data: bytes) -> bool:
        if is_dead(_holder(data)):
            return True
        before, since = self._seen.get(what, (b"", 0.0))
        if before != data:
            self._seen[what] = (data, time.monotonic())
            return False
        return time.monotonic() - since > STALE_S

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                for what, beat in self._held.items():
                    with suppress(OSError):  # a store that fails for a moment costs the claim at worst
                        if self._read(self._path(what)) == self._content(what, beat):  # else another has taken it over
                            self._beat(self._path(what), self._content(what, beat + 1))
                            self._held[what] = beat + 1

    def _beat(self, path: str, data: bytes) -> None:
        """Write a claim over itself: of the same length, in one go, so that a kill leaves no half of it and no temporary."""
        if not self.store.is_local:
            self.store.write(path, data)
            return
        with open(path, "r+b", buffering=0) as file:
            file.write(data)

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file unless it is there; of two who try at once one succeeds."""
        if not self.store.is_local:
            if self.store.exists(path):
                return False
            self.store.write(path, data)
            time.sleep(_SETTLE_S)
            return self._read(path) == data
        self.store.fs.create_dir(path.rpartition("/")[0], recursive=True)
        temporary = Path(f"{path.rpartition('/')[0]}/{TEMPORARY}{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _remove(self, path: str, data: bytes) -> bool:
        """Remove a claim that is void; False if it was another one already, which is put back."""
        if not self.store.is_local:
            with suppress(FileNotFoundError):
                self.store.delete(path)
            return True
        aside = Path(f"{path.rpartition('/')[0]}/{TEMPORARY}{uuid.uuid4().hex}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        try:
            if aside.read_bytes() == data:
                return True
            with suppress(FileExistsError):
                os.link(aside, path)
            return False
        finally:
            aside.unlink(missing_ok=True)

    def _read(self, path: str) -> bytes | None:
        try:
            return self.store.read(path)
        except FileNotFoundError:
            return None

    def _path(self, what: str) -> str:
        return self.store.path("claims", f"{what}.json")

    def _content(self, what: str, beat: int) -> bytes:
        return json.dumps(self.holder | {"since": self._since[what], "beat": f"{beat:09d}"}).encode()


def attempt() -> str:
    """Who is running: the submission of Ray Jobs, or this process."""
    return os.environ.get("WSSS_RAY_ATTEMPT") or f"process {os.getpid()} on {socket.gethostname()}"


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process of a claim is known to be no more, which only its own machine can tell."""
    return holder.get("machine") == _machine() and _started(holder["pid"]) not in (holder["started"], "unknown")


def _holder(data: bytes) -> dict[str, Any]:
    """Who holds a claim, as its file says."""
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError:  # being written at this moment
        found = {"attempt": "another"}
    return found


def _machine() -> str:
    """The name of this machine, of its start and of its space of process ids, which a copy or a container may have apart."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's ticks; None if it is no more."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return None
    except OSError:  # another user's, or a system without /proc: its beat has to tell
        return "unknown"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
