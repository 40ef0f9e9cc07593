"""The training loop. Plain torch, no Ray, no I/O: it takes batches and yields what happened, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from wsss_ray.contracts import Batch, Learner


@dataclass(frozen=True)
class Step:
    """One optimiser step: losses averaged over the global batch, `step` steps done so far.

    `waited`: seconds of them that nothing was computed here, for want of images or of labels made online.
    """

    step: int
    epoch: float
    terms: dict[str, float]
    lr: float
    seconds: float
    waited: float

    @property
    def loss(self) -> float:
        """The sum of the terms: what was minimised."""
        return sum(self.terms.values())


def fit(
    net: nn.Module,
    learner: Learner,
    optimizer: Optimizer,
    batches: Iterable[list[Batch]],
    *,
    start: int,
    total: int,
    num_images: int,
    device: torch.device,
) -> Iterator[Step]:
    """Train from step `start` to `total`; `batches` gives one list of micro-batches per step.

    The gradient is that of the mean over the global batch, whatever its split into workers and micro-batches. Raises
    FloatingPointError on a loss that is not finite, before the step is taken.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    world = torch.distributed.get_world_size() if distributed else 1
    per_epoch = num_images / learner.batch_size
    net.train()
    ready = time.perf_counter()
    for step, micros in zip(range(start, total), batches, strict=False):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learner.schedule.factor(step, total, per_epoch)
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for index, micro in enumerate(micros):
            batch = micro.to(device)
            synchronise = index == len(micros) - 1 or not hasattr(net, "no_sync")
            with nullcontext() if synchronise else net.no_sync():  # type: ignore[operator]
                terms = learner.loss(net, batch)
                mean = torch.stack([term_B.sum() for term_B in terms.values()]).sum() / learner.batch_size
                (mean * world).backward()  # type: ignore[no-untyped-call]
            for name, term_B in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + term_B.detach().sum()
        losses = _average(sums, learner.batch_size, distributed)
        if not all(math.isfinite(value) for value in losses.values()):
            images = ", ".join(image_id for micro in micros for image_id in micro.ids[:3])
            raise FloatingPointError(
                f"loss is not finite at step {step} ({losses}); images of this worker's batch: {images} ...; "
                "lower optimizer.lr, or look at these images"
            )
        optimizer.step()
        now = time.perf_counter()
        yield Step(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            terms=losses,
            lr=optimizer.param_groups[0]["lr"],
            seconds=now - ready,
            waited=began - ready - getattr(batches, "worked", 0.0),
        )
        ready = time.perf_counter()


def _average(sums: dict[str, torch.Tensor], batch_size: int, distributed: bool) -> dict[str, float]:
    """Loss terms averaged over the global batch. Workers may differ in the terms they have (no strong image in a share)."""
    if not distributed:
        return {name: float(value) / batch_size for name, value in sums.items()}
    gathered: list[dict[str, float] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, {name: float(value) for name, value in sums.items()})
    parts = [part for part in gathered if part is not None]
    names = sorted({name for part in parts for name in part})
    return {name: sum(part.get(name, 0.0) for part in parts) / batch_size for name in names}
