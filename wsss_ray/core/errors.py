"""Describe exceptions, also those of libraries that are not imported here."""

from __future__ import annotations

import errno

_OF_A_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES)
_OUT_OF_MEMORY = ("OutOfMemoryError", "ArrowMemoryError")  # of torch and of Arrow

REPAIR = "Run `wsss-ray verify RUN --repair` with the name of the run, then submit again."
"""What a user does about a damaged file of a finished stage."""


class DamagedFile(OSError):
    """Raised if a file of the store is damaged or lost, or is no file of ours, so that no image is to blame.

    Example:
        >>> is_machine_failure(DamagedFile("runs/stages/seed-0/shards/part-00000.parquet: is damaged. Delete it."))
        True
    """


def in_one_line(error: BaseException) -> str:
    r"""Return the type and the message of an exception in one line.

    Example:
        >>> in_one_line(ValueError("no such\nfile"))
        'ValueError: no such file'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def shown(text: str, most: int = 100) -> str:
    r"""Return a text for a message: in one line, printable, and cut if it is longer than `most` characters.

    Example:
        >>> shown("a\nb"), shown("a" * 1000, 5)
        ('a\\nb', 'aaaaa...')
    """
    cut = text if len(text) <= most else f"{text[:most]}..."
    return cut if cut.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)


def is_out_of_memory(error: object) -> bool:
    """Return True if an exception is one that Python, torch or Arrow raises when memory runs out."""
    return isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY


def is_machine_failure(error: BaseException) -> bool:
    """Return True if memory, a disk, a device, the network or a finished stage failed, so that no image is to blame.

    Example:
        >>> is_machine_failure(MemoryError()), is_machine_failure(FileNotFoundError(2, "no such file"))
        (True, False)
    """
    if isinstance(error, OSError) and not isinstance(error, DamagedFile):
        return error.errno is not None and error.errno not in _OF_A_FILE
    return is_out_of_memory(error) or isinstance(error, DamagedFile) or type(error).__name__ == "AcceleratorError"
