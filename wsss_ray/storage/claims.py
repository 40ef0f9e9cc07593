"""Claim stages: a process claims a stage before it makes it, so that other processes wait instead of making it twice.

A claim is the file `STORE/claims/<name>.json`. The name is a stage's id, `sweep-<name>` or `logger-<kind>-<run>`. The file says
who holds the claim, and has a beat, a counter that the holder raises every `BEAT_S` seconds. A claim is stale at once if its
process is known to be dead; otherwise it is stale when its beat has not changed for `STALE_S` seconds. Each waiting process
measures that time with its own clock, so clocks of different machines are never compared.

On a local path, one process creates a claim's file, whatever happens at once. So does S3, where its server compares (see
conditional.py). On other object stores, the claim that was written last counts.

Claims save work but protect nothing. Every write of a stage is atomic and repeatable. A long pause of one holder may lead to two
holders; both then write the same bytes.
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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.atomic import TEMPORARY
from wsss_ray.storage.conditional import Conditional
from wsss_ray.storage.documents import CLAIM, parse
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.store import RunStore

BEAT_S = 5.0
STALE_S = 40.0
_ABANDONED_S = 60.0  # age from which a temporary file counts as left by a killed process
_POLL_S = 1.0
_LARGEST_PID = 2**31
_SETTLE_S = 0.5  # shortest wait after writing a claim to an object store that cannot compare


class Claims:
    """The claims of one process on stages, sweeps and loggers of a store.

    Use it as a context manager: inside the block a thread keeps the claims beating, and the end of the block frees them.

    Args:
        attempt: Name of the process for others that wait; see `attempt`.

    Example:
        >>> with Claims(store, attempt()) as claims:
        ...     claims.wait(stage.id, done=lambda: store.is_done(stage))
        ...     if not store.is_done(stage):
        ...         make(stage)  # this process has the claim
        ...     claims.free(stage.id)
    """

    def __init__(self, store: RunStore, attempt: str) -> None:
        self.store = store
        self.holder = {"attempt": attempt, "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._held: dict[str, int] = {}  # name -> beat
        self._since: dict[str, float] = {}  # name -> when it was taken, in seconds since the epoch
        self._seen: dict[str, tuple[bytes, float]] = {}  # name -> another's claim, and since when it has not changed
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for name in list(self._held):
            self.free(name)

    def take(self, name: str) -> dict[str, Any] | None:
        """Claim a name, as a rule a stage's id. Return None if this process now has the claim, else its holder."""
        if name in self._held:
            return None
        self._since[name] = round(time.time(), 3)
        path, data = self._path(name), self._content(name, 0)
        if not self._create(path, data):
            other = self._read(path)
            if other is not None and not self._is_stale(name, other):
                return _holder(other)
            if other is not None and not self._remove(path, other):
                return {"attempt": "another"}  # another process was faster
            if not self._create(path, data):
                return _holder(self._read(path) or b"")
        with self._lock:
            self._held[name] = 0
        return None

    def wait(self, name: str, done: Callable[[], bool]) -> None:
        """Wait until `done()` is true or this process gets the claim."""
        while not done() and self.take(name) is not None:
            time.sleep(_POLL_S)

    def free(self, name: str) -> None:
        """Release a claim, unless another process has taken it over."""
        with self._lock:
            beat = self._held.pop(name, None)
            if beat is not None and self._read(self._path(name)) == self._content(name, beat):
                with suppress(OSError):
                    self.store.delete(self._path(name))

    def remove_stale(self) -> None:
        """Remove claims on finished stages, left by holders that died after writing the record, and old temporary files."""
        finished = Finished(self.store)
        for file_name in self.store.names(self.store.path("claims")):
            name = file_name.removesuffix(".json")
            if name not in self._held and finished.state(name).is_done:
                with suppress(FileNotFoundError):
                    self.store.delete(self._path(name))
        if self.store.is_local:
            for left in Path(self.store.path("claims")).glob(f"{TEMPORARY}*"):  # of processes killed inside `take`
                with suppress(OSError):
                    if time.time() - left.lstat().st_mtime > _ABANDONED_S:
                        left.unlink()

    def _is_stale(self, name: str, data: bytes) -> bool:
        if is_dead(_holder(data)):
            return True
        before, since = self._seen.get(name, (None, 0.0))
        if before != data:
            self._seen[name] = (data, time.monotonic())
            return False
        return time.monotonic() - since > STALE_S

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                for name, beat in self._held.items():
                    with suppress(OSError):  # a short failure of the store costs at most the claim
                        if self._read(self._path(name)) == self._content(name, beat):  # otherwise another took it over
                            self._beat(self._path(name), self._content(name, beat + 1))
                            self._held[name] = beat + 1

    def _beat(self, path: str, data: bytes) -> None:
        """Overwrite a claim with content of the same length, in one write: a kill leaves no half claim and no temporary file."""
        if not self.store.is_local:
            self.store.write(path, data)
            return
        with open(path, "r+b", buffering=0) as file:
            file.write(data)

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists. If two processes try at once, one succeeds."""
        if not self.store.is_local:
            return self._create_object(path, data)
        os.makedirs(os.path.dirname(self.store.guarded(path)), exist_ok=True)
        temporary = Path(f"{path.rpartition('/')[0]}/{TEMPORARY}{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_object(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists. A store that cannot tell keeps the last of several that were written at once.

        Whose object that is shows after a while, during which slower writes may end: as long as this one took, and as long again.
        """
        if self.store.exists(path):
            return False
        created = self._conditional.create(path.partition("/")[2], data) if self._conditional is not None else None
        if created is not None:
            return created
        began = time.monotonic()
        self.store.write(path, data)
        time.sleep(max(_SETTLE_S, 2 * (time.monotonic() - began)))
        return self._read(path) == data

    @cached_property
    def _conditional(self) -> Conditional | None:
        """The store's bucket, if its server creates objects only where there is none."""
        bucket = Conditional.of(self.store.uri)
        probe = self.store.path("claims", f"{TEMPORARY}probe").partition("/")[2]
        return bucket if bucket is not None and bucket.is_heard(probe) else None

    def _remove(self, path: str, data: bytes) -> bool:
        """Remove a stale claim. If the file holds another claim by now, put it back and return False."""
        if not self.store.is_local:
            if self._read(path) != data:
                return False
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

    def _path(self, name: str) -> str:
        return _path(self.store, name)

    def _content(self, name: str, beat: int) -> bytes:
        return json.dumps(self.holder | {"since": self._since[name], "beat": f"{beat:09d}"}).encode()


