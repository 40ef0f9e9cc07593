"""Run the training loop: take batches, train, and yield the result of each step. Plain torch: no Ray, no I/O."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from wsss_ray.core.contracts import Learner
from wsss_ray.core.values import Batch
from wsss_ray.nets.frozen import give_features
from wsss_ray.nets.modules import unwrapped


@dataclass(frozen=True)
class Step:
    """The result of one optimiser step.

    Attributes:
        step: Number of steps done so far, this one included.
        epoch: Passes over the data so far.
        terms: Loss terms by name, each averaged over the global batch.
        lr: Learning rate of the first group of parameters.
        seconds: Duration of the step.
        waited: The part of `seconds` in which this worker waited for images or for online labels.
    """

    step: int
    epoch: float
    terms: dict[str, float]
    lr: float
    seconds: float
    waited: float

    @property
    def loss(self) -> float:
        """Return the sum of the terms, which is minimised."""
        return sum(self.terms.values())


def is_distributed() -> bool:
    """Return True if this process is one of the workers of a distributed training."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


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
    """Train from step `start` to `total`.

    The gradient is that of the mean loss over the global batch, for any split into workers and micro-batches. The copy of the
    losses to the host starts before the last backward pass and is awaited after it, so that the GPU has work in the meantime.

    Args:
        net: The network, wrapped for distributed training if there are several workers.
        learner: Gives the loss, the schedule and the size of the global batch.
        optimizer: The optimiser. Each of its groups has a `base_lr`, which the schedule multiplies.
        batches: Gives one list of micro-batches per step: this worker's share of the global batch.
        start: Number of steps that are done already.
        total: Number of steps of the whole training.
        num_images: Number of training images.
        device: The device of the network.

    Yields:
        The result of each step, after the weights have changed and `Learner.after_step` has run.

    Raises:
        FloatingPointError: if a loss is not finite. The optimiser step is then not taken.

    Example:
        >>> steps = fit(net, learner, optimizer, batches, start=0, total=2, num_images=100, device=torch.device("cpu"))
        >>> [step.step for step in steps]
        [1, 2]
    """
    distributed = is_distributed()
    world = torch.distributed.get_world_size() if distributed else 1
    per_epoch = num_images / learner.batch_size
    totals = _Totals(device, distributed)
    net.train()
    ready = time.perf_counter()
    for step, micros in zip(range(start, total), batches, strict=False):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learner.schedule.factor(step, total, per_epoch)
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        read: Callable[[], dict[str, float]] = dict
        for index, micro in enumerate(micros):
            batch, last = micro.to(device), index == len(micros) - 1
            with nullcontext() if last or not hasattr(net, "no_sync") else net.no_sync():  # type: ignore[operator]
                give_features(unwrapped(net), batch.image_BCHW, batch.features_BCHW)
                terms = {name: term_B.sum() for name, term_B in learner.loss(net, batch).items()}
                for name, term in terms.items():
                    sums[name] = sums[name] + term.detach() if name in sums else term.detach()
                if last:
                    read = totals.begin(sums)
                mean = torch.stack(list(terms.values())).sum() / learner.batch_size
                (mean * world).backward()  # type: ignore[no-untyped-call]
        losses = {name: total / learner.batch_size for name, total in read().items()}
        if not all(math.isfinite(value) for value in losses.values()):
            images = ", ".join(image_id for micro in micros for image_id in micro.ids[:3])
            raise FloatingPointError(
                f"loss is not finite at step {step} ({losses}); images of this worker's batch: {images} ...; "
                "lower optimizer.lr, or look at these images"
            )
        optimizer.step()
        with torch.no_grad():
            learner.after_step(unwrapped(net), (step + 1) / total)
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


class _Totals:
    """Sum the loss terms over all workers, with one small message per step.

    Workers may have different terms (one without strong images lacks theirs). So all keep the same list of the names seen. The
    message of a worker holds how many of its names are not in the list, and for each name in the list whether it has the term,
    and its sum. If a name is new, all workers add it to the list and send again.
    """

    def __init__(self, device: torch.device, distributed: bool) -> None:
        self.device, self.distributed = device, distributed
        self.names: list[str] = []
        self._flags: dict[tuple[float, ...], torch.Tensor] = {}

    def begin(self, sums: dict[str, torch.Tensor]) -> Callable[[], dict[str, float]]:
        """Send this worker's sums. The returned function waits for the totals. All workers must call both."""
        if not self.distributed:
            values = _to_host(torch.stack(list(sums.values())).double())
            return lambda: dict(zip(sums, values(), strict=True))
        message = self._message(sums)
        return lambda: self._finish(sums, message())

    def _message(self, sums: dict[str, torch.Tensor]) -> Callable[[], list[float]]:
        zero = torch.zeros((), device=self.device)
        flags = (float(len(sums.keys() - set(self.names))), *(float(name in sums) for name in self.names))
        if flags not in self._flags:  # cached: a copy of a new tensor to the GPU would make the host wait
            self._flags[flags] = torch.tensor(flags, dtype=torch.float64, device=self.device)
        parts = [self._flags[flags], *(sums.get(name, zero).double()[None] for name in self.names)]
        message = torch.cat(parts)
        torch.distributed.all_reduce(message)
        return _to_host(message)

    def _finish(self, sums: dict[str, torch.Tensor], values: list[float]) -> dict[str, float]:
        if values[0]:
            found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(found, list(sums))
            self.names = sorted({*self.names, *(name for names in found for name in names)})
            values = self._message(sums)()
        have, totals = values[1 : len(self.names) + 1], values[len(self.names) + 1 :]
        return {name: total for name, held, total in zip(self.names, have, totals, strict=True) if held}


def _to_host(row: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to copy a row of numbers to the host. The returned function waits for this copy, not for later work of the GPU."""
    if row.device.type != "cuda":
        return row.tolist
    host = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
    host.copy_(row, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> list[float]:
        copied.synchronize()
        return list(host.tolist())

    return wait
