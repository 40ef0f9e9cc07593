"""Look up the attempts at a run, for those who use what it made. Their history is in `reporting.history`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from wsss_ray.config.document import JobError, parse_document
from wsss_ray.inference.label_maps import LabelMaps, Part, find_labels
from wsss_ray.reporting.history import Attempt, attempts, refuse_lost
from wsss_ray.storage.store import RunStore

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def known_attempts(store: RunStore, run: str) -> list[Attempt]:
    """Return the attempts at a run, the last submitted one first. Raises ValueError, in one line, if there is no such run.

    Raises DamagedFile if the run's `run.json` is lost, and all of its attempts.
    """
    found = attempts(store, run) if _RUN.fullmatch(run) else []
    if not found:
        if _RUN.fullmatch(run):
            refuse_lost(store, run)
        if _RUN.fullmatch(run) and store.exists(store.run_path(run, "sweep.json")):
            raise ValueError(f"run {run!r} is a sweep; give one of its trials: {store.run_path(run, 'trials.parquet')} has them")
        raise ValueError(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    return found


def known_attempt(store: RunStore, run: str, number: int | None = None) -> Attempt:
    """Return one attempt at a run.

    Args:
        store: The store of the run.
        run: The name of the run.
        number: The number of the attempt. None takes the one that was submitted last.

    Raises:
        ValueError: if there is no such run or attempt. The message is one line.

    Example:
        >>> known_attempt(RunStore("runs"), "photos", 1).until
        'seed'
    """
    several = known_attempts(store, run)
    found = several[0] if number is None else next((one for one in several if one.number == number), None)
    if found is None:
        raise ValueError(f"run {run!r}: has no attempt {number}; it has 1 to {len(several)}")
    return found


def labels_of(
    store: RunStore, several: Sequence[Attempt], stage: str | None = None, part: Part | None = None
) -> tuple[Attempt, LabelMaps]:
    """Find the label maps of the first of several attempts that has them.

    Args:
        store: The store.
        several: Attempts at a run, the last submitted one first.
        stage: The name of a stage. None takes the last one that has label maps, of those that `part` allows.
        part: `train` or `val`; see `find_labels`.

    Raises:
        DamagedFile: if they are damaged. Those of an older attempt are not taken instead.
        ValueError: if no attempt has them. The message is that of the first attempt.

    Example:
        >>> attempt, maps = labels_of(store, known_attempts(store, "photos"), "seeds")
    """
    errors = []
    for one in several:
        try:
            return one, find_labels(store, one.about, stage, part)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def attempt_of_stage(store: RunStore, stage_id: str) -> Attempt:
    """Return the last attempt at the first run, by name, that has a stage."""
    for name in store.names(store.path("runs")):
        for one in attempts(store, name):
            if stage_id in [stage["id"] for stage in one.stages]:
                return one
    raise ValueError(f"no run in {store.uri} has the stage {stage_id}; `wsss-ray show RUN` prints the stages' ids")


def job_of(store: RunStore, attempt: Attempt, *, filled: bool = False) -> dict[str, Any]:
    """Return the job of an attempt.

    Args:
        store: The store.
        attempt: The attempt.
        filled: True replaces `${NAME}`, which the store keeps, if all variables are set here too.

    Raises:
        ValueError: if it is no job file. The message is one line that names the run's job file.

    Example:
        >>> job_of(store, known_attempt(store, "photos"))["method"]["name"]
        'dsrg'
    """
    try:
        document = parse_document((attempt.job or "").encode(), store.run_path(attempt.run, "job.yaml"))
    except JobError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    try:
        return document.expanded() if filled else document.values
    except JobError:  # a variable is not set here
        return document.values


def fields_of(attempt: Attempt) -> dict[str, Any]:
    """Return the job of an attempt as a dictionary, with `${NAME}` as written; {} if it is not known or is no job file.

    Example:
        >>> fields_of(known_attempt(store, "photos"))["run"]["seed"]
        0
    """
    try:
        return parse_document((attempt.job or "").encode(), attempt.run).values
    except JobError:
        return {}
