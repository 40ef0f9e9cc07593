"""Validate jobs. Errors name the line, the field, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from wsss_ray.config.document import Document, JobError, parse_document, read_document
from wsss_ray.config.mistakes import LONGEST, explain
from wsss_ray.config.plain_yaml import Place
from wsss_ray.config.run import Execution
from wsss_ray.config.sweep import Sweep, Trial, trial_name, trials_of
from wsss_ray.core.component import spec_of
from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.environment import hidden, restore
from wsss_ray.core.errors import shown
from wsss_ray.core.features import with_features
from wsss_ray.core.graph import Plan, reseed
from wsss_ray.core.method import Method
from wsss_ray.core.plan import Data
from wsss_ray.core.plugins import load_plugins
from wsss_ray.data import load_sources
from wsss_ray.data.source import DataSplit, Source
from wsss_ray.data.stages import stages_of
from wsss_ray.methods import methods
from wsss_ray.nets import load_networks


class JobConfig(BaseModel):
    """A job: what to compute (`method`, `data`, `run.seed`) and how to run it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the run and of its folder in the store.")
    method: Method
    data: Source
    run: Execution = Execution()
    sweep: Sweep | None = Field(default=None, description="Variants of this job, run as trials.")
    _written: dict[Place, str] = PrivateAttr(default_factory=dict)  # texts of the job file with ${NAME}

    @field_validator("method", "data", mode="before")
    @classmethod
    def _named(cls, value: Any, info: Any) -> Any:
        role: type[Method] | type[Source] = Method if info.field_name == "method" else Source
        if isinstance(value, str):
            raise ValueError(f"{value!r} is no block. Write {{{role.tag}: {value}}}, with further fields inside the braces.")
        if isinstance(value, dict) and role.tag not in value:
            raise ValueError(f"{role.tag} is missing, allowed: {', '.join(role.kinds())}")
        return value

    @field_validator("run", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    def __eq__(self, other: object) -> bool:
        """Compare the fields, not how the job files wrote them."""
        return isinstance(other, JobConfig) and dict(self) == dict(other)

    @property
    def method_as_run(self) -> Method:
        """Return the method with the fields that the `run` block sets in all its learners."""
        short = {"precision": self.run.precision, "inference": self.run.inference}
        given = {field: value for field, value in short.items() if value is not None}
        return self.method.everywhere(Learner, **given) if given else self.method

    def plan(self, data: Data | None = None) -> Plan:
        """Lay out the stages, and list the data first unless `data` is given. Opens no image. Raises ValueError."""
        targets = reseed(self.method_as_run.plan(data or stages_of(self.data)), self.run.seed)
        return Plan.of(with_features(targets) if self.run.features else targets)

    def spec(self) -> dict[str, Any]:
        """Return the job as a job file would write it, with every default, and `${NAME}` where the job file has it."""
        spec = self._filled_spec()
        for place, text in self._written.items():
            if (found := _at(spec, place[:-1])) is not None and (value := _at(found, place[-1:])) is not None:
                found[place[-1] if isinstance(found, dict) else int(place[-1])] = restore(value, text)
        return spec

    def kept(self) -> frozenset[Place]:
        """Return the places of texts that are still as written, because the fields may hold secrets (`AsWritten`)."""
        spec = self._filled_spec()
        return frozenset(place for place, text in self._written.items() if _at(spec, place) == text)

    def _filled_spec(self) -> dict[str, Any]:
        sweep = {"sweep": self.sweep.model_dump(mode="json", exclude_none=True)} if self.sweep else {}
        parts = {"name": self.name, "method": self.method.spec(), "data": self.data.spec()}
        return parts | {"run": {name: spec_of(value) for name, value in self.run}} | sweep


@dataclass(frozen=True)
class TrialJob:
    """One job of a sweep."""

    trial: Trial
    seed: int
    job: JobConfig


@dataclass(frozen=True)
class LoadedJob:
    """A validated job with its document. The document knows where each field was set, and the trials of a sweep vary it."""

    document: Document
    job: JobConfig

    @property
    def sweep(self) -> Sweep:
        """Return the sweep block of a job that has one."""
        assert self.job.sweep is not None
        return self.job.sweep

    def trials(self) -> tuple[TrialJob, ...]:
        """Return every trial of the sweep with every seed.

        There are none without a sweep, or if the sweep chooses trials by the results of others.

        Raises:
            JobError: if a trial is no valid job.
        """
        if self.job.sweep is None:
            return ()
        if self.sweep.seeds and self.document.sources.get(("run", "seed"), "").startswith("--set"):
            raise JobError("--set run.seed: the sweep has its own seeds. Set sweep.seeds=[...] instead.")
        seeds = self.sweep.seeds or (self.job.run.seed,)
        return tuple(self.variant(trial, seed) for trial in trials_of(self.sweep, self.job.run.seed) for seed in seeds)

    def variant(self, trial: Trial, seed: int) -> TrialJob:
        """Return the job of one trial with one seed. Raises JobError."""
        path, sources = self.document.path, self.document.sources
        place = self.sweep.trials.index(trial) if trial in self.sweep.trials else None
        where = sources.get(("sweep", "trials", str(place)), path)
        one = self.document.with_value("sweep", None, where=path)
        for name, value in trial.set.items():
            one = one.with_value(name, value, where=f"{where}: trial {trial.name!r}")
        one = one.with_value("run.seed", seed, where=where)
        one = one.with_value("name", trial_name(self.job.name, trial, seed), where=where)
        return TrialJob(trial=trial, seed=seed, job=validated(one))


def read_job(path: str | Path, overrides: Sequence[str] = ()) -> LoadedJob:
    """Read and validate a job file.

    Args:
        path: Job file.
        overrides: Texts `a.b=value`, as `--set` takes them.

    Raises:
        JobError: if the job is not valid. The message has one line per mistake.

    Example:
        >>> loaded = read_job("jobs/sweeps/demo_theta.yaml", ["run.seed=1"])
        >>> [one.trial.name for one in loaded.trials()]
    """
    document = read_document(path, overrides)
    return LoadedJob(document, validated(document))


def parse_job(data: bytes, name: str) -> LoadedJob:
    """Validate a job without `base`, such as a run's `job.yaml`. Error messages call it `name`. Raises JobError."""
    document = parse_document(data, name)
    return LoadedJob(document, validated(document))


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read and validate a job file like `read_job`, and return only the job. Raises JobError with one line per mistake."""
    return read_job(path, overrides).job


Listed = dict[Source, Data]
"""Data sources that have been listed, with the stages that list them."""


def plans_of(jobs: Iterable[JobConfig], listed: Listed | None = None) -> list[Plan]:
    """Plan each job. Every data source is listed once, and not again if `listed` holds it. Raises ValueError."""
    listed = {} if listed is None else listed
    plans = []
    for job in jobs:
        if job.data not in listed:
            listed[job.data] = stages_of(job.data)
        plans.append(job.plan(listed[job.data]))
        _check_tags(plans[-1])
    return plans


def _check_tags(plan: Plan) -> None:
    """Raise ValueError if a network would learn tags that all images share."""
    for stage in plan:
        joint = (stage,) if isinstance(stage.component, OnlineSegmenter) else ()
        for training in stage.all("model") if stage.kind == "localize" else joint:
            learner, split = training.component, training.input("data").component
            assert isinstance(learner, Learner)
            assert isinstance(split, DataSplit)
            same = split.num_images > 1 and all(count in (0, split.num_images) for count in split.tagged)
            if same and learner.total_steps(split.num_images):
                named = ", ".join(name for name, count in zip(split.classes, split.tagged, strict=True) if count) or "none"
                raise ValueError(
                    f"data: all {split.num_images} images have the same tags ({named}), so there is nothing to learn. "
                    "Add images of other classes, or images of no class (an empty cell in the table of tags)."
                )


def validated(document: Document) -> JobConfig:
    """Validate a document. Raises JobError with one line per mistake."""
    register()
    values = document.expanded()
    try:
        job = JobConfig.model_validate(values)
        job._written = document.written()
        return job
    except ValidationError as error:
        raise JobError("\n".join(explain(error, document, JobConfig))) from None  # pydantic's own text shows the values
    except JobError:
        raise
    except ValueError as error:
        raise JobError(f"{document.path}: {hidden(shown(str(error), LONGEST), values)}") from None


def _at(spec: Any, place: Place) -> Any:
    """Return what is at a place of a job's spec; None if nothing is."""
    for key in place:
        if isinstance(spec, list):
            spec = spec[int(key)] if key.isdecimal() and int(key) < len(spec) else None
        else:
            spec = spec.get(key) if isinstance(spec, dict) else None
    return spec


def register() -> None:
    """Import every method, network and data source, and all plug-ins, so that job files can name them. Raises JobError."""
    methods()
    load_networks()
    load_sources()
    try:
        load_plugins()
    except ValueError as error:
        raise JobError(str(error)) from error
