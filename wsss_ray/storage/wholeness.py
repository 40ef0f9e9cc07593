"""Examine files of stages byte by byte, and remove those that are damaged, so that they are made again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.finished import BEGUN_NOTE, LOG, OURS, READERS, WEIGHTS, FileDigest, StageState, files_of
from wsss_ray.storage.inside import misplaced_below, remove_misplaced
from wsss_ray.storage.parquet import damage_named
from wsss_ray.storage.sealed import problem_of
from wsss_ray.storage.store import Identified, RunStore

_CHUNK = 1 << 20
_NOTES = re.compile(r"(record|failure|unchanged|begun)\.json|listing/part-\d{5,}\.parquet|(.*/)?\.tmp-[^/]*")
_FOLDERS = ("shards", "errors", "notes", "listing", "checkpoints")


def examine(
    store: RunStore, stage: Identified, name: str, known: FileDigest | None = None
) -> tuple[FileDigest | None, str | None]:
    """Read a file of a stage as a whole.

    Args:
        store: The store of the stage.
        stage: The stage.
        name: The path of the file in the stage's folder.
        known: Its digest in the record. Without one, the file must be readable as what it is.

    Returns:
        The digest of the file, None if it is missing; and what is wrong with it, None if nothing is.
    """
    path = store.stage_path(stage, *name.split("/"))
    try:
        if known is None:
            data = store.read(path)
            return FileDigest.of(name, data), _unreadable(name, data, path)
        found = _streamed(store, name, path)
    except FileNotFoundError:
        return None, "is missing"
    if found.size != known.size:
        return found, f"has {found.size} bytes, not {known.size}"
    return found, None if found == known else "has other bytes than were written"


def _streamed(store: RunStore, name: str, path: str) -> FileDigest:
    """Return the digest of a file, which is not held in memory: checkpoints are large, and several are read at a time."""
    digest, size = hashlib.sha256(), 0
    with store.open(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(name, size, digest.hexdigest())


def remove_damaged(
    store: RunStore,
    stage: Identified,
    known: Mapping[str, FileDigest],
    *,
    trusted: Mapping[str, FileDigest] | None = None,
) -> tuple[dict[str, FileDigest], list[str]]:
    """Examine the files that an unfinished stage has, and delete those that are damaged. A log is cut at its first bad line.

    Args:
        store: The store of the stage.
        stage: The stage, on which this process has the claim. It has no record.
        known: Digests of the files, by their path in the stage's folder, as far as they are known. They are compared.
        trusted: Digests of shards that are not read if their size is right.

    Returns:
        The digests of the files that stay, by their path; and one line for each file that was damaged.
    """
    folder, lines = store.stage_path(stage), _remove_misplaced(store, stage)
    refuse_misplaced(store, stage)
    there = store.sizes(folder)
    names = [name for name in sorted(there) if OURS.fullmatch(name)]

    def look(name: str) -> tuple[FileDigest | None, str | None]:
        digest = (trusted or {}).get(name)
        if digest is not None and name.endswith(".parquet"):  # checkpoints and logs may be written anew meanwhile
            right = digest.size == there[name]
            return digest, None if right else f"has {there[name]} bytes, not {digest.size}"
        return examine(store, stage, name, known.get(name))

    kept: dict[str, FileDigest] = {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="examine") as pool:
        for name, (digest, wrong) in zip(names, pool.map(look, names), strict=True):
            if wrong is None and digest is not None:
                kept[name] = digest
            elif name == LOG and digest is not None:
                lines += cut_log(store, stage)
            elif digest is not None:
                _delete(store, f"{folder}/{name}")
                lines.append(f"{folder}/{name}: {wrong}. It is made again.")
    for shard in [shard for name in names if (shard := _with_errors(name)) in kept and name not in kept]:
        _delete(store, f"{folder}/{shard}")
        del kept[shard]
    return kept, lines


def strangers(names: Iterable[str]) -> list[str]:
    """Return which of the files in a stage's folder are not made by us, sorted."""
    return sorted(name for name in names if not has_use(name))


def has_use(name: str) -> bool:
    """Return True if a stage makes a file or folder at this path in its folder, of whatever use."""
    return bool(OURS.fullmatch(name) or _NOTES.fullmatch(name)) or name in _FOLDERS


def misplaced(store: RunStore, stage: Identified) -> list[str]:
    """Return the paths in a stage's folder where neither file nor folder is, or one in the place of the other.

    An object store has none.
    """
    if not store.is_local:
        return []
    folder = store.guarded(store.stage_path(stage))
    found = misplaced_below(folder, lambda name: has_use(name) and name not in _FOLDERS)
    return found + [name for name in _FOLDERS if store.exists(f"{folder}/{name}")]


