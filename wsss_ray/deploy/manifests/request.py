"""Gather what every manifest needs: the job as one file, the local paths that it names, the machines that it asks for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from wsss_ray.config.document import Document, JobError, to_yaml
from wsss_ray.config.job import JobConfig, validated
from wsss_ray.config.paths import local_paths
from wsss_ray.deploy.manifests.machines import Machines
from wsss_ray.nets.clip import Clip
from wsss_ray.ops.crf import DenseCrf

RAY_VERSION = "2.60.0"
EXTRAS = "coco,efficientnet,sprites,timm"

_SYSTEM = {"/", "/bin", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var"}


@dataclass(frozen=True)
class Request:
    """Hold a job that can run on machines which share no working directory.

    Attributes:
        job: The validated job.
        file: The name of the job file, without its folder.
        text: The job as one file: base merged, overrides applied, `${NAME}` left as it is, so that no secret is written.
        machines: The worker machines.
        paths: Field and absolute path of every local path that the job names.
        until: The kind of the last stage to run. None runs all stages.
    """

    job: JobConfig
    file: str
    text: str
    machines: Machines
    paths: tuple[tuple[str, str], ...]
    until: str | None = None

    @property
    def name(self) -> str:
        """Turn the job's name into one that clusters accept: at most 47 of a-z, 0-9 and -, a letter first."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.job.name.lower()).strip("-")
        return (plain if plain[:1].isalpha() else f"job-{plain}")[:47].rstrip("-")

    @property
    def variables(self) -> tuple[str, ...]:
        """List the environment variables that the job file names."""
        return tuple(sorted(set(re.findall(r"\$\{(\w+)\}", self.text))))

    @property
    def options(self) -> list[str]:
        """List the options of `submit` on the cluster that it is called on."""
        return ["--address", "auto", *(["--until", self.until] if self.until else [])]

    @property
    def extras(self) -> str:
        """List the extras of this package that the machines install, with commas between. `clip` and `crf` depend on the job."""
        parts = list(self.job.method.parts())
        clip = any(isinstance(part, Clip) for part in parts)
        crf = any(isinstance(part, DenseCrf) and part.backend == "pydensecrf" for part in parts)
        return EXTRAS + (",clip" if clip else "") + (",crf" if crf else "")

    def shared_folder(self) -> str | None:
        """Find the folder to mount on every machine.

        Returns:
            The folder that holds all local paths of the job, or None if the job names none.

        Raises:
            ValueError: if only a folder of the system, such as /home, holds them all.
        """
        if not self.paths:
            return None
        folder = os.path.commonpath([path for _, path in self.paths])
        if folder in _SYSTEM:
            given = " and ".join(f"{field} ({path})" for field, path in self.paths)
            raise ValueError(f"{given} cannot be mounted as one folder; put all below one such as /data")
        return folder


def request_of(
    document: Document, *, gpus_per_node: int | None = None, cpus_per_node: int | None = None, until: str | None = None
) -> Request:
    """Read the request from a job file.

    Args:
        document: The job file.
        gpus_per_node: GPUs of a worker machine. None is 1, or 0 if `run.gpu` is false.
        cpus_per_node: CPUs of a worker machine. None is what the job's processes take.
        until: The kind of the last stage to run. None runs all stages.

    Returns:
        The request.

    Raises:
        JobError: if the job is not valid, a path is relative, or the machines contradict the job. One line per mistake.
    """
    job = validated(document)
    paths = tuple(local_paths(job))
    wrong = [_relative(document, field, path) for field, path in paths if not os.path.isabs(path)]
    if wrong:
        raise JobError("\n".join(wrong))
    try:
        machines = Machines.of(job.run, gpus_per_node=gpus_per_node, cpus_per_node=cpus_per_node)
    except ValueError as error:
        raise JobError(f"{document.path}: {error}") from error
    if machines.gpus and job.run.gpu is None:
        document = document.with_value("run.gpu", True, where="render")  # not on CPUs because the GPUs came late
    text = to_yaml(document.values, width=120)
    return Request(job=job, file=Path(document.path).name, text=text, machines=machines, paths=paths, until=until)


def _relative(document: Document, field: str, path: str) -> str:
    """Say in one line where a relative path is set and what to set instead."""
    place = tuple(field.split("."))
    where = next((document.sources[place[:end]] for end in range(len(place), 1, -1) if place[:end] in document.sources), None)
    mend = "an absolute path or a URI such as s3://bucket/runs" if field == "run.store" else "an absolute path"
    return f"{where or document.path}: {field}: {path!r} is relative, and machines share no working directory; set {mend}"
