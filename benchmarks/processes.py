"""What a process and its descendants take while they run, from /proc. Linux only."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_EVERY_S = 0.25


@dataclass
class Watch:
    """What a process and its descendants take while they run: bytes, and processor seconds."""

    pid: int
    driver: int = 0  # the most of the process itself
    store: int = 0  # the most of shared memory that Ray's raylet has touched: it holds the object store
    worker: int = 0  # the most of any process that makes shards
    seconds: dict[int, float] = field(default_factory=dict)  # by process
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """One sample."""
        self.driver = max(self.driver, _status(self.pid).get("VmHWM", 0))
        for pid in [self.pid, *_descendants(self.pid)]:
            self.seconds[pid] = max(self.seconds.get(pid, 0.0), _processor_s(pid))
            found, name = _status(pid), _name(pid)
            if name == "raylet":
                self.store = max(self.store, found.get("RssShmem", 0))
            elif name.startswith("ray::"):
                self.worker = max(self.worker, found.get("RssAnon", 0))

    def until_over(self) -> None:
        """Look now and then."""
        while not self.over.wait(_EVERY_S):
            self.look()


def _status(pid: int) -> dict[str, int]:
    """The figures of /proc/PID/status in bytes; empty for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
    return command.rpartition("/")[2] if not command.startswith("ray::") else command


def _processor_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]
