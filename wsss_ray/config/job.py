"""Validate jobs. Errors name the line, the field, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsss_ray.config.document import Document, JobError, parse_document, read_document
from wsss_ray.config.run import Execution
from wsss_ray.config.sweep import Sweep, Trial, trial_name, trials_of
from wsss_ray.core.component import Component, spec_of
from wsss_ray.core.contracts import Learner, OnlineSegmenter
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
        """Return the job as a job file would write it, with every default."""
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
    try:
        return JobConfig.model_validate(document.expanded())
    except ValidationError as error:
        found = error.errors(include_url=False)
        inner = {problem["loc"][:end] for problem in found for end in range(len(problem["loc"]))}
        kept = [problem for problem in found if not (problem["type"] == "too_short" and problem["loc"] in inner)]
        problems = [_explain(problem, document.sources, document.path, document.values) for problem in kept]
        raise JobError("\n".join(dict.fromkeys(problems))) from error
    except JobError:
        raise
    except ValueError as error:
        raise JobError(f"{document.path}: {error}") from error


def register() -> None:
    """Import every method, network and data source, and all plug-ins, so that job files can name them. Raises JobError."""
    methods()
    load_networks()
    load_sources()
    try:
        load_plugins()
    except ValueError as error:
        raise JobError(str(error)) from error


def _explain(problem: Any, sources: dict[tuple[str, ...], str], file: str, document: Any) -> str:
    """Describe one mistake as `file:line: dotted.path: what is wrong and what is allowed`."""
    path = tuple(str(part) for part in problem["loc"])
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in sources), None)
    where = sources[known] if known else f"{file}:1"
    message = problem["msg"].removeprefix("Value error, ")
    for tag in ("kind", "name"):
        if message.startswith(f"{tag} is "):
            where = sources.get((*path, tag), where)
    if problem["type"] == "extra_forbidden":
        message = f"there is no such field; allowed: {', '.join(_allowed(path[:-1], document))}"
    elif problem["type"] == "missing":
        message = "is missing"
    elif problem["type"] == "model_type":
        fields = ", ".join(_allowed(path, document))
        message = f"must be a block of fields{f' ({fields})' if fields else ''}"
    elif problem["type"] == "string_pattern_mismatch" and path == ("name",):
        rule = "at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        message = f"{problem['input']!r} cannot name a run. Use {rule}."
    elif problem["type"] == "union_tag_invalid":
        allowed = problem["ctx"]["expected_tags"].replace("'", "")
        message = f"kind is {problem['ctx']['tag']!r}, allowed: {allowed}"
    elif problem["type"] == "union_tag_not_found":
        message = "kind is missing"
    elif problem["type"] == "tuple_type":
        message = f"write a list, such as [{problem['input']}]"
    else:
        message = message[0].lower() + message[1:]
        given = problem.get("input")
        if isinstance(given, str | int | float | bool) and repr(given) not in message and "credentials" not in message:
            wrong, stop, mend = message.partition(". ")
            message = f"{wrong}, got {given!r}{stop}{mend}"
    return f"{where}: {'.'.join(path)}: {message}"


def _allowed(path: tuple[str, ...], document: Any) -> list[str]:
    """Return the fields of the block at `path`: those of the kind that the document names, or of the default."""
    model: type[BaseModel] = JobConfig
    role: type[BaseModel] = JobConfig
    roles: list[type[BaseModel]] = []
    for part in path:
        default = None
        if part in model.model_fields:
            field = model.model_fields[part]
            roles = list(_blocks_of(field.annotation))
            role = roles[0]
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            document = document.get(part, {}) if isinstance(document, dict) else {}
        elif isinstance(document, list):  # a block of a list
            document = document[int(part)]
        elif isinstance(document, dict):  # a block of a mapping, or the kind of the block, which pydantic puts into its path
            role = next((one for one in roles if part == document.get("kind") in _kinds_of(one)), role)
            document = document.get(part, document)
        given = document if isinstance(document, dict) else {}
        named = role.kinds().get(str(given.get(role.tag))) if issubclass(role, Component) else None
        model = named or (type(default) if isinstance(default, BaseModel) else role)
    return list(model.model_fields)


def _kinds_of(block: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values of a block's `kind` field, if it has one: those of a Literal."""
    return get_args(block.model_fields["kind"].annotation) if "kind" in block.model_fields else ()


def _blocks_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the block types in a field's annotation: the type itself, the types of a union, or of a list's items."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks_of(part)
