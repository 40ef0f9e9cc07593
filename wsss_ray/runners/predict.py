"""Predict many images: in this process, on a private Ray if that saves time, or on the machines of a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from wsss_ray.config.resources import Resources, equal_share
from wsss_ray.inference.batch import Failure, Part, Prediction, PredictWorker, part_as_text, part_of_text, run_here
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.cluster import ray_session

_START_S = 30.0
"""Seconds until the workers of a private Ray have loaded the network; docs/predict.md has the measurements."""


class PredictOperator:
    """A `PredictWorker` as a Ray Data operator."""

    def __init__(self, work: Prediction, device: str) -> None:
        self.worker = PredictWorker(work, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict the part that the row holds."""
        part = part_of_text(row["part"])
        return {"images": len(part.images), "failures": json.dumps(self.worker(part))}


def predict(work: Prediction, parts: Sequence[Part], display: Display, *, workers: int | None = None) -> list[Failure]:
    """Predict all parts.

    If RAY_ADDRESS is set, the machines of that cluster share the parts. Otherwise, `workers` above 1 start a private Ray, and a
    single worker is this process. If `workers` is None, this process begins, and starts a private Ray with a worker per core or
    GPU once the speed of the first parts shows that this saves more time than Ray takes to start.

    Args:
        work: Model, output folder and format.
        parts: Images, in the parts that one worker takes at a time.
        display: Shows progress.
        workers: Number of processes; None chooses it.

    Returns:
        The images that failed, each with the reason.

    Raises:
        ValueError: if a worker cannot load the model, or does not see the output folder.
        OSError: if nothing can be written.
        Exception: Ray's own errors, with one of the above as their cause.

    Example:
        >>> out = Path("labels")
        >>> work, parts = begin(Prediction(find_trained("pets"), out, "voc"), list_images(["photos"], out=out))
        >>> predict(work, parts, Display(), workers=1)
        []
    """
    if not parts:
        return []
    total = sum(len(part.images) for part in parts)
    failures: list[Failure] = []
    with display.meters():
        meter = display.meter("predict", total, "images")
        rest = list(parts)
        if "RAY_ADDRESS" not in os.environ and workers in (None, 1):
            worker, spent, seen = PredictWorker(work), 0.0, 0
            most = _processes() if workers is None else 1
            for part, failed, seconds in run_here(worker, parts):
                rest.pop(0)
                failures += failed
                spent, seen = spent + seconds, seen + len(part.images)
                meter.add(len(part.images))
                alone = (total - seen) * spent / seen
                if alone * (1 - 1 / most) > 2 * _START_S:
                    display.say(
                        f"{total - seen} images left, {alone:.0f} s by this process alone: on with {most} workers on a private "
                        "Ray (--workers 1 stays here)"
                    )
                    workers = most
                    break
        if rest:
            with ray_session(needs_cpus=workers or 0) as have:
                failures += _on_ray(work, rest, have, meter, workers=workers)
    return failures


def _processes() -> int:
    """Return the number of GPUs, or of cores if there is no GPU."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def _on_ray(work: Prediction, parts: Sequence[Part], have: Resources, meter: Any, *, workers: int | None) -> list[Failure]:
    import ray.data
    from ray.data import ActorPoolStrategy

    fit = max(1, have.gpus or int(have.cpus))
    most = min(workers or (len(parts) if have.grows else fit), len(parts))
    fewest = min(workers or 1, most)
    scaling = ray.data.DataContext.get_current().autoscaling_config
    scaling.actor_pool_util_upscaling_threshold = 1.75  # see runners/shards.py
    dataset = ray.data.from_items([{"part": part_as_text(part)} for part in parts], override_num_blocks=len(parts)).map(
        PredictOperator,
        fn_constructor_kwargs={"work": work, "device": "cuda" if have.gpus else "cpu"},
        compute=ActorPoolStrategy(
            min_size=fewest, max_size=most, initial_size=max(fewest, min(fit, most)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=equal_share(have.cpus, max(fit, fewest)),
        num_gpus=equal_share(have.gpus, fewest) if have.gpus else 0,
    )
    failures: list[Failure] = []
    for row in dataset.iter_rows():
        meter.add(row["images"])
        failures += [(path, reason) for path, reason in json.loads(row["failures"])]
    return failures
