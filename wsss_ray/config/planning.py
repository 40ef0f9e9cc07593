"""Load a job, find its store and plan its stages, as the command line and Python both do. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from wsss_ray.config.document import Document, JobError
from wsss_ray.config.job import JobConfig, Listed, LoadedJob, TrialJob, plans_of, read_job, validated
from wsss_ray.config.paths import located
from wsss_ray.config.sweep import check_scheduler
from wsss_ray.core.counted import counted
from wsss_ray.core.graph import Plan, Until
from wsss_ray.core.plan import Stage
from wsss_ray.core.rules import SeedRule
from wsss_ray.data.source import DataSplit
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.shards import present_shards
from wsss_ray.storage.store import RunStore

Job = str | os.PathLike[str] | Mapping[str, Any]
"""A job: the path of a job file, or its content as a dictionary."""

Overrides = Mapping[str, Any] | Sequence[str]
"""Fields to set: values by dotted path, or texts `a.b=value` as `--set` takes them."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan, and how much of it is in the store.

    Attributes:
        name: The name of the stage.
        kind: The kind of the stage.
        id: The id of the stage.
        state: "done", "missing", "damaged", "not needed" (features that no missing stage reads), or "3 shards" if it has begun.
        reads: The names of the stages that it reads.
        problem: What is damaged or has changed, in one line; None if nothing that is needed.
    """

    name: str
    kind: str
    id: str
    state: str
    reads: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True)
class PlannedJob:
    """A job that is ready to run: its plan and its store, as this machine sees its data.

    Attributes:
        loaded: The job with its document.
        job: The job with absolute data paths.
        plan: Its stages.
        store: The store of its run.
        listed: The data that was listed for the plan.

    Example:
        >>> planned = plan("jobs/demo.yaml", until="seed")
        >>> [stage.name for stage in planned.stages if stage.state == "missing"]
        ['images-weak', 'classifier', 'maps', 'seeds', 'seed_quality']
    """

    loaded: LoadedJob = field(repr=False)
    job: JobConfig = field(repr=False)
    plan: Plan = field(repr=False)
    store: RunStore = field(repr=False)
    listed: Listed = field(repr=False)

    @property
    def name(self) -> str:
        """Return the name of the run."""
        return self.job.name

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """Return the stages in the order in which they run, with their state in the store at this moment."""
        finished = self._finished()
        missing = {stage.id for stage in self.plan.missing(finished.is_done)}
        found = []
        for stage in self.plan:
            seen = finished.state(stage.id)
            made = len(present_shards(self.store, stage)) if stage.id in missing and seen.problem is None else 0
            state, problem = counted(made, "shard") if made else seen.word, seen.problem
            if stage.id not in missing and not seen.is_done:
                state, problem = "not needed", None
            reads = tuple(source.name for source in (*(source for _, source in stage.inputs), *stage.features))
            found.append(PlannedStage(stage.name, stage.kind, stage.id, state, reads, problem))
        return tuple(found)

    @property
    def data(self) -> tuple[str, ...]:
        """Describe each data stage in one line, how many images it has found, and then what is given and needed by nothing.

        So wrong paths, tags and names are seen at once.

        Raises:
            JobError: as `trials`.
        """
        found = [(stage.name, stage.component) for stage in self.plan]
        lines = [f"{name}: {split.summary()}" for name, split in found if isinstance(split, DataSplit)]
        return (*lines, *self.unread)

    @property
    def unread(self) -> tuple[str, ...]:
        """Name the inputs beside the images that no stage of the job or of its trials needs, in one line each.

        Raises:
            JobError: as `trials`.
        """
        data = self.listed[self.job.data]
        further = {f"data.extra: {name}": stage.id for name, stage in data.extra.items()}
        if data.saliency is not None:
            further["data.saliency"] = data.saliency.id
        if not further or (self.job.sweep is not None and self.job.sweep.learns):
            return ()  # trials of a sweep that learns are not known yet
        plans = [self.job.plan(data), *(plan for _, plan in self._whole_trials)]
        needed = {source.id for plan in plans for stage in plan for source in _needed(stage)}
        mend = "no stage needs it. Remove it, or name a part that reads it"
        return tuple(f"{place}: {mend}" for place, id_ in further.items() if id_ not in needed)

    @property
    def done(self) -> int:
        """Count the stages that are done."""
        return sum(map(self._finished().is_done, self.plan))

    def _finished(self) -> Finished:
        finished = Finished(self.store)
        finished.look_at(self.plan)
        return finished

    def trials(self) -> tuple[tuple[TrialJob, Plan], ...]:
        """Plan the trials of the job's sweep. There are none if the sweep chooses trials as results come in.

        Raises:
            JobError: if a trial is no valid job, or its data cannot be listed. The message has one line per mistake.
        """
        return tuple((one, plan.cut(self.plan.until)) for one, plan in self._whole_trials)

    @cached_property
    def _whole_trials(self) -> list[tuple[TrialJob, Plan]]:
        if self.job.sweep is None:
            return []
        try:
            trials = [replace(one, job=located(one.job)) for one in self.loaded.trials()]
            plans = plans_of((one.job for one in trials), self.listed)
            check_scheduler(self.loaded.sweep, plans)
            return list(zip(trials, plans, strict=True))
        except JobError:
            raise
        except (ValueError, OSError) as error:
            raise JobError(f"{self.loaded.document.path}: {error}") from error


def _needed(stage: Stage) -> Iterator[Stage]:
    """Yield the stages that a stage needs: a seed stage is given saliency maps also by a rule that does not look at them."""
    rule = stage.component
    blind = isinstance(rule, SeedRule) and not rule.needs_saliency
    yield from (source for role, source in stage.inputs if not (blind and role == "saliency"))


def load(job: Job, overrides: Overrides | None = None) -> LoadedJob:
    """Read and validate a job.

    Args:
        job: The path of a job file, or its content.
        overrides: Fields to set, by dotted path.

    Raises:
        JobError: if the job is not valid. The message has one line per mistake.

    Example:
        >>> load("jobs/demo.yaml", {"run.seed": 1}).job.run.seed
        1
    """
    texts = [] if isinstance(overrides, Mapping) or overrides is None else list(overrides)
    values = overrides if isinstance(overrides, Mapping) else {}
    if isinstance(job, Mapping):
        document = Document("job", _plain(job, "job"), {})
        if "base" in document.values:
            raise JobError("job: base: is not allowed in a dictionary. Give a file, or all fields of the base.")
        for text in texts:
            document = document.with_override(text)
        loaded = None
    else:
        loaded = read_job(Path(job), texts)
        document = loaded.document
    for name, value in values.items():
        document = document.with_value(name, _plain(value, name), where=f"set {name}")
    return loaded if loaded is not None and not values else LoadedJob(document, validated(document))


def plan_loaded(loaded: LoadedJob, store: str | None = None, until: Until | None = None) -> PlannedJob:
    """Plan a job as this machine sees its data.

    Args:
        loaded: The job.
        store: URI of the run store; None for the job's own.
        until: Kind of stage after which to stop (see `core.graph.until`); None for the whole plan.

    Raises:
        JobError: if the data or the store cannot be used. The message has one line per mistake.

    Example:
        >>> plan_loaded(load("jobs/demo.yaml"), "runs", "seed").plan.until
        'seed'
    """
    job, listed = located(loaded.job), Listed()
    run_store = open_store(store or job.run.store)
    try:
        return PlannedJob(loaded, job, plans_of([job], listed)[0].cut(until), run_store, listed)
    except (ValueError, OSError) as error:
        raise JobError(f"{loaded.document.path}: {error}") from error


def plan(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
) -> PlannedJob:
    """Lay out the stages of a job, done and missing. Start nothing.

    Args:
        job: The path of a job file, or its content as a dictionary.
        set: Fields to set, by dotted path, such as {"run.seed": 1}; or texts as `--set` takes them.
        until: Stop after the last stage of this kind: "localize", "seed" or "train".
        store: Folder or URI of the run store. Default: the job's `run.store`.

    Returns:
        The planned job: `stages` with their states, `data` in words, `job`, `plan`, `store`.

    Raises:
        JobError: if the job, its data or the store is not valid. The message has one line per mistake.

    Example:
        >>> planned = wsss_ray.plan("job.yaml", set={"method.seed_rule.theta": 0.4})
        >>> [stage.name for stage in planned.stages if stage.state == "missing"]
        ['seeds', 'segmenter', 'miou']
    """
    return plan_loaded(load(job, set), None if store is None else os.fspath(store), until)


def open_store(uri: str, *, must_exist: bool = False) -> RunStore:
    """Open a run store.

    Args:
        uri: Folder or URI of the store.
        must_exist: True refuses a place where there is no store yet.

    Raises:
        JobError: if the URI is no store, or names a file. The message is one line.

    Example:
        >>> open_store("/nfs/runs").uri
        '/nfs/runs'
    """
    try:
        store = RunStore(uri)
        there = store.there()
    except (OSError, ValueError) as error:  # pyarrow raises subclasses of these
        from wsss_ray.storage.filesystems import shown  # imports pyarrow, which a local store does not need yet

        raise JobError(f"store {shown(uri)}: {error}") from error
    if there == "file":
        raise JobError(f"store {uri}: is a file; give a folder")
    if must_exist and there is None:
        raise JobError(f"store {uri}: there is no store there; give its folder with --store")
    return store


def check_loggers(job: JobConfig) -> None:
    """Raise JobError if this process cannot use a logger of the job. No server is contacted."""
    for logger in job.run.loggers:
        try:
            logger.check()
        except ValueError as error:
            raise JobError(str(error)) from error


def _plain(value: Any, where: str) -> Any:
    """Copy a value into what YAML holds. Raises JobError if it is something else, such as an object."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{where}.{place}") for place, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, PurePath):
        return str(value)
    raise JobError(f"{where}: is {type(value).__name__}. Give text, a number, true or false, a list, or a dictionary.")
