"""Keep what is known of an unfinished stage: the digests of its files, and of what they were made from.

    STORE/stages/<stage id>/begun.json      rewritten every few seconds while the stage is made, deleted with its record's commit

With it, a stage that goes on does not read what it has: names and sizes are compared, and only files that the note does not know
are read. If an input was made again meanwhile, with other bytes, what was made from it is made again too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict

from wsss_ray.core.counted import counted
from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.documents import BEGUN
from wsss_ray.storage.finished import BEGUN_NOTE, OURS, FileDigest, Finished, content_of
from wsss_ray.storage.store import Identified, RunStore
from wsss_ray.storage.wholeness import remove_all, remove_damaged

_EVERY_S = 5.0


class Begun:
    """An unfinished stage that is about to go on. Looking at it deletes what is damaged, or made from other inputs.

    Args:
        store: The store of the stage.
        stage: The stage, on which this process has the claim. It has no record.
        inputs: The ids of its inputs.
        anew: Delete all that it has, because an input that has no record either is made anew.

    Attributes:
        known: Digests of its files, by their path in its folder.
        lines: One line for everything that was deleted or cut.
        anew: True if all that it had was deleted.

    Example:
        >>> begun = Begun(store, stage, [source.id for _, source in stage.inputs])
        >>> begun.add([digest])
        >>> store.commit(stage, record, begun.known)
    """

    def __init__(self, store: RunStore, stage: Identified, inputs: Iterable[str], *, anew: bool = False) -> None:
        self.store, self.stage = store, stage
        self.known: dict[str, FileDigest] = {}
        finished = Finished(store)
        contents = {source: content_of(finished.own(source).record or {}) for source in inputs}
        self._made_from = {source: content for source, content in contents.items() if content is not None}
        before, files = self._read()
        changed = [source for source, content in self._made_from.items() if before.get(source, content) != content]
        self.anew = anew or bool(changed)
        self.lines: list[str] = []
        if self.anew:
            had = remove_all(store, stage)
            why = f"made from another {changed[0]} than the one that is there" if changed else "made from damaged files"
            self.lines = (
                [f"{store.stage_path(stage)}: {counted(had, 'file', 'were')} {why}, and the work begins again."] if had else []
            )
        else:
            self.known, self.lines = remove_damaged(store, stage, {}, trusted={one.name: one for one in files})
        self.write()

    def add(self, files: Sequence[FileDigest]) -> None:
        """Note the digests of files that were just written. The note is written every few seconds."""
        self.known |= {one.name: one for one in files}
        if time.monotonic() > self._next:
            with suppress(OSError):  # a store that fails for a moment costs at most some reading later
                self.write()

    def write(self) -> None:
        """Write the note."""
        files = [asdict(self.known[name]) for name in sorted(self.known) if OURS.fullmatch(name)]
        self.store.write_json(self._path, {"made_from": self._made_from, "files": files})
        self._next = time.monotonic() + _EVERY_S

    def _read(self) -> tuple[dict[str, str], list[FileDigest]]:
        with suppress(FileNotFoundError, DamagedFile):  # without it, everything is read
            note = self.store.read_json(self._path, BEGUN)
            return note["made_from"], [FileDigest(one["name"], one["size"], one["sha256"]) for one in note["files"]]
        return {}, []

    @property
    def _path(self) -> str:
        return self.store.stage_path(self.stage, BEGUN_NOTE)
