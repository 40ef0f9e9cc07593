"""Tell which stages of a store are done: a record that speaks for itself, and everything that it lists.

The record of a stage is written last. It lists the stage's files, with the size and the SHA-256 of each, and has

- `made_from`: for every input, the digest of what was read. It covers the names and digests of the input's shards or weights, so
  an input that is lost and made again with the same bytes is the same input, and one with other bytes is not;
- `digest`: the digest of the record's other fields.

A stage is done if its record is whole, if every listed file is there with its size, and if no input was damaged or changed. An
input whose folder was deleted as a whole is neither: the stage keeps what it made from it. Names and sizes are cheap to compare:
each folder is listed once. They do not show every damage. Readers that read a file as a whole compare its SHA-256 with the
record, Parquet pages have checksums, and `wsss-ray verify` reads everything.

All checkpoints of a finished training may be deleted together, to free space. Records of older versions list no files: of those,
the number of shards or the weights are looked for, and nothing is compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from wsss_ray.core.errors import REPAIR, DamagedFile, shown
from wsss_ray.storage.documents import RECORD, digested

if TYPE_CHECKING:
    from wsss_ray.storage.store import Identified, RunStore

WEIGHTS = "model.safetensors"
LOG = "metrics.jsonl"
OURS = re.compile(rf"(shards|errors|notes)/part-\d{{5,}}\.parquet|checkpoints/step-\d{{8,}}\.pt|{WEIGHTS}|{LOG}")
"""The files that a stage is made of, by their path in its folder. Files with other names are strangers, and left alone."""

BEGUN_NOTE = "begun.json"
_MOST_NAMED = 3
READERS = 8  # files read at a time: each takes a while to come from an object store


@dataclass(frozen=True, order=True)
class FileDigest:
    """A file of a stage: its path in the stage's folder, its size in bytes, and its SHA-256 as 64 hexadecimal digits."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> FileDigest:
        """Return the digest of a file whose content is in memory."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class StageId:
    """A stage of which only the id is known, such as one that a record names."""

    id: str


@dataclass(frozen=True)
class StageState:
    """What the store says about a stage.

    Attributes:
        record: Its record; None if it has none, or a damaged one.
        damage: What is wrong with its record or its files, in one line; None if nothing is.
        stale: Which input is another one than it was made from, in one line; None if none is.
        waits: Which input is not done, although it has a record, in one line. Once that is made again, the stage may be done.
    """

    record: dict[str, Any] | None = None
    damage: str | None = None
    stale: str | None = None
    waits: str | None = None

    @property
    def problem(self) -> str | None:
        """Return why the stage is not done although it has a record; None if it is done, or has none."""
        return self.damage or self.stale or self.waits

    @property
    def is_done(self) -> bool:
        """Return True if the stage is done."""
        return self.record is not None and self.problem is None

    @property
    def word(self) -> str:
        """Return the state in one word: done, damaged or missing."""
        return "done" if self.is_done else "damaged" if self.problem is not None else "missing"


class Finished:
    """The states of stages at one moment. Each stage is looked at once, whatever asks for it.

    Args:
        store: The store of the stages.

    Example:
        >>> finished = Finished(store)
        >>> [stage.name for stage in plan if not finished.is_done(stage)]
        ['seeds', 'miou']
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._own: dict[str, StageState] = {}
        self._states: dict[str, StageState] = {}
        self._contents: dict[str, str | None] = {}

    def is_done(self, stage: Identified) -> bool:
        """Return True if a stage is done."""
        return self.state(stage.id).is_done

    def record(self, stage: Identified) -> dict[str, Any] | None:
        """Return the record of a stage that is done; None if it is not."""
        state = self.state(stage.id)
        return state.record if state.is_done else None

    def own(self, stage_id: str) -> StageState:
        """Return the state of a stage by its own record and files, whatever has become of its inputs."""
        if stage_id not in self._own:
            self._own[stage_id] = _own_state(self.store, stage_id)
        return self._own[stage_id]

    def state(self, stage_id: str) -> StageState:
        """Return the state of the stage with an id."""
        left, begun = [stage_id], set[str]()
        while left:  # inputs first; a loop, as records come from files and may name many, in a circle too
            one = left[-1]
            inputs = inputs_of(self.own(one).record or {})
            missing = [source for source in inputs if source not in self._states and source not in begun]
            if one in self._states or one in begun or not missing:
                left.pop()
                if one not in self._states:
                    self._states[one] = self._with_inputs(one, self.own(one), inputs)
            else:
                begun.add(one)
                left += missing
        return self._states[stage_id]

    def look_at(self, stages: Iterable[Identified]) -> None:
        """Look at several stages at a time. On an object store, each look takes a while."""
        left = [stage.id for stage in stages if stage.id not in self._own]
        if self.store.is_local or len(left) < 2:
            return
        with ThreadPoolExecutor(READERS, thread_name_prefix="records") as pool:
            self._own |= dict(zip(left, pool.map(lambda one: _own_state(self.store, one), left), strict=True))

    def _content(self, stage_id: str, state: StageState) -> str | None:
        if stage_id not in self._contents:
            self._contents[stage_id] = content_of(state.record or {})
        return self._contents[stage_id]

    def _with_inputs(self, stage_id: str, own: StageState, inputs: Sequence[str]) -> StageState:
        if own.record is None:
            return own
        made_from, folder = own.record.get("made_from", {}), self.store.path("stages", stage_id)
        for source in inputs:
            state = self._states.get(source, StageState(damage="reads itself"))
            if state.record is None and state.damage is None:
                continue  # deleted as a whole
            if not state.is_done:
                return replace(own, waits=f"{folder}: reads {source}, which is not done.")
            content = self._content(source, state)
            if content is not None and made_from.get(source, content) != content:
                own = replace(own, stale=f"{folder}: was made from another {source} than the one that is there.")
        return own


