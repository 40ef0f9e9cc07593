"""Labels made while a network trains (RRM): what they rest on comes from the network, the CRF runs on CPUs beside the training.

Before step t the network's maps of batch t + ahead are taken and handed to the label makers; then the labels of batch t, taken
`ahead` steps earlier, are waited for. So the labels of a step are a function of the step and of `ahead`, whoever makes them and
however long it takes. Labels that are made and not yet used belong to the state of the training and go into its checkpoints.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsss_ray.core.contracts import IGNORE, Batch, Evidence, OnlineSegmenter

if TYPE_CHECKING:
    from wsss_ray.core.contracts import LabelArray

Labels = dict[int, Tensor]
"""Step -> label_BHW of the images of its batch, in their order."""


class LabelMakers:
    """Makes labels of images: in other processes, or at once in this one where there are none."""

    def __init__(self, learner: OnlineSegmenter, pool: ProcessPoolExecutor | None) -> None:
        self.learner, self.pool = learner, pool

    def start(self, evidence: Evidence) -> Future[LabelArray]:
        """Begin with one image."""
        if self.pool is not None:
            return self.pool.submit(self.learner.online_label, evidence)
        done: Future[LabelArray] = Future()
        done.set_result(self.learner.online_label(evidence))
        return done


@contextmanager
def label_makers(learner: OnlineSegmenter, workers: int) -> Iterator[LabelMakers]:
    """`workers` processes that make labels, or none (0)."""
    if not workers:
        yield LabelMakers(learner, None)
        return
    forkserver = get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=forkserver, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield LabelMakers(learner, pool)


class OnlineBatches(Iterator[list[Batch]]):
    """The batches of one worker, their labels in place. `worked`: seconds of the last `next` that the network was busy."""

    def __init__(
        self,
        net: nn.Module,
        learner: OnlineSegmenter,
        batches: Iterator[list[Batch]],
        makers: LabelMakers,
        *,
        start: int,
        device: torch.device,
        made: Mapping[int, Tensor],
    ) -> None:
        self.net, self.learner, self.batches, self.makers, self.device = net, learner, batches, makers, device
        self.made, self.pulled, self.step, self.worked = dict(made), start, start, 0.0
        self.waiting: deque[tuple[list[Batch], list[Future[LabelArray] | Tensor]]] = deque()

    def __next__(self) -> list[Batch]:
        """Take the evidence of the batch `ahead` of this one, then wait for this one's labels."""
        self.worked = 0.0
        while self.pulled <= self.step + self.learner.ahead:
            micros = next(self.batches, None)
            if micros is None:
                break
            began = time.perf_counter()
            self.waiting.append((micros, self._begin(micros)))
            self.worked += time.perf_counter() - began
            self.pulled += 1
        if not self.waiting:
            raise StopIteration
        micros, labels = self.waiting.popleft()
        self.step += 1
        found = iter(_labels(micros, labels))
        return [replace(micro, seeds_BEHW=torch.stack([next(found) for _ in micro.ids])[:, None]) for micro in micros]

    def _begin(self, micros: list[Batch]) -> list[Future[LabelArray] | Tensor]:
        if self.pulled in self.made:
            return list(self.made.pop(self.pulled))
        begun: list[Future[LabelArray] | Tensor] = []
        for micro in micros:
            evidence = self.learner.evidence(self.net, micro.to(self.device))
            for row, one in enumerate(evidence):  # an image with a human mask needs no other label
                begun.append(micro.seeds_BEHW[row, 0] if micro.strong_B[row] else self.makers.start(one))
        return begun

    def pending(self) -> Labels:
        """The labels of the steps to come, as far as they are begun."""
        return {step: torch.stack(_labels(*one)) for step, one in enumerate(self.waiting, start=self.step)}


def gather(mine: Labels) -> Labels:
    """The labels of the global batch from those of every worker: worker r of W has every W-th of its images."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    whole: Labels = {}
    for step in mine:
        size = sum(len(part[step]) for part in parts)
        whole[step] = torch.empty((size, *mine[step].shape[1:]), dtype=torch.uint8)
        for rank, part in enumerate(parts):
            whole[step][rank :: len(parts)] = part[step]
    return whole


def _labels(micros: list[Batch], made: list[Future[LabelArray] | Tensor]) -> list[Tensor]:
    """Label_HW of every image: its human mask where it has one, nothing outside the image."""
    found = []
    places = [(micro, row) for micro in micros for row in range(len(micro.ids))]
    for (micro, row), one in zip(places, made, strict=True):
        label_HW = one if isinstance(one, Tensor) else torch.from_numpy(one.result())
        found.append(label_HW.masked_fill(~micro.valid_BHW[row], IGNORE))
    return found
