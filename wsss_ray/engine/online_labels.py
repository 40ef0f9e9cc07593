"""Make labels while a network trains (RRM): the network gives the evidence, and CPUs run the CRF beside the training.

Before step t, the network computes its maps of batch t + ahead, and label makers start on them. Then the training waits for the
labels of batch t, which were started `ahead` steps earlier. So the labels of a step depend on the step and on `ahead` only, not
on who makes them or how long it takes. Labels that are started but not used yet are part of the training's state: its checkpoints
hold them.
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

from wsss_ray.core.contracts import OnlineSegmenter
from wsss_ray.core.values import IGNORE, Batch, Evidence
from wsss_ray.engine.loop import is_distributed

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

Labels = dict[int, Tensor]
"""Map from step to label_BHW of the images of its batch, in their order; to label_BEHW if the learner makes several of each."""


class LabelMakers:
    """Make labels of images in other processes, or in this process if there is no pool.

    Args:
        learner: Makes the labels, by `online_label`.
        pool: The other processes; None for this process.
    """

    def __init__(self, learner: OnlineSegmenter, pool: ProcessPoolExecutor | None) -> None:
        self.learner, self.pool = learner, pool

    def start(self, evidence: Evidence) -> Future[LabelArray]:
        """Start to make the label of one image. The result is label_HW of its crop."""
        if self.pool is not None:
            return self.pool.submit(self.learner.online_label, evidence)
        done: Future[LabelArray] = Future()
        done.set_result(self.learner.online_label(evidence))
        return done


@contextmanager
def label_makers(learner: OnlineSegmenter, workers: int) -> Iterator[LabelMakers]:
    """Run processes that make labels, inside the `with` block.

    Args:
        learner: Makes the labels.
        workers: Number of processes; with 0 this process makes the labels.

    Example:
        >>> with label_makers(learner, workers=2) as makers:
        ...     label_HW = makers.start(evidence).result()
    """
    if not workers:
        yield LabelMakers(learner, None)
        return
    forkserver = get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=forkserver, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield LabelMakers(learner, pool)


class OnlineBatches(Iterator[list[Batch]]):
    """The batches of one worker with their labels.

    `worked` is the time in seconds that the last `next` spent on evidence, not on waiting.

    Args:
        net: The network that is being trained, which also gives the evidence.
        learner: Gives `evidence`, and `ahead`: the number of steps by which labels are started early.
        batches: The batches without labels, from step `start` on.
        makers: Make the labels.
        start: Number of steps that are done already.
        device: The device of the network.
        made: Labels of a checkpoint, by step: label_BHW of this worker's share of the batch.

    Example:
        >>> with label_makers(learner, workers=0) as makers:
        ...     online = OnlineBatches(net, learner, batches, makers, start=0, device=torch.device("cpu"), made={})
        ...     micros = next(online)  # with labels in seeds_BEHW, where E is 1
    """

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
        """Take the evidence of the batch that is `ahead` steps later, then wait for the labels of this one."""
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
        several = self.learner.online_channels > 1
        labels_of = [torch.stack([next(found) for _ in micro.ids]) for micro in micros]
        return [
            replace(micro, seeds_BEHW=label if several else label[:, None])
            for micro, label in zip(micros, labels_of, strict=True)
        ]

    def _begin(self, micros: list[Batch]) -> list[Future[LabelArray] | Tensor]:
        if self.pulled in self.made:
            return list(self.made.pop(self.pulled))
        begun: list[Future[LabelArray] | Tensor] = []
        for micro in micros:
            evidence = self.learner.evidence(self.net, micro.to(self.device))
            for row, one in enumerate(evidence):
                begun.append(self._human(micro, row) if micro.strong_B[row] else self.makers.start(one))
        return begun

    def _human(self, micro: Batch, row: int) -> Tensor:
        """Return the human mask of an image, which is its label in every channel."""
        mask_HW, channels = micro.seeds_BEHW[row, 0], self.learner.online_channels
        return mask_HW.expand(channels, *mask_HW.shape) if channels > 1 else mask_HW

    def pending(self) -> Labels:
        """Wait for the labels that are started for later steps, and return them."""
        return {step: torch.stack(_labels(*one)) for step, one in enumerate(self.waiting, start=self.step)}


def gather(mine: Labels) -> Labels:
    """Assemble the labels of global batches from those of all workers: worker r of W has every W-th image, from image r on.

    All workers must call it together. Without distributed training, the labels stay as they are.

    Args:
        mine: The labels of this worker, by step. All workers have the same steps.

    Example:
        >>> labels = gather(online.pending())
    """
    if not is_distributed():
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
    """Return label_HW (or label_EHW) of every image, with `IGNORE` where the crop goes beyond the image."""
    found = []
    places = [(micro, row) for micro in micros for row in range(len(micro.ids))]
    for (micro, row), one in zip(places, made, strict=True):
        label_HW = one if isinstance(one, Tensor) else torch.from_numpy(one.result())
        found.append(label_HW.masked_fill(~micro.valid_BHW[row], IGNORE))
    return found
