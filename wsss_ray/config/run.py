"""How a job is run: the `run` block of a job file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsss_ray.core.contracts import Precision
from wsss_ray.reporting.loggers import Logger, Tensorboard


class Execution(BaseModel):
    """The `run` block: where and how wide. Nothing but `seed` and `precision` changes a number, and these are part of stage ids.

    `precision` is no more than a short way to write it into every learner of the method, where it belongs. What else makes a
    training faster here (processes that decode, checkpoints written beside it, pinned memory) changes no number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="The job's random seed; part of the identity of train and localize stages.")
    precision: Precision | None = Field(
        default=None, description="`precision` of every training of the method; null: as its block says. Part of their identity."
    )
    store: str = Field(default="runs", min_length=1, description="Folder or URI (s3://, gs://) of the run store.")
    workers: int | tuple[int, int] = Field(
        default=1, description="Training workers (processes, one GPU each if there are any); [min, max]: as machines come and go."
    )
    cpus_per_worker: float | None = Field(default=None, gt=0, description="CPUs of a training worker; null: an even share.")
    gpu: bool | None = Field(default=None, description="Use GPUs; null: if the cluster has any.")
    micro_batch: int = Field(default=64, ge=1, description="Images that a worker holds at a time; changes memory, not results.")
    loader_workers: int | None = Field(
        default=None, ge=0, description="Processes that decode ahead of each training worker; 0: a thread; null: 0 without a GPU."
    )
    label_workers: int = Field(default=0, ge=0, description="Processes that make labels online (RRM) beside each worker.")
    image_workers: int | tuple[int, int] | None = Field(
        default=None, description="Actors of a per-image stage, or [min, max]; null: as many as the cluster holds, as it grows."
    )
    gpus_per_image_worker: float = Field(default=1.0, gt=0, le=1, description="Share of a GPU that a localizing actor takes.")
    in_flight: int = Field(default=2, ge=1, description="Shards that are handed to an actor at a time.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between training checkpoints.")
    log_every: int = Field(default=20, ge=1, description="Steps between lines of metrics.jsonl.")
    validate_every: int | None = Field(
        default=None, ge=1, description="Steps between scores of a segmenter that trains, if the plan scores it; null: none."
    )
    validate_images: int = Field(default=100, ge=1, description="Images with masks that these scores are computed on, at most.")
    loggers: tuple[Logger, ...] = Field(
        default=(Tensorboard(),), description="Where the figures go while the job runs: tensorboard, mlflow, wandb."
    )
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1, description="Share of images that may fail in a stage.")
    max_failures: int = Field(default=3, ge=0, description="Worker failures that a training survives.")

    wait_s: float = Field(default=0, ge=0, description="Seconds to wait for the machines of a cluster that grows on demand.")

    @field_validator("store")
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        if "://" in value:
            from wsss_ray.storage.filesystems import CREDENTIALS, holds_credentials

            if holds_credentials(value):
                raise ValueError(CREDENTIALS)
        return value

    @field_validator("workers", "image_workers", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Any:
        ends = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        if value is not None and not (all(type(end) is int and end >= 1 for end in ends) and ends[0] <= ends[1]):
            raise ValueError("is a whole number of at least 1, or a range [min, max]")
        return value

    @field_validator("loggers")
    @classmethod
    def _each_once(cls, value: tuple[Logger, ...]) -> tuple[Logger, ...]:
        kinds = [logger.kind() for logger in value]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"each kind once: {', '.join(kinds)}")
        return value

    @property
    def worker_range(self) -> tuple[int, int]:
        """The fewest and the most training workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)
