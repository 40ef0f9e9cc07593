"""Remove runs from a store, and free what no run refers to.

A stage belongs to every attempt whose plan has it, so a removed run leaves its stages: others may share them. `unused` finds the
stages that no attempt of any run or trial has. Only folders named like stages are ever deleted. Links and strangers are left
alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wsss_ray.core.errors import DamagedFile
from wsss_ray.inference.attempts import known_attempt
from wsss_ray.reporting.history import attempts, report_path
from wsss_ray.reporting.remaining import expected_path
from wsss_ray.reporting.status import run_status
from wsss_ray.storage.claims import STALE_S, is_dead, read_claim
from wsss_ray.storage.documents import TRIAL
from wsss_ray.storage.store import STAGE_ID, RunStore


@dataclass(frozen=True)
class Unused:
    """The stages of a store that no run refers to.

    Attributes:
        stages: Id and bytes of each, sorted by id.
        strangers: Names beside the stages that are no stages, or are links. They are left alone.

    Example:
        >>> found = unused(RunStore("runs"))
        >>> found.num_bytes, [stage_id for stage_id, _ in found.stages]
        (1048576, ['seed-0123456789abcdef'])
    """

    stages: tuple[tuple[str, int], ...]
    strangers: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all these stages."""
        return sum(size for _, size in self.stages)


@dataclass(frozen=True)
class Removal:
    """The folders that the removal of a run deletes: its own and, for a sweep, those of its trials, with their bytes."""

    runs: tuple[str, ...]
    num_bytes: int


def unused(store: RunStore) -> Unused:
    """Find the stages that no attempt of any run or trial has, and that nobody is making at this moment.

    Args:
        store: The store.

    Raises:
        DamagedFile: if the list of stages of a run cannot be read. Then nothing can be called unused.
        OSError: if the store cannot be read.

    Example:
        >>> unused(RunStore("runs")).num_bytes
        1048576
    """
    used = set(_used(store))
    found, strangers = [], []
    for name in store.names(store.path("stages")):
        path = store.path("stages", name)
        if not STAGE_ID.fullmatch(name) or _is_link(store, path):
            strangers.append(name)
        elif name not in used and not _is_claimed(store, name):
            found.append((name, size_of(store, path)))
    return Unused(tuple(found), tuple(strangers))


def free(store: RunStore, found: Unused) -> Unused:
    """Delete stages that `unused` has found. Those that a run refers to by now are kept.

    Args:
        store: The store.
        found: What `unused` has found.

    Returns:
        What was deleted.

    Raises:
        OSError: if something cannot be deleted. Call it again to go on.

    Example:
        >>> free(store, unused(store)).num_bytes
        1048576
    """
    still = {stage_id for stage_id, _ in unused(store).stages}
    gone = []
    for stage_id, size in found.stages:
        if stage_id in still:
            path = store.path("stages", stage_id)
            if store.exists(f"{path}/record.json"):  # first, so that a stage that is half deleted is not done
                store.delete(f"{path}/record.json")
            store.delete_folder(path)
            with suppress(FileNotFoundError):
                store.delete(store.path("claims", f"{stage_id}.json"))
            gone.append((stage_id, size))
    return Unused(tuple(gone), found.strangers)


def removal(store: RunStore, run: str) -> Removal:
    """Find out what the removal of a run deletes.

    Args:
        store: The store.
        run: The name of a run or sweep.

    Raises:
        ValueError: if there is no such run, or a process is running it. The message is one line.

    Example:
        >>> removal(RunStore("runs"), "photos").runs
        ('photos',)
    """
    there = store.names(store.path("runs"))
    if run not in there:
        raise ValueError(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    _refuse_link(store, run)
    names = [run, *sorted({row["run"] for row in _rows(store, run) if row["run"] in there} - {run})]
    for name in names:
        _refuse_link(store, name)
        _refuse_running(store, name)
    return Removal(tuple(names), sum(size_of(store, store.run_path(name)) for name in names))


def remove(store: RunStore, found: Removal) -> None:
    """Delete the folders of a `removal`. The stages stay until they are freed.

    Example:
        >>> remove(store, removal(store, "photos"))
    """
    for name in reversed(found.runs):  # a sweep itself last, because its rows name its trials
        store.delete_folder(store.run_path(name))
        with suppress(FileNotFoundError):  # most runs were not checked
            store.delete(expected_path(store, name))


def remove_attempt(store: RunStore, run: str, number: int) -> None:
    """Remove one attempt from the history of a run. Its stages stay until they are freed.

    Args:
        store: The store.
        run: The name of the run.
        number: The number of the attempt.

    Raises:
        ValueError: if there is no such attempt, or it is the one that was submitted last.

    Example:
        >>> remove_attempt(RunStore("runs"), "photos", 1)
    """
    one = known_attempt(store, run, number)
    report = report_path(store, one)
    if report == store.run_path(run, "report.html"):
        raise ValueError(f"run {run!r}: attempt {number} was submitted last; remove the run, or submit another job first")
    for path in (report, store.run_path(run, "attempts", f"{one.key}.json")):
        if store.exists(path):
            store.delete(path)


def size_of(store: RunStore, path: str) -> int:
    """Return the bytes of all files below a folder of the store. Links are left out."""
    return sum(store.sizes(path).values())


def _used(store: RunStore) -> Iterator[str]:
    for name in store.names(store.path("runs")):
        for one in attempts(store, name):
            yield from (stage["id"] for stage in one.stages)
        for row in _rows(store, name):
            yield from row["stages"]


def _rows(store: RunStore, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sweep's trials. Raises DamagedFile."""
    folder = store.run_path(name, "trials")
    for file in store.names(folder):
        yield store.read_json(f"{folder}/{file}", TRIAL)


def _is_claimed(store: RunStore, stage_id: str) -> bool:
    """Return True if a process may be making a stage: it has a claim that is neither dead nor silent for long."""
    claim = read_claim(store, stage_id)
    return claim is not None and not is_dead(claim.holder) and claim.silent_s <= STALE_S


def _refuse_running(store: RunStore, name: str) -> None:
    try:
        status = run_status(store, name)
    except DamagedFile:  # then it cannot be running for long, and removing it is the mend
        return
    now = status.now if status is not None else None
    if now is not None and now.state == "running" and (now.silent_s is None or now.silent_s <= STALE_S):
        raise ValueError(f"run {name!r}: {now.holder or 'a process'} is running it; stop that first")


def _refuse_link(store: RunStore, name: str) -> None:
    if _is_link(store, store.run_path(name)):
        raise ValueError(f"{store.run_path(name)}: is a link; delete the link yourself, what it leads to is not touched")


def _is_link(store: RunStore, path: str) -> bool:
    return store.is_local and os.path.islink(path)
