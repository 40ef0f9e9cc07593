"""How many machines a job's `run` block asks for, and of which size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsss_ray.config.job import Execution

HEAD_CPUS = 4  # the head trains nothing: it reads shards and holds the driver, which take one CPU each at most times


@dataclass(frozen=True)
class Machines:
    """The worker machines: GPUs and CPUs of each, the fewest and the most of them."""

    gpus: int
    cpus: int
    fewest: int
    most: int

    @property
    def memory_gib(self) -> int:
        """Memory of a machine, in GiB."""
        return 4 * self.cpus

    @classmethod
    def of(cls, run: Execution, *, gpus_per_node: int | None = None, cpus_per_node: int | None = None) -> Machines:
        """The machines for a `run` block: a training worker per GPU, or per machine without GPUs. Raises ValueError."""
        gpus = (0 if run.gpu is False else 1) if gpus_per_node is None else gpus_per_node
        if run.gpu and not gpus:
            raise ValueError("run.gpu is true and --gpus-per-node is 0; give 1 or more, or leave run.gpu out")
        if run.gpu is False and gpus:
            raise ValueError(f"run.gpu is false and --gpus-per-node is {gpus}; give 0, or leave run.gpu out")
        places = gpus or 1
        each = run.cpus_per_worker or 1 + (run.loader_workers or 0) + run.label_workers
        needed = math.ceil(each * places) + 1  # one is held back for readers
        if cpus_per_node is not None and cpus_per_node < needed:
            raise ValueError(f"--cpus-per-node {cpus_per_node} is less than the {needed} that {places} training workers need")
        fewest, most = run.worker_range
        images = run.image_workers[1] if isinstance(run.image_workers, tuple) else run.image_workers or 0
        on_gpus = images * run.gpus_per_image_worker if gpus else 0
        return cls(
            gpus=gpus,
            cpus=cpus_per_node or max(4, needed),
            fewest=math.ceil(fewest / places),
            most=math.ceil(max(most, on_gpus) / places),
        )
