"""Look up files, and cache what a listing looks up several times."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_looked_up: ContextVar[dict[Any, Any] | None] = ContextVar("looked_up", default=None)


@contextmanager
def looked_up_once() -> Iterator[None]:
    """Cache the results of `once` within the block, because a listing asks for its folders and tables several times."""
    token = _looked_up.set({})
    try:
        yield
    finally:
        _looked_up.reset(token)


def once(key: Any, look: Callable[[], T]) -> T:
    """Return what `look` finds; within `looked_up_once`, call it once per key and return its cached result later."""
    known = _looked_up.get()
    if known is None:
        return look()
    if key not in known:
        known[key] = look()
    found: T = known[key]
    return found


def file_state(path: str) -> tuple[int, float] | None:
    """Return the size of a file in bytes, and when it changed last in seconds since the epoch; None if it is missing."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path, or half of a surrogate pair
        return None
    changed = max(state.st_mtime, state.st_ctime)  # a modification time may be set back, a change time not
    return (state.st_size, changed) if stat.S_ISREG(state.st_mode) else None


def expand(path: str) -> Path:
    """Expand a path of a job file: `~` is the home folder. A relative path starts at the current folder."""
    return Path(path).expanduser()
