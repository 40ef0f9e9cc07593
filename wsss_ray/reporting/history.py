"""Keep the history of a run: every job that was submitted under its name, with the stages of its plan.

    STORE/runs/NAME/run.json                the attempt that was submitted last, which `status` shows
                    job.yaml                its job
                    attempts/KEY.json       each attempt: the content of run.json, the job's text, and when it was first submitted
                    attempts/KEY.html       the report of an attempt that another one has followed

An attempt is a job with its plan. A job that is submitted again continues its attempt; a changed job or another `--until` begins
one. Stages are shared by id, and no attempt changes the stages of another, so a model stays usable until its attempt is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wsss_ray.core.component import digest
from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.documents import ATTEMPT, RUN
from wsss_ray.storage.store import RunStore

_ABSENT = "-"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        run: The name of the run.
        number: Its number, from 1, in the order in which the attempts were first submitted.
        total: The number of attempts at the run.
        key: The name of its files.
        stages: `id`, `name`, `kind` and `work` of its stages, in the order in which they run.
        submitted: When it was last submitted, in seconds since the epoch.
        first: When it was first submitted.
        until: The kind of stage after which it stops; None for the whole plan.
        job: The text of its job file; None if it is not known.
        by: The process that submitted it last.

    Example:
        >>> for attempt in attempts(RunStore("runs"), "pets"):
        ...     print(attempt.number, attempt.until)
    """

    run: str
    number: int
    total: int
    key: str
    stages: tuple[Mapping[str, Any], ...]
    submitted: float
    first: float
    until: str | None
    job: str | None
    by: str | None

    @property
    def about(self) -> dict[str, Any]:
        """Return name, stages and who submitted them, as `run.json` has them."""
        return {"name": self.run, "stages": list(self.stages), "attempt": self.by}

    @property
    def title(self) -> str:
        """Return the name of the attempt in messages: the run alone if it is the only attempt."""
        return f"run {self.run!r}" + (f", attempt {self.number} of {self.total}" if self.total > 1 else "")


def attempts(store: RunStore, run: str) -> list[Attempt]:
    """Read the attempts at a run.

    Args:
        store: The store of the run.
        run: The name of the run.

    Returns:
        The attempts, the last submitted one first. Empty if the store has no plan of the run.

    Raises:
        DamagedFile: if a file does not hold what it should.

    Example:
        >>> attempts(RunStore("runs"), "pets")[0].number
        2
    """
    found, damaged = _known(store, run)
    if damaged:
        raise damaged[0]
    current = store.run_path(run, "run.json")
    if store.exists(current):
        about = _current(store, run, found)
        if (key := _key(about)) not in found:  # of a version of this package that kept no history
            found[key] = about | {"text": _job(store, run, about)}
    numbers = {key: place for place, key in enumerate(sorted(found, key=lambda key: (_first(found[key]), key)), start=1)}
    several = [
        Attempt(
            run=run,
            number=numbers[key],
            total=len(found),
            key=key,
            stages=tuple(about["stages"]),
            submitted=about.get("submitted", 0.0),
            first=_first(about),
            until=about.get("until"),
            job=about.get("text"),
            by=about.get("attempt"),
        )
        for key, about in found.items()
    ]
    return sorted(several, key=lambda one: (one.submitted, one.number), reverse=True)


def begin_attempt(store: RunStore, run: str, about: Mapping[str, Any], job: str) -> None:
    """Write that a job was submitted under the name of a run. What was submitted under it before is kept.

    Args:
        store: The store of the run.
        run: The name of the run.
        about: The content of `run.json`: `stages`, `submitted`, `until` and what else people should know.
        job: The text of the job file.

    Raises:
        OSError: if it cannot be written.

    Example:
        >>> begin_attempt(store, "pets", {"name": "pets", "stages": [], "submitted": time.time()}, "name: pets")
    """
    current, report = store.run_path(run, "run.json"), store.run_path(run, "report.html")
    key, first = _key(about), about.get("submitted", 0.0)
    if store.exists(current):
        try:
            before = _current(store, run, _known(store, run)[0])
            old = _key(before)
        except DamagedFile:  # it is written again below
            before, old = {}, key
        if old != key:
            if not store.exists(store.run_path(run, "attempts", f"{old}.json")):
                kept = before | {"text": _job(store, run, before), "first": _first(before)}
                store.write_json(store.run_path(run, "attempts", f"{old}.json"), kept)
            if store.exists(report):
                store.write(store.run_path(run, "attempts", f"{old}.html"), store.read(report))
    mine = store.run_path(run, "attempts", f"{key}.json")
    with suppress(FileNotFoundError, DamagedFile):  # a damaged file is written again below
        first = _first(_read(store, mine))
    store.write_json(mine, {**about, "text": job, "first": first})
    store.write(store.run_path(run, "job.yaml"), job.encode())
    store.write_json(current, about)


