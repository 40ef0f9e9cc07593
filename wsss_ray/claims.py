"""Claims: who is making a stage now, so that others wait for it instead of making it twice.

A claim is a file `STORE/claims/<stage id>.json` with its holder and a beat that the holder counts up every few seconds. It is
void when its beat stands still for `STALE_S` by the clock of whoever waits (so that no clocks are compared), or at once when its
process is known to be dead. Claims save work and guard nothing: every write of a stage is atomic and can be repeated, so that two
holders, after a long pause of one of them, still end in the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from wsss_ray.plan import Stage
from wsss_ray.store import RunStore

BEAT_S = 5.0
STALE_S = 40.0
_SETTLE_S = 0.5  # on an object store, after which a claim that was written last is the one that counts


class Claims:
    """The claims of one process on the stages of a store; a context, in which the beats are kept up and which frees all."""

    def __init__(self, store: RunStore, attempt: str) -> None:
        self.store = store
        self.holder = {"attempt": attempt, "host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._held: dict[str, int] = {}  # stage id -> beat
        self._seen: dict[str, tuple[bytes, float]] = {}  # stage id -> another's claim, and since when it stands like that
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for stage_id in list(self._held):
            self._free(stage_id)

    def take(self, stage: Stage) -> dict[str, Any] | None:
        """Claim a stage. Returns None if it is ours now, else who holds it."""
        if stage.id in self._held:
            return None
        path, data = self._path(stage.id), self._content(0)
        if not self._create(path, data):
            other = self._read(path)
            if other is not None and not self._is_void(stage.id, other):
                holder: dict[str, Any] = json.loads(other)
                return holder
            with suppress(FileNotFoundError):
                self.store.delete(path)
            if not self._create(path, data):
                return json.loads(self._read(path) or b"{}") or {"attempt": "another"}
        with self._lock:
            self._held[stage.id] = 0
        return None

    def free(self, stage: Stage) -> None:
        """Give a stage back."""
        self._free(stage.id)

    def sweep(self) -> None:
        """Remove claims on stages that are done: their holders died between the record and this."""
        for name in self.store.names(self.store.path("claims")):
            stage_id = name.removesuffix(".json")
            done = self.store.exists(self.store.path("stages", stage_id, "record.json"))
            if done and stage_id not in self._held:
                with suppress(FileNotFoundError):
                    self.store.delete(self._path(stage_id))

    def _is_void(self, stage_id: str, data: bytes) -> bool:
        if is_dead(json.loads(data)):
            return True
        before, since = self._seen.get(stage_id, (b"", 0.0))
        if before != data:
            self._seen[stage_id] = (data, time.monotonic())
            return False
        return time.monotonic() - since > STALE_S

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                for stage_id in self._held:
                    self._held[stage_id] += 1
                    with suppress(OSError):  # a store that fails for a moment costs the claim at worst
                        self.store.write(self._path(stage_id), self._content(self._held[stage_id]))

    def _free(self, stage_id: str) -> None:
        with self._lock:
            beat = self._held.pop(stage_id, None)
            if beat is not None and self._read(self._path(stage_id)) == self._content(beat):
                with suppress(OSError):
                    self.store.delete(self._path(stage_id))

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file unless it is there; of two who try at once one succeeds."""
        if not self.store.is_local:
            if self.store.exists(path):
                return False
            self.store.write(path, data)
            time.sleep(_SETTLE_S)
            return self._read(path) == data
        self.store.fs.create_dir(path.rpartition("/")[0], recursive=True)
        temporary = Path(f"{path.rpartition('/')[0]}/.tmp-{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _read(self, path: str) -> bytes | None:
        try:
            return self.store.read(path)
        except FileNotFoundError:
            return None

    def _path(self, stage_id: str) -> str:
        return self.store.path("claims", f"{stage_id}.json")

    def _content(self, beat: int) -> bytes:
        return json.dumps(self.holder | {"beat": beat}).encode()


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process of a claim is known to be no more, which only its own machine can tell."""
    return bool(holder["host"] == socket.gethostname() and _started(holder["pid"]) != holder["started"])


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
