"""Measure this process's peak of memory, and limit its memory, so that too much is an error and does not kill the process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsss_ray.core.errors import is_out_of_memory

_WORDS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "unable to allocate",
          "bad_alloc")  # fmt: skip


class Peak:
    """The peak of memory in bytes since this object was made, or since the start of the process if the system cannot reset it."""

    def __init__(self, *, gpu: bool = False) -> None:
        self.gpu = gpu
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()

    def resident(self) -> int:
        """Return the peak of main memory."""
        found = _status("VmHWM")
        if found is not None:
            return found
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def on_gpu(self) -> int:
        """Return the peak of GPU memory, 0 without a GPU."""
        if not self.gpu:
            return 0
        import torch

        return int(torch.cuda.max_memory_allocated())


@contextmanager
def at_most(num_bytes: float | None) -> Iterator[None]:
    """Limit how many more bytes this process may allocate. Beyond the limit, allocations fail. None, or another system than
    Linux, sets no limit.
    """
    used = _status("VmData")
    if num_bytes is None or used is None:
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(used + num_bytes)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def free_memory() -> float | None:
    """Return the free bytes of the machine or the container, or None if the system does not report them."""
    found = _field("/proc/meminfo", "MemAvailable")
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):
            left = int(Path("/sys/fs/cgroup", limit).read_text()) - int(Path("/sys/fs/cgroup", used).read_text())
            found = left if found is None else min(found, left)
    return found


def ran_out(error: BaseException | str) -> bool:
    """Return True if an error, or its recorded message, says that memory ran out."""
    return is_out_of_memory(error) or any(word in str(error).lower() for word in _WORDS)


def _status(name: str) -> int | None:
    return _field("/proc/self/status", name)


def _field(path: str, name: str) -> int | None:
    """Read a field of a Linux table and convert it from kB to bytes. None if there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(values[0]) if values else None