@dataclass(frozen=True)
class Claim:
    """A claim as others see it: its holder, and the seconds since its last beat."""

    holder: dict[str, Any]
    silent_s: float


def read_claim(store: RunStore, name: str) -> Claim | None:
    """Read the claim on a name, as a rule a stage's id. Return None if there is none, or it is being written at this moment.

    The silence compares the clock of the file system with that of this machine.
    """
    path = _path(store, name)
    info = store.info(path)
    if info is None:
        return None
    try:
        return Claim(store.read_json(path, CLAIM), max(0.0, time.time() - info.written))
    except OSError:  # the claim is being freed or written at this moment
        return None


def attempt() -> str:
    """Name the running attempt: the submission id of Ray Jobs, or else this process and machine."""
    return os.environ.get("WSSS_RAY_ATTEMPT") or f"process {os.getpid()} on {socket.gethostname()}"


def is_dead(holder: dict[str, Any]) -> bool:
    """Return True if the process of a claim is known to be dead. Only the machine of that process can tell."""
    pid = holder.get("pid", 0)
    if holder.get("machine") != _machine() or not 0 < pid < _LARGEST_PID:
        return False
    return _started(pid) not in (holder.get("started"), "unknown")


def _holder(data: bytes) -> dict[str, Any]:
    """Parse the holder of a claim from the content of its file."""
    try:
        found: dict[str, Any] = parse(data, "claim", CLAIM)
    except DamagedFile:  # being written at this moment, or damaged: then it never beats, and is taken over
        found = {"attempt": "another"}
    return found


def _path(store: RunStore, name: str) -> str:
    return store.path("claims", f"{name}.json")


def _machine() -> str:
    """Identify this machine by host name, boot and PID namespace; copies and containers may share a host name."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """Return when a process of this machine started, in clock ticks since boot; None if it is dead, "unknown" if unreadable."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return None
    except OSError:  # another user's process, or no /proc: only its beat can tell
        return "unknown"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
