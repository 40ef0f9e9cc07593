"""Following a file of the store that grows, such as a training's metrics.jsonl."""

from __future__ import annotations

import pyarrow.fs as pafs

from wsss_ray.storage.store import RunStore


class LineTail:
    """The lines that come to a file in the store which is written whole each time; only what is new is read."""

    def __init__(self, store: RunStore, path: str) -> None:
        self.store, self.path = store, path
        self._seen: tuple[int, object] | None = None
        self._end, self._last = 0, b""  # how far it was read, and the last line there

    def lines(self) -> list[bytes]:
        """The lines since the last call: all of them where the file is not what it was and more. Raises OSError."""
        info = self.store.fs.get_file_info(self.path)
        if info.type != pafs.FileType.File or (info.size, info.mtime_ns) == self._seen:
            return []
        from_here = self._end - len(self._last)
        with self.store.fs.open_input_file(self.path) as file:
            file.seek(min(from_here, file.size()))
            fresh = file.read()
            if fresh.startswith(self._last):
                fresh = fresh[len(self._last) :]
            else:
                file.seek(0)
                self._end, fresh = 0, file.read()
        found: list[bytes] = fresh.splitlines(keepends=True)
        self._seen, self._end = (info.size, info.mtime_ns), self._end + len(fresh)
        self._last = found[-1] if found else self._last
        return found