def refuse_misplaced(store: RunStore, stage: Identified, names: Iterable[str] = ()) -> None:
    """Raise DamagedFile if something that is not a file has the place of the record, or of one of several files of a stage."""
    for name in ("record.json", *names, *filter(has_use, misplaced(store, stage))):
        store.guarded(store.stage_path(stage, *name.split("/"), *(["part"] if name in _FOLDERS else [])), file=True)


def _remove_misplaced(store: RunStore, stage: Identified) -> list[str]:
    """Remove pipes, sockets and empty folders in the place of a stage's files. Return one line for each. All else stays."""
    lines = []
    for name in filter(has_use, misplaced(store, stage)):
        path = store.stage_path(stage, *name.split("/"))
        if remove_misplaced(path):
            lines.append(f"{path}: is no file. It is removed.")
    return lines


def _with_errors(name: str) -> str:
    """Return the shard that a list of failed images belongs to; a shard without its list must be made again too."""
    return name.replace("errors/", "shards/") if name.startswith("errors/") else ""


def reopen(store: RunStore, stage: Identified, state: StageState) -> list[str]:
    """Make a stage that is not done, although it has a record, one that can be made: remove its record and what is damaged.

    If the stage was made from other inputs than there are now, all of its files go. The record goes first.

    Args:
        store: The store of the stage.
        stage: The stage, on which this process has the claim.
        state: Its state.

    Returns:
        One line for each file that was damaged.

    Raises:
        DamagedFile: if a folder, a device or the like has the place of a file. Nothing is deleted then but pipes, sockets and
            empty folders.
    """
    if state.damage is None and state.stale is None:
        return []
    record = store.stage_path(stage, "record.json")
    known = {one.name: one for one in files_of(state.record)} if state.record is not None else {}
    odd = _remove_misplaced(store, stage)
    refuse_misplaced(store, stage, known)
    _delete(store, record)
    if state.stale is not None:
        remove_all(store, stage)
        return [*odd, state.stale.rstrip(".") + ". It is made again."]
    missing = sorted(set(known) - set(store.sizes(store.stage_path(stage))))
    lines = [f"{record}: is damaged. It is made again."] if state.record is None else []
    lines += [f"{store.stage_path(stage)}/{name}: is missing. It is made again." for name in missing]
    kept, damaged = remove_damaged(store, stage, known)
    made_from = state.record.get("made_from", {}) if state.record is not None else {}
    note = {"made_from": made_from, "files": [asdict(one) for one in kept.values()]}
    store.write_json(store.stage_path(stage, BEGUN_NOTE), note)  # so that what was read now is not read again
    return odd + lines + damaged


def remove_all(store: RunStore, stage: Identified) -> int:
    """Delete all files that a stage is made of, and return their number. Strangers stay."""
    names = [name for name in store.sizes(store.stage_path(stage)) if OURS.fullmatch(name)]
    for name in names:
        _delete(store, store.stage_path(stage, *name.split("/")))
    return len(names)


def cut_log(store: RunStore, stage: Identified) -> list[str]:
    """Cut the log of a training at its first bad line. Return a line about it, or none if the log is whole."""
    path = store.stage_path(stage, LOG)
    try:
        data = store.read(path)
    except FileNotFoundError:
        return []
    whole = whole_lines(data)
    if whole == data:
        return []
    store.write(path, whole)
    return [f"{path}: {_bad_line(whole)}. The log is cut there."]


def whole_lines(log: bytes) -> bytes:
    r"""Return the lines of a training's log before the first bad one: each is a JSON object with a step, and ends in a newline.

    Example:
        >>> whole_lines(b'{"step": 1}\n{"st')
        b'{"step": 1}\n'
    """
    end = 0
    for line in log.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(row, dict) and type(row.get("step")) is int and line.endswith(b"\n")):
            break
        end += len(line)
    return log[:end]


def _bad_line(whole: bytes) -> str:
    number = whole.count(b"\n") + 1
    return f"line {number} is damaged"


def _delete(store: RunStore, path: str) -> None:
    with suppress(FileNotFoundError):  # another process was faster
        store.delete(path)


def _unreadable(name: str, data: bytes, path: str) -> str | None:
    """Return why a file of a stage cannot be read as what its name says; None if it can."""
    if name.startswith("checkpoints/"):
        return problem_of(data)
    if name == LOG:
        whole = whole_lines(data)
        return None if whole == data else _bad_line(whole)
    try:
        if name == WEIGHTS:
            _read_tensors(data)
        else:
            _read_table(data, path)
    except (DamagedFile, MemoryError, ValueError) as error:  # a length that was changed asks for any amount of memory
        return f"is damaged ({str(error).removeprefix(f'{path}: ')[:200]})"
    return None


def _read_table(data: bytes, path: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    with damage_named(path):
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        schemas.check_plain(file.schema_arrow, path)
        file.read(use_threads=False).validate(full=True)


def _read_tensors(data: bytes) -> None:
    import safetensors

    try:
        safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise DamagedFile(str(error)) from error
