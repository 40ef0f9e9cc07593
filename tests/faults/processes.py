"""Finding processes by a mark in their environment, whatever they call themselves and whoever is their parent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MARK = "WSSS_RAY_TEST"
T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """A running process: its mark is `<test run>.<owner>.<incarnation>`, its title what `ps` shows."""

    pid: int
    parent: int
    mark: str
    title: str

    @property
    def owner(self) -> str:
        return self.mark.split(".")[1]


def marked(prefix: str) -> list[Process]:
    """The running processes whose mark starts with `prefix`. With SPT_NOENV=1 in it, Ray leaves the environment readable."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(f"{MARK}={prefix}".encode()):
                    title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    found.append(Process(int(folder.name), parent, entry.decode().partition("=")[2], title))
    return found


def kill(pid: int) -> None:
    """kill -9, of a process that may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_all(prefix: str) -> None:
    """kill -9 of every marked process until none is left."""

    def none_left() -> bool:
        left = marked(prefix)
        for process in left:
            kill(process.pid)
        return not left

    wait_for(none_left, seconds=30, what=f"the end of all processes marked {prefix}")


def wait_for(ready: Callable[[], T], *, seconds: float, what: str, every: float = 0.1) -> T:
    """Poll until `ready` returns something true, and return that. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return found
