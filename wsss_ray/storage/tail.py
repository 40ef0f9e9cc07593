"""Follow a growing file of the store, such as a training's metrics.jsonl."""

from __future__ import annotations

from wsss_ray.storage.store import FileInfo, RunStore


class LineTail:
    r"""Read the new lines of a growing file of the store.

    The writer replaces the whole file each time it adds lines; `lines` reads only the part after the lines it has returned.

    Example:
        >>> tail = LineTail(store, store.stage_path(stage, "metrics.jsonl"))
        >>> tail.lines()
        [b'{"step": 100}\n']
        >>> tail.lines()
        []
    """

    def __init__(self, store: RunStore, path: str) -> None:
        self.store, self.path = store, path
        self._seen: FileInfo | None = None  # at the last read
        self._end, self._last = 0, b""  # number of bytes read, and the last line of them

    def lines(self) -> list[bytes]:
        """Return the lines added since the last call, or all lines if the file does not continue the one read. Raises OSError."""
        info = self.store.info(self.path)
        if info is None or info == self._seen:
            return []
        start = self._end - len(self._last)  # the last line is read again, to see that it is still there
        with self.store.open(self.path) as file:
            file.seek(min(start, file.size()))
            fresh = file.read()
            if fresh.startswith(self._last):
                fresh = fresh[len(self._last) :]
            else:
                file.seek(0)
                self._end, fresh = 0, file.read()
        found: list[bytes] = fresh.splitlines(keepends=True)
        self._seen, self._end = info, self._end + len(fresh)
        self._last = found[-1] if found else self._last
        return found