def complete(store: RunStore, stage: Identified, record: Mapping[str, Any], known: Mapping[str, FileDigest]) -> dict[str, Any]:
    """Add to a record the list of the stage's files, the digests of its inputs, and its own digest.

    Args:
        store: The store of the stage.
        stage: The stage, whose files are all written.
        record: The record without these fields.
        known: Digests of files, by their path in the stage's folder. Files of another size, and those not named, are read.
    """
    there = {name: size for name, size in store.sizes(store.stage_path(stage)).items() if is_ours(name, record)}
    unknown = [name for name, size in there.items() if name not in known or known[name].size != size]
    read = digests(store, stage, unknown)
    files = sorted(read.get(name) or known[name] for name in there)
    made_from = {}
    for source in inputs_of(record):
        state = _own_state(store, source)
        if state.record is not None and (content := content_of(state.record)) is not None:
            made_from[source] = content
    return digested(dict(record) | {"files": [asdict(one) for one in files], "made_from": made_from})


def is_ours(name: str, record: Mapping[str, Any] | None = None) -> bool:
    """Return True if a stage may have a file of this name: with a record, there are no shards beyond the number in it."""
    part = name.partition("/part-")[2]
    return bool(OURS.fullmatch(name)) and (not part or record is None or int(part.partition(".")[0]) < record["counts"]["shards"])


def digests(store: RunStore, stage: Identified, names: Iterable[str]) -> dict[str, FileDigest]:
    """Read files of a stage, several at a time, and return their digests by their path in the stage's folder."""

    def read(name: str) -> tuple[str, FileDigest]:
        return name, FileDigest.of(name, store.read(store.stage_path(stage, *name.split("/"))))

    with ThreadPoolExecutor(READERS, thread_name_prefix="digests") as pool:
        return dict(pool.map(read, names))


