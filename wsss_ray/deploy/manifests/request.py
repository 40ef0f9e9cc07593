"""What every manifest is made from: the job as one file, where it reads and writes, and the machines it asks for."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from wsss_ray.config.document import Document, JobError
from wsss_ray.config.job import JobConfig, validated
from wsss_ray.config.paths import local_paths
from wsss_ray.deploy.manifests.machines import Machines

JOB_PATH = "/etc/wsss-ray/job.yaml"
RAY_VERSION = "2.60.0"

_SYSTEM = {"/", "/bin", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var"}


@dataclass(frozen=True)
class Request:
    """A job that may run on machines which share no working directory.

    `text` is the job as one file: `base` laid below, overrides applied, `${NAME}` as it stands, so that no secret is written.
    """

    job: JobConfig
    file: str
    text: str
    machines: Machines
    paths: tuple[tuple[str, str], ...]
    until: str | None = None

    @property
    def name(self) -> str:
        """The job's name as clusters want it: at most 47 of a-z, 0-9 and -, a letter first."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.job.name.lower()).strip("-")
        return (plain if plain[:1].isalpha() else f"job-{plain}")[:47].rstrip("-")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that the job file asks for."""
        return tuple(sorted(set(re.findall(r"\$\{(\w+)\}", self.text))))

    def submit(self, path: str, *, python: str = "python") -> str:
        """The shell command that runs the job on the cluster it is called on; `path` and `python` as the shell reads them."""
        until = f" --until {shlex.quote(self.until)}" if self.until else ""
        return f"{python} -m wsss_ray submit {path} --address auto{until}"

    def shared_folder(self) -> str | None:
        """The folder with all local paths of the job, None without any, to be mounted on every machine. Raises ValueError."""
        if not self.paths:
            return None
        folder = os.path.commonpath([path for _, path in self.paths])
        if folder in _SYSTEM:
            given = " and ".join(f"{field} ({path})" for field, path in self.paths)
            raise ValueError(f"{given} cannot be mounted as one folder; put all below one such as /data")
        return folder

    def about(self, target: str) -> str:
        """The comment on top of a manifest."""
        lines = [f"{target} for the job {self.job.name!r} of {self.file}: rendered by wsss-ray, change the job and render again."]
        if self.variables:
            lines.append(f"The job needs in its environment: {', '.join(self.variables)}.")
        return "\n".join(lines)


def request_of(
    document: Document, *, gpus_per_node: int | None = None, cpus_per_node: int | None = None, until: str | None = None
) -> Request:
    """The request of a job file. Raises JobError, with a line per mistake."""
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
    text = yaml.safe_dump(document.values, sort_keys=False, allow_unicode=True, width=120)
    return Request(job=job, file=Path(document.path).name, text=text, machines=machines, paths=paths, until=until)


def _relative(document: Document, field: str, path: str) -> str:
    place = tuple(field.split("."))
    where = next((document.sources[place[:end]] for end in range(len(place), 1, -1) if place[:end] in document.sources), None)
    mend = "an absolute path or a URI such as s3://bucket/runs" if field == "run.store" else "an absolute path"
    return f"{where or document.path}: {field}: {path!r} is relative, and machines share no working directory; set {mend}"
