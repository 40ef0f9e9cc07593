"""Write files atomically: a file appears only when it is complete."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files. Readers skip them. `sweep` of a store removes those of killed writers."""


class replacing:
    r"""Open a file that replaces `path` when the block ends. If the block fails, `path` does not change.

    A symbolic link at `path` is replaced, not followed.

    Args:
        path: The file to write. Its folder must exist.
        durable: Wait for the disk before the file appears, so that a power cut cannot leave an empty file.

    Raises:
        OSError: if the file cannot be written.

    Example:
        >>> with replacing(Path("labels/list.txt")) as file:
        ...     _ = file.write(b"2007_000032\n")
    """

    def __init__(self, path: str | Path, *, durable: bool = False) -> None:
        self._path, self._durable = Path(path), durable
        self._temporary = self._path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")

    def __enter__(self) -> IO[bytes]:
        self._file = self._temporary.open("xb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._file:
                if kind is None and self._durable:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                os.replace(self._temporary, self._path)
        finally:
            with suppress(FileNotFoundError):  # it has been renamed
                self._temporary.unlink()
