"""Verify the stages of a store: read every file, compare it with the record, and remove what is damaged if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.documents import serialised
from wsss_ray.storage.finished import READERS, FileDigest, Finished, StageId, StageState, files_of, is_ours, needed
from wsss_ray.storage.inside import links_below
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.wholeness import examine, misplaced, remove_damaged, reopen, strangers

_MISPLACED = "is no file, or one in the place of a folder. Remove it, then submit the job again."
Kind = Literal["damaged", "stale", "old", "stranger"]
"""Kinds of findings. `old`: a record without digests; `stranger`: a file that is not ours, which is left alone."""


@dataclass(frozen=True)
class Finding:
    """Something that `verify` has found.

    Attributes:
        kind: its kind.
        stage: the id of its stage; empty if it belongs to none.
        path: the file or folder.
        what: what is wrong with it, in a few words.
    """

    kind: Kind
    stage: str
    path: str
    what: str

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class Examined:
    """A stage after `verify` has read it.

    Attributes:
        id: the id of the stage.
        state: its state before that, by names and sizes.
        files: number of files that were read.
        bytes: their size.
        findings: what was found.
    """

    id: str
    state: StageState
    files: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def is_damaged(self) -> bool:
        """Return True if something has to be made again."""
        return any(one.kind in ("damaged", "stale") for one in self.findings)


class Verification:
    """The files of several stages, to be read and compared.

    Args:
        store: The store of the stages.
        stages: Their ids.

    Example:
        >>> work = Verification(store, [stage.id for stage in plan])
        >>> [one.line for found in work.run() for one in found.findings]
        []

    Attributes:
        files: Number of files to read.
        left: One line for each stage that `repair` had to leave damaged.
    """

    def __init__(self, store: RunStore, stages: Iterable[str]) -> None:
        self.store, self.ids = store, tuple(dict.fromkeys(stages))
        self.finished = Finished(store)
        self.finished.look_at(map(StageId, self.ids))
        self.left: list[str] = []
        self._there = {stage_id: self._sizes(stage_id) for stage_id in self.ids}
        self._work = {stage_id: self._files(stage_id) for stage_id in self.ids}

    @property
    def files(self) -> int:
        """Count the files to read."""
        return sum(map(len, self._work.values()))

    def run(self, each: Callable[[], None] = lambda: None) -> list[Examined]:
        """Read all files, several at a time.

        Args:
            each: Called after each file.
        """
        jobs = [(stage_id, name, known) for stage_id, work in self._work.items() for name, known in work]

        def look(job: tuple[str, str, FileDigest | None]) -> tuple[str, str] | None:
            stage_id, name, known = job
            try:
                wrong = examine(self.store, StageId(stage_id), name, known)[1]
            except DamagedFile as error:
                return _split(str(error))
            return (self.store.path("stages", stage_id, name), wrong) if wrong is not None else None

        wrong: dict[str, list[tuple[str, str]]] = {stage_id: [] for stage_id in self.ids}
        with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
            for (stage_id, _, _), found in zip(jobs, pool.map(look, jobs), strict=True):
                each()
                wrong[stage_id] += [found] if found is not None else []
        return [self._examined(stage_id, wrong[stage_id]) for stage_id in self.ids]

    def repair(self, examined: Examined, claims: Claims) -> list[str]:
        """Remove what is damaged of a stage, and its record, so that the next submit makes it again.

        Args:
            examined: The stage, as `run` has found it.
            claims: The claims of this process. A stage that another process is making is left alone.

        Returns:
            One line for each file that was damaged.
        """
        if not examined.is_damaged:
            return []
        stage, store = StageId(examined.id), self.store
        holder = claims.take(stage.id)
        if holder is not None:
            return [f"{store.stage_path(stage)}: is left alone, because {holder['attempt']} is making it."]
        try:
            own = self.finished.state(stage.id)
            if own.record is None and own.damage is None:
                return remove_damaged(store, stage, {})[1]
            return reopen(store, stage, replace(own, damage=own.damage or "its files differ"))
        except DamagedFile as error:
            self.left.append(str(error))
            return []
        finally:
            claims.free(stage.id)

    def _sizes(self, stage_id: str) -> dict[str, int]:
        try:
            return self.store.sizes(self.store.path("stages", stage_id))
        except DamagedFile:  # a link; the stage's state says so
            return {}

    def _misplaced(self, stage_id: str) -> list[str]:
        with suppress(DamagedFile):  # a link; the stage's state says so
            return misplaced(self.store, StageId(stage_id))
        return []

    def _files(self, stage_id: str) -> list[tuple[str, FileDigest | None]]:
        """List the files to read, with their digests as far as they are known."""
        record, there = self.finished.state(stage_id).record, self._there[stage_id]
        if record is not None and "files" in record:
            return [(one.name, one) for one in needed(record, there)]
        return [(name, None) for name in sorted(there) if is_ours(name, record)]

    def _examined(self, stage_id: str, wrong: list[tuple[str, str]]) -> Examined:
        state, folder = self.finished.state(stage_id), self.store.path("stages", stage_id)
        there, read = self._there[stage_id], [name for name, _ in self._work[stage_id]]
        odd = self._misplaced(stage_id)
        alien = strangers(odd)
        said = {f"{folder}/{name}": _MISPLACED for name in odd if name not in alien} | dict(wrong)
        found = [Finding("damaged", stage_id, path, what) for path, what in said.items()]
        if state.damage is not None and (state.record is None or not found) and _split(state.damage)[0] not in said:
            found.append(Finding("damaged", stage_id, *_split(state.damage)))
        if state.stale is not None:
            found.append(Finding("stale", stage_id, *_split(state.stale)))
        if state.record is not None:
            found += self._of_record(stage_id, state)
        known = {one.name for one in files_of(state.record or {})}
        others = [*alien, *strangers(there)] + [name for name in there if known and is_ours(name) and name not in known]
        others += links_below(folder) if self.store.is_local and there else []
        alone = "is not ours, and left alone"
        found += [Finding("stranger", stage_id, f"{folder}/{name}", alone) for name in sorted(set(others))]
        return Examined(stage_id, state, len(read), sum(there.get(name, 0) for name in read), tuple(found))

    def _of_record(self, stage_id: str, state: StageState) -> list[Finding]:
        path = self.store.path("stages", stage_id, "record.json")
        assert state.record is not None
        if "files" not in state.record:
            what = "has no digests, as an older version made it; its files were only read"
            return [Finding("old", stage_id, path, what)]
        if self.store.read(path) != serialised(state.record):
            return [Finding("damaged", stage_id, path, "has other bytes than were written")]
        return []


def _split(line: str) -> tuple[str, str]:
    path, _, what = line.partition(": ")
    return path, what
