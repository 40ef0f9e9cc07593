"""Count the machines that a job's `run` block asks for, and choose their size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsss_ray.config.run import Execution


@dataclass(frozen=True)
class Machines:
    """Describe machines of one size.

    Attributes:
        gpus: GPUs of each.
        cpus: CPUs of each.
        fewest: The number of machines to begin with.
        most: The number of machines that there may be.
    """

    gpus: int
    cpus: int
    fewest: int
    most: int

    @property
    def memory_gib(self) -> int:
        """Give the memory of a machine in GiB: 4 GiB for every CPU."""
        return 4 * self.cpus

    @classmethod
    def of(cls, run: Execution, *, gpus_per_node: int | None = None, cpus_per_node: int | None = None) -> Machines:
        """Choose the worker machines for a `run` block: a training worker per GPU, or per machine without GPUs.

        Args:
            run: The block.
            gpus_per_node: GPUs of each machine. None is 1, or 0 if `run.gpu` is false.
            cpus_per_node: CPUs of each machine. None is what the job's processes take.

        Returns:
            The machines.

        Raises:
            ValueError: if `run.gpu` contradicts `gpus_per_node`, or the CPUs are too few.
        """
        gpus = (0 if run.gpu is False else 1) if gpus_per_node is None else gpus_per_node
        if run.gpu and not gpus:
            raise ValueError("run.gpu is true and --gpus-per-node is 0; give 1 or more, or leave run.gpu out")
        if run.gpu is False and gpus:
            raise ValueError(f"run.gpu is false and --gpus-per-node is {gpus}; give 0, or leave run.gpu out")
        places = gpus or 1
        each = run.cpus_per_worker or 1 + (run.loader_workers or 0) + run.label_workers
        needed = math.ceil(each * places) + 1  # one is held back for readers
        if cpus_per_node is not None and cpus_per_node < needed:
            needs = f"the {needed} that {places} training workers need"
            raise ValueError(f"--cpus-per-node {cpus_per_node} is less than {needs}; give at least {needed}")
        fewest, most = run.worker_range
        _, most_images = run.image_worker_range or (0, 0)
        on_gpus = most_images * run.gpus_per_image_worker if gpus else 0
        return cls(
            gpus=gpus,
            cpus=cpus_per_node or max(4, needed),
            fewest=math.ceil(fewest / places),
            most=math.ceil(max(most, on_gpus) / places),
        )


# The head trains nothing: it reads shards and holds the driver, which take one CPU each at most times.
HEAD = Machines(gpus=0, cpus=4, fewest=1, most=1)
