"""Describe exceptions, also those of libraries that are not imported here."""

from __future__ import annotations

_OUT_OF_MEMORY = ("OutOfMemoryError", "ArrowMemoryError")  # of torch and of Arrow


def in_one_line(error: BaseException) -> str:
    r"""Return the type and the message of an exception in one line.

    Example:
        >>> in_one_line(ValueError("no such\nfile"))
        'ValueError: no such file'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def is_out_of_memory(error: object) -> bool:
    """Return True if an exception is one that Python, torch or Arrow raises when memory runs out."""
    return isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY
