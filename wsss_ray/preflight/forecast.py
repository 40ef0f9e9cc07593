"""Try a job on this machine and estimate the whole of it: what `check` prints, and what `init --budget` chooses by."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsss_ray.config.job import JobConfig
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.preflight.dry_run import Measure, try_job
from wsss_ray.preflight.estimate import Estimate, JobResources, estimate, total_seconds

if TYPE_CHECKING:
    from wsss_ray.preflight.survey.sizes import Machine

IMAGES = 6
"""Images that are tried from each split, unless the user chooses another number."""


@dataclass(frozen=True)
class Forecast:
    """The result of a trial.

    Attributes:
        measures: One measure per stage.
        estimates: One estimate per stage.
        resources: The resources that the job gets.
        problem: Why the job does not fit the machine; None if it fits.
    """

    measures: tuple[Measure, ...]
    estimates: tuple[Estimate, ...]
    resources: JobResources
    problem: str | None

    @property
    def seconds(self) -> float:
        """Return the seconds of the whole job, with the start of Ray, without the stages that are done."""
        return total_seconds(self.estimates)

    def of_other_lengths(self, job: JobConfig, plan: Plan) -> Forecast:
        """Estimate the job with other numbers of epochs from the same measures: a step takes as long in a short training.

        Args:
            job: The job. It differs from the job that was tried in the lengths of trainings only.
            plan: Its whole plan.
        """
        found = estimate(plan, self.measures, job.run, self.resources, done=set())
        return Forecast(self.measures, tuple(found), self.resources, self.problem)


def forecast(
    job: JobConfig,
    plan: Plan,
    machine: Machine,
    *,
    memory: float | None,
    images: int = IMAGES,
    done: Set[str] = frozenset(),
    until: Callable[[Plan], Plan] = lambda plan: plan,
    begin: Callable[[Stage], None] = lambda stage: None,
) -> Forecast:
    """Run two batches of each stage in a temporary store, and estimate the whole job.

    Args:
        job: The job, with absolute paths to its data.
        plan: The plan of the job.
        machine: This machine.
        memory: Bytes that the trial may allocate in addition to those that the process has. None sets no limit.
        images: The number of images to take from each split.
        done: Names of stages that are done. The total leaves them out.
        until: Cuts the trial's plan at the stage where `plan` was cut.
        begin: Called with each stage before it runs.

    Raises:
        CheckError: at the first problem that would end the run.

    Example:
        >>> found = forecast(job, job.plan(), Machine.here(), memory=free_memory())
        >>> round(found.seconds)
        412
    """
    resources, problem = JobResources.on(machine, job.run)
    measures = try_job(
        job,
        plan,
        images=images,
        workers=resources.workers,
        threads=min(resources.threads, machine.cpus),
        gpu=resources.gpus > 0,
        memory=memory,
        until=until,
        begin=begin,
    )
    found = estimate(plan, measures, job.run, resources, done=set(done))
    return Forecast(tuple(measures), tuple(found), resources, problem)
