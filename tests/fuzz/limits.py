"""Call a reader within limits of time and memory, and judge how it ends."""

from __future__ import annotations

import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsss_ray.config.document import JobError

SECONDS = 10.0  # of computing
_STUCK = 120.0  # seconds by the clock, for a reader that waits
BYTES = 1 << 30
_ADDRESSES = 6 << 30  # an allocation above this fails at once, before the machine suffers

KINDS = ("ValueError", "JobError", "DamagedStage", "DamagedFile", "OSError", "FileNotFoundError")
"""The errors that a reader may raise. Another subclass of theirs, such as UnicodeDecodeError, has slipped out of a library."""


class Finding(AssertionError):
    """A reader that did not end as it should."""


class _TooSlow(BaseException):
    """Raised in a reader whose time is over. No reader catches it."""


def outcome(read: Callable[[bytes, Path], object], data: bytes, folder: Path) -> str:
    """Read an input. Return "value" or "refused". Raises Finding on any other end, and on too much time or memory."""
    _forget_peak()
    before, began = _peak(), time.process_time()
    end = "value"
    try:
        with _limited():
            read(data, folder)
    except (ValueError, OSError) as error:
        end = "refused"
        if type(error).__name__ not in KINDS:
            raise Finding(f"{type(error).__name__}: {error}") from error
        lines = str(error).splitlines() if isinstance(error, JobError) else [str(error)]
        if not lines or any(not line.strip() or not line.isprintable() or len(line) > 4000 for line in lines):
            raise Finding(f"not one printable line: {str(error)[:500]!r}") from error
    except _TooSlow as error:
        raise Finding(f"more than {SECONDS:g} s") from error
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {str(error)[:500]}") from error
    if time.process_time() - began > SECONDS:
        raise Finding(f"{time.process_time() - began:.1f} s")
    if _peak() - before > BYTES:
        raise Finding(f"{(_peak() - before) / 1e9:.2f} GB")
    return end


@contextmanager
def _limited() -> Iterator[None]:
    """Bound the addresses of this process, and on its main thread the time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _ADDRESSES, hard))
    timed = threading.current_thread() is threading.main_thread()
    timers = ((signal.SIGALRM, signal.ITIMER_REAL, _STUCK), (signal.SIGPROF, signal.ITIMER_PROF, SECONDS)) if timed else ()
    before = [signal.signal(number, _over) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _over(*_: object) -> None:
    raise _TooSlow


def _peak() -> int:
    """Return the most memory that this process has had since `_forget_peak`, in bytes."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(_status("VmHWM"))


def _forget_peak() -> None:
    """Let the peak start again at what is used now. Where that is not possible, only growth beyond it counts."""
    if sys.platform == "linux" and int(_status("VmHWM")) - int(_status("VmRSS")) > 1 << 16:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> str:
    text = Path("/proc/self/status").read_text()
    return text[text.index(name) :].split(maxsplit=2)[1]
