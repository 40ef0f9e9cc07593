"""Signals that end a command: hear them whatever started it, and hear them again where a library lost them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

_AGAIN_S = 0.01  # by then the weak reference's callback or the destructor is over
_ONE_S = 1.0  # within it, two SIGINTs are one that came twice


class Ended(SystemExit):
    """Unwind the stack after SIGTERM, as KeyboardInterrupt does after SIGINT. Its code is what a shell gives for the signal."""


@contextmanager
def heard() -> Iterator[None]:
    """Let SIGINT and SIGTERM end this process, also one that inherited that it ignores them.

    A shell without job control, such as that of a script, starts what it runs in the background deaf to SIGINT. SIGHUP stays
    ignored, as `nohup` wants it. Child processes inherit what is set here: they hear the signals as those of a command in the
    foreground do, and without that Ray cannot cancel a task.

    Python drops what a signal's handler raises inside a weak reference's callback or a destructor. Here it is raised again.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    before = sys.unraisablehook

    def lost(found: Any) -> None:
        error = found.exc_value
        if isinstance(error, KeyboardInterrupt | Ended) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, partial(_raise, type(error), error.args))
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            before(found)

    sys.unraisablehook = lost
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def unwound_by_sigterm() -> Iterator[None]:
    """Clean up also when the process is ended politely."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise Ended(128 + number)

    before = None
    with suppress(ValueError):  # not in the main thread
        before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def interrupt_once() -> Callable[[int, FrameType | None], None]:
    """Return a handler of SIGINT that takes those within a second for one, as of a terminal and of a parent that passes it on."""
    last = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _ONE_S:
            last = time.monotonic()
            raise KeyboardInterrupt

    return interrupt


def _raise(error: type[BaseException], args: tuple[Any, ...], _number: int, _frame: FrameType | None) -> NoReturn:
    raise error(*args)
