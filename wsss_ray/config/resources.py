"""Divide the resources of a cluster, or of one machine, among the workers of a job. No Ray: the runners list the machines."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsss_ray.config.run import Execution


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Resources:
    """The resources of a cluster, which `at_once` jobs share equally. One CPU is reserved for readers."""

    nodes: tuple[Node, ...]
    object_store: float = 0.0
    grows: bool = False  # machines may join
    at_once: int = 1

    @classmethod
    def of_one_machine(cls, *, cpus: int, gpus: int) -> Resources:
        """Return the resources of a private Ray, which has one CPU more than the machine, for readers."""
        return cls((Node("here", "here", cpus + 1.0, float(gpus)),))

    @property
    def cpus(self) -> float:
        """Return the CPUs that one job may use."""
        return max(1.0, sum(node.cpus for node in self.nodes) - 1) / self.at_once

    @property
    def gpus(self) -> int:
        """Return the GPUs that one job may use."""
        return int(sum(node.gpus for node in self.nodes)) // self.at_once

    @property
    def node_cpus(self) -> float:
        """Return the CPUs that every node can give to a training worker: with GPUs, the fewest CPUs per GPU."""
        with_gpus = [node.cpus / node.gpus for node in self.nodes if node.gpus]
        return max(1.0, min([*(with_gpus or [node.cpus for node in self.nodes if node.cpus]), self.cpus]))


@dataclass(frozen=True)
class TrainingShare:
    """The resources of a training: workers (fewest, most), CPUs for each worker, and whether each has a GPU."""

    workers: tuple[int, int]
    cpus: float
    gpu: bool


def training_share(run: Execution, have: Resources) -> TrainingShare:
    """Divide a cluster among training workers. Raises ValueError if the fewest of them do not fit."""
    fewest, most = run.worker_range
    gpu = have.gpus > 0 if run.gpu is None else run.gpu
    cpus = run.cpus_per_worker or max(1, math.floor(min(have.cpus / most, have.node_cpus)))
    while not run.cpus_per_worker and cpus > 1 and workers_that_fit(have, cpus, gpu) < most:
        cpus -= 1
    user, field = "the job", "run.workers"
    if have.at_once > 1:
        user, field = f"each of {have.at_once} trials at once", "sweep.max_concurrent"
    if fewest * cpus > have.cpus or (gpu and fewest > have.gpus):
        raise ValueError(
            f"run.workers = {fewest} needs {fewest * cpus:g} CPUs{f' and {fewest} GPUs' if gpu else ''}, but the cluster has "
            f"{have.cpus:g} CPUs and {have.gpus} GPUs for {user}. Lower {field}."
        )
    found = workers_that_fit(have, cpus, gpu)
    if found < fewest:
        largest = max(node.cpus for node in have.nodes)
        raise ValueError(
            f"run.workers = {fewest} with {cpus:g} CPUs each, but only {found} fit, because the largest machine has "
            f"{largest:g} CPUs. Lower run.cpus_per_worker."
        )
    if have.at_once > 1:  # no trial takes the share of another
        most = max(fewest, min(most, int(have.cpus // cpus), have.gpus if gpu else most))
    return TrainingShare((fewest, most), cpus, gpu)


def workers_that_fit(have: Resources, cpus: float, gpu: bool) -> int:
    """Return how many workers of this size fit on the machines."""
    return sum(int(min(node.cpus // cpus, node.gpus if gpu else math.inf)) for node in have.nodes)


def equal_share(amount: float, workers: int) -> float:
    """Return the share of CPUs or GPUs that each worker may claim so that all fit: at most 1, rounded down to hundredths."""
    return max(0.01, math.floor(100 * min(1.0, amount / workers)) / 100)
