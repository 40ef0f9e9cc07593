"""Cache what was read from many small files in the user's cache folder, for the next command.

A cached file is valid while its size, its inode, its modification time and its change time (ctime) are the same to the
nanosecond. Only the system sets the change time, so no tool can restore an older one. A file that changed less than two seconds
ago is not cached, because it may change twice within one tick of its file system's clock. The cache folder may be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from wsss_ray.data.flat import Places, Texts
from wsss_ray.storage.atomic import replacing

_LEAST = 1000  # newly read files; for fewer, writing the cache does not pay
_YOUNG_NS = 2_000_000_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_HEAD = "wsss-ray 1"


class Remembered:
    """A cache of the words read from the files of one folder, by file name. `what` identifies the folder and how it is read."""

    def __init__(self, *what: object) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        name = hashlib.sha256(repr(what).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._path = Path(cache, "wsss-ray", f"{name}.txt")
        self._lines, self._places = Texts(), Places()  # name, stamp and words, separated by tabs; the last line of a name counts
        self._new = 0
        with suppress(OSError, ValueError):
            self._read()

    def _read(self) -> None:
        lines, places = Texts(), Places()
        with self._path.open(encoding="utf-8", newline="\n") as file:
            if next(file, "").rstrip("\n") != _HEAD:
                return
            for line in file:
                _append(lines, places, line.rstrip("\n"))
        self._lines, self._places = lines, places

    def _find(self, name: str) -> tuple[int, str]:
        """Return the place of what is known of a name, and the text after the name; -1 and "" if nothing is."""
        for place in reversed(self._places.find(name)):
            known, _, rest = self._lines[place].partition("\t")
            if known == name:
                return place, rest
        return -1, ""

    def words(self, name: str, path: str, read: Callable[[bytes], Sequence[str]]) -> Sequence[str]:
        """Return the words that `read` finds in a file, from the cache if the file is unchanged. Errors of `read` are raised."""
        stamp = _stamp(os.stat(path))
        kept, _, rest = self._find(name)[1].partition("\t")
        if kept == stamp:
            return rest.split("\t") if rest else ()
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            found = read(file.read())
            after = os.fstat(file.fileno())
        young = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) < _YOUNG_NS
        if not young and _stamp(before) == _stamp(after) and all(word and not _CONTROL.search(word) for word in (name, *found)):
            _append(self._lines, self._places, "\t".join((name, _stamp(after), *found)))
            self._new += 1
        return found

    def keep(self) -> None:
        """Write the cache if enough files are new. If it cannot be written, nothing happens: the files are read again."""
        if self._new < _LEAST:
            return
        with suppress(OSError, ValueError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(_HEAD.encode())
                for place, line in enumerate(self._lines):
                    if self._find(line.partition("\t")[0])[0] == place:
                        file.write(f"\n{line}".encode())
            self._new = 0


def _append(lines: Texts, places: Places, line: str) -> None:
    lines.append(line)
    places.add(line.partition("\t")[0])


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
