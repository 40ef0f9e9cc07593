"""Define the `run` block of a job file, which says how a job is run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsss_ray.core.contracts import Inference, Precision
from wsss_ray.reporting.loggers import Logger, Tensorboard


class Execution(BaseModel):
    """The `run` block: where a job runs and with how many processes.

    Only `seed`, `precision` and `inference` change results, and they are part of stage ids. `precision` and `inference` are a
    short way to set the fields of these names in every learner of the method. Everything else (processes that decode, checkpoints
    written in the background, pinned memory) changes speed or memory, and no result. There is one exception: on a GPU, the last
    digits of maps and scores may depend on `image_batch`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="Random seed of the job; part of the ids of train and localize stages.")
    precision: Precision | None = Field(
        default=None, description="Precision of every training; null: as each learner's block says. Part of stage ids."
    )
    inference: Inference | None = Field(
        default=None, description="Form of every network in inference; null: as each learner's block says. Part of stage ids."
    )
    store: str = Field(default="runs", min_length=1, description="Folder or URI (s3://, gs://) of the run store.")
    workers: int | tuple[int, int] = Field(
        default=1,
        description="Training workers, with one GPU each if there are GPUs. [min, max]: as machines join and leave.",
    )
    cpus_per_worker: float | None = Field(default=None, gt=0, description="CPUs of each training worker; null: an even share.")
    gpu: bool | None = Field(default=None, description="Use GPUs; null: use them if the cluster has any.")
    micro_batch: int = Field(default=64, ge=1, description="Images in a worker's memory at a time; changes memory, not results.")
    features: bool = Field(
        default=True, description="Compute the features of a frozen trunk once and keep them in the store; changes no result."
    )
    loader_workers: int | None = Field(
        default=None,
        ge=0,
        description="Processes that decode images for each training worker; 0: threads; null: up to 8, or 0 without a GPU.",
    )
    label_workers: int = Field(default=0, ge=0, description="Processes beside each worker that compute online labels (RRM).")
    image_workers: int | tuple[int, int] | None = Field(
        default=None,
        description="Actors of a per-image stage, or [min, max]; null: as many as fit, and more if the cluster grows.",
    )
    gpus_per_image_worker: float = Field(default=1.0, gt=0, le=1, description="Share of a GPU for an actor that runs a network.")
    image_batch: int | None = Field(
        default=None,
        ge=1,
        description="Images in a batch of a network of a per-image stage on a GPU, where the last digits may depend on it; "
        "null: as many as fit, at most 32. On CPUs always 1.",
    )
    in_flight: int = Field(default=2, ge=1, description="Shards given to an actor at a time.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between training checkpoints.")
    log_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between lines of metrics.jsonl; null: 20, or fewer in a short training, to have about 100 lines.",
    )
    validate_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between validations of a segmenter in training, if the plan scores it; null: no validation.",
    )
    validate_images: int = Field(default=100, ge=1, description="Largest number of images with masks in each validation.")
    loggers: tuple[Logger, ...] = Field(
        default=(Tensorboard(),), description="Loggers that get the metrics while the job runs: tensorboard, mlflow, wandb."
    )
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1, description="Largest share of images that may fail in a stage.")
    max_failures: int = Field(default=3, ge=0, description="Worker failures after which a training continues.")

    wait_s: float = Field(default=0, ge=0, description="Seconds to wait for machines of a cluster that grows on demand.")

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
            raise ValueError("must be a whole number of at least 1, or a range [min, max]")
        return value

    @field_validator("loggers")
    @classmethod
    def _each_once(cls, value: tuple[Logger, ...]) -> tuple[Logger, ...]:
        kinds = [logger.kind() for logger in value]
        if len(set(kinds)) < len(kinds):
            twice = next(kind for kind in kinds if kinds.count(kind) > 1)
            raise ValueError(f"{twice!r} is listed twice. Remove one.")
        return value

    @property
    def worker_range(self) -> tuple[int, int]:
        """Return the fewest and the most training workers."""
        return _range(self.workers)

    @property
    def image_worker_range(self) -> tuple[int, int] | None:
        """Return the fewest and the most actors of a per-image stage, or None if the job leaves the number open."""
        return _range(self.image_workers) if self.image_workers is not None else None


def _range(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
