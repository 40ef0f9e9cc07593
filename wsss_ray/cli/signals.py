"""Handle the signals that end a command, even if the process that started it ignores them or a library loses them."""

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

_AGAIN_S = 0.01  # after this time, the weak reference's callback or the destructor has ended
_ONE_S = 1.0  # two SIGINTs within this time are one that came twice


class Ended(SystemExit):
    """Unwind the stack after SIGTERM, as KeyboardInterrupt does after SIGINT. Its code is what a shell gives for the signal."""


@contextmanager
def heard() -> Iterator[None]:
    """Let SIGINT and SIGTERM end this process, even if it has inherited to ignore them.

    A shell without job control, such as the shell of a script, starts background commands with SIGINT ignored. SIGHUP stays
    ignored, as `nohup` needs it. Child processes inherit these settings and react to the signals like those of a command in the
    foreground; otherwise Ray could not cancel a task.

    Python drops an exception that a signal's handler raises inside a weak reference's callback or a destructor. This block raises
    it again.

    Example:
        >>> with heard():
        ...     app()
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
    """Raise `Ended` on SIGTERM in this block, so that clean-up runs. Outside the main thread, do nothing.

    Example:
        >>> with unwound_by_sigterm(), TemporaryDirectory() as folder:  # the folder is deleted after SIGTERM too
        ...     work_in(folder)
    """

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
    """Return a handler of SIGINT that counts signals within a second as one: a terminal and a parent may both send it.

    Example:
        >>> signal.signal(signal.SIGINT, interrupt_once())
    """
    last = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _ONE_S:
            last = time.monotonic()
            raise KeyboardInterrupt

    return interrupt


def _raise(error: type[BaseException], args: tuple[Any, ...], _number: int, _frame: FrameType | None) -> NoReturn:
    raise error(*args)