def compare(known: FileDigest | None, data: bytes, path: str) -> None:
    """Raise DamagedFile if a file holds other bytes than its record says. Without a digest, nothing is compared."""
    if known is not None and FileDigest.of(known.name, data) != known:
        raise DamagedFile(f"{path}: is damaged (other bytes than were written). {REPAIR}")


def inputs_of(record: Mapping[str, Any]) -> list[str]:
    """Return the ids of a record's inputs, each once."""
    return list(dict.fromkeys(stage_id for _, stage_id in record.get("inputs", ())))


def files_of(record: Mapping[str, Any]) -> list[FileDigest]:
    """Return the files that a record lists; none for a record of an older version."""
    return [FileDigest(one["name"], one["size"], one["sha256"]) for one in record.get("files", ())]


def needed(record: Mapping[str, Any], there: Iterable[str]) -> list[FileDigest]:
    """Return the files that a record lists and that must be there.

    The checkpoints of a finished training may be deleted, all together, to free space: only a training that goes on from there
    reads them.
    """
    freed = not any(name.startswith("checkpoints/") for name in there)
    return [one for one in files_of(record) if not (freed and one.name.startswith("checkpoints/"))]


def content_of(record: Mapping[str, Any]) -> str | None:
    """Return the digest of what others read of a stage: its shards, or its weights. None for a record of an older version.

    Logs and checkpoints are left out, as they may differ between two attempts that make the same shards or weights. So are the
    lists of failed images, which have paths.
    """
    if "files" not in record:
        return None
    files = ((one["name"], one["sha256"]) for one in record["files"])
    read = sorted((name, sha256) for name, sha256 in files if name == WEIGHTS or name.startswith("shards/"))
    return hashlib.sha256("".join(f"{name} {sha256}\n" for name, sha256 in read).encode()).hexdigest()


def _own_state(store: RunStore, stage_id: str) -> StageState:
    path = store.path("stages", stage_id, "record.json")
    try:
        record = store.read_json(path, RECORD)
        if record.get("id", stage_id) != stage_id or record["kind"] != stage_id.rpartition("-")[0]:
            owner = shown(f"{record.get('id', 'a stage')} of kind {record['kind']}")
            return StageState(damage=f"{path}: is the record of {owner}. {RECORD.mend}")
        return StageState(record, missing_files(store, stage_id, record))
    except FileNotFoundError:  # it has none
        return StageState()
    except DamagedFile as error:
        return StageState(damage=str(error))


def missing_files(store: RunStore, stage_id: str, record: Mapping[str, Any], *, below: str = "") -> str | None:
    """Return which files of a record are not there with their size, in one line; None if all are.

    Args:
        store: The store of the stage.
        stage_id: The id of the stage.
        record: Its record.
        below: Look only for files whose paths begin like this, such as `shards/`.
    """
    folder = store.path("stages", stage_id)
    there = store.sizes(folder)
    if "files" in record:
        listed = needed(record, there)
        found = [(one.name, there.get(one.name), one.size) for one in listed if one.name.startswith(below)]
        differ = [(name, size, wanted) for name, size, wanted in found if size != wanted]
        wrong = [f"{name} {'is missing' if size is None else f'has {size} bytes, not {wanted}'}" for name, size, wanted in differ]
    elif record["kind"] == "train":
        wrong = [] if WEIGHTS in there else [f"{WEIGHTS} is missing"]
    else:
        shards = sum(name.startswith("shards/") and OURS.fullmatch(name) is not None for name in there)
        wanted = record["counts"]["shards"]
        wrong = [f"{wanted - shards} of {wanted} shards are missing"] if shards < wanted else []
    if not wrong:
        return None
    try:
        for one in wrong[:_MOST_NAMED]:
            store.guarded(f"{folder}/{one.partition(' ')[0]}", file=True)
    except DamagedFile as error:  # something else than a file is there
        return str(error)
    more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    return f"{folder}: {', '.join(wrong[:_MOST_NAMED])}{more}. {RECORD.mend}"