def report_path(store: RunStore, attempt: Attempt) -> str:
    """Return the path of the report of an attempt. It may not be written yet.

    Example:
        >>> report_path(RunStore("/nfs/runs"), attempts(RunStore("/nfs/runs"), "pets")[0])
        '/nfs/runs/runs/pets/report.html'
    """
    current = store.run_path(attempt.run, "run.json")
    if store.exists(current) and _key(store.read_json(current, RUN)) == attempt.key:
        return store.run_path(attempt.run, "report.html")
    return store.run_path(attempt.run, "attempts", f"{attempt.key}.html")


def differences(jobs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Find the fields in which jobs differ.

    Args:
        jobs: The jobs, as dictionaries.

    Returns:
        The dotted path of each field whose values are not all equal, with its value in each job; "-" stands for no such field.

    Example:
        >>> differences([{"name": "a", "run": {"seed": 0}}, {"name": "a", "run": {"seed": 1}}])
        {'run.seed': (0, 1)}
    """
    flat = [dict(_leaves(job, ())) for job in jobs]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = {name: tuple(one.get(name, _ABSENT) for one in flat) for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row[1:])}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves(part, (*path, str(name)))
    else:
        yield ".".join(path), value


def damaged_attempts(store: RunStore, run: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each attempt of a run that is damaged, its `run.json` among them, and what is wrong with it.

    Example:
        >>> list(damaged_attempts(RunStore("runs"), "pets"))
        []
    """
    found, damaged = _known(store, run)
    try:
        _current(store, run, found)
    except DamagedFile as error:
        damaged.append(error)
    for one in damaged:
        path, _, what = str(one).partition(": ")
        yield path, what


def _known(store: RunStore, run: str) -> tuple[dict[str, dict[str, Any]], list[DamagedFile]]:
    """Read the files of the attempts at a run: those that are whole, by their key, and what is wrong with the others."""
    found, damaged = dict[str, dict[str, Any]](), list[DamagedFile]()
    for name in store.names(store.run_path(run, "attempts")):
        if name.endswith(".json"):
            try:
                found[name.removesuffix(".json")] = _read(store, store.run_path(run, "attempts", name))
            except DamagedFile as error:
                damaged.append(error)
    return found, damaged


def _current(store: RunStore, run: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Read the `run.json` of a run. Raises DamagedFile also if one of the known attempts is of the same submit, and is another.

    Example:
        >>> _current(RunStore("runs"), "pets", {})["name"]
        'pets'
    """
    path = store.run_path(run, "run.json")
    about: dict[str, Any] = store.read_json(path, RUN)
    same = {key: one for key, one in known.items() if "submitted" in one and one["submitted"] == about.get("submitted")}
    if same and about not in [{name: one[name] for name in one if name not in ("text", "first")} for one in same.values()]:
        raise DamagedFile(f"{path}: is damaged (differs from attempts/{min(same)}.json, of the same submit). {RUN.mend}")
    return about


def refuse_lost(store: RunStore, run: str) -> None:
    """Raise DamagedFile if the folder of a run is there without its `run.json`, which a submit writes last. A sweep needs none.

    Example:
        >>> refuse_lost(RunStore("runs"), "pets")
    """
    path, job = store.run_path(run, "run.json"), store.run_path(run, "job.yaml")
    if store.exists(store.guarded(path, file=True)) or store.exists(store.run_path(run, "sweep.json")):
        return
    if run in store.names(store.path("runs")):
        mend = f"Submit the run's job again: {job} has it." if store.exists(job) else RUN.mend
        raise DamagedFile(f"{path}: is missing. {mend}")


def _read(store: RunStore, path: str) -> dict[str, Any]:
    """Read an attempt. Raises DamagedFile also if its job is not the one whose digest it has."""
    about: dict[str, Any] = store.read_json(path, ATTEMPT)
    if about["text"] is not None and not _fits(about, about["text"]):
        raise DamagedFile(f"{path}: is damaged (another job than was submitted). {ATTEMPT.mend}")
    return about


def _key(about: Mapping[str, Any]) -> str:
    """Return the name of an attempt's files: a digest of its stages and of where it stops."""
    return digest([[stage["id"] for stage in about["stages"]], about.get("until")])[:16]


def _first(about: Mapping[str, Any]) -> float:
    return float(about.get("first", about.get("submitted", 0.0)))


def _job(store: RunStore, run: str, about: Mapping[str, Any]) -> str | None:
    """Read the job of a run; None if there is none, or another one than the run.json was written for."""
    path = store.run_path(run, "job.yaml")
    text = store.read(path).decode(errors="replace") if store.exists(path) else None
    return text if text is None or _fits(about, text) else None


def _fits(about: Mapping[str, Any], text: str) -> bool:
    """Return True if a job is the one that was submitted, as far as a digest says so."""
    return about.get("job") in (None, hashlib.sha256(text.encode()).hexdigest())
