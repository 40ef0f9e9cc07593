"""Run a network on the images of a shard in batches.

Threads decode the next batch while the network runs, and encode the results of the last one behind it. At most three batches of
decoded images are in memory. The size of the images and their order in the shard decide which of them share a batch, whatever
worker makes the shard. If memory runs out, batches get smaller. A batch that fails otherwise is run again image by image, so that
one bad image fails alone.
"""

from __future__ import annotations

import gc
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from wsss_ray.core.errors import in_one_line, is_machine_failure, is_out_of_memory

MOST = 32
"""Largest number of images in a batch whose size is measured."""

_OF_FREE = 0.7  # share of the usable memory that a batch may fill: fragments and work areas of libraries need the rest
_MOST_THREADS = 8
_LONGEST = 200  # characters of a reason in the log

_log = logging.getLogger("wsss_ray")

Row = dict[str, Any]


@dataclass(frozen=True)
class NetworkRow:
    """Make the row of an image in three steps. The second one runs a network, for several images at a time.

    Attributes:
        decode: Reads the image. It runs in a thread, and must not use the network.
        run: Runs the network on what `decode` returned for several images, and returns one result for each. All images of a
            shard share it.
        encode: Makes the row from what `decode` and `run` returned. It runs in a thread.
        size: Rows and columns of the image. Images of one size share batches.

    Example:
        >>> make = NetworkRow(lambda: 2, lambda items: [10 * item for item in items], lambda item, tens: {"tens": tens}, (1, 1))
        >>> make()
        {'tens': 20}
    """

    decode: Callable[[], Any]
    run: Callable[[Sequence[Any]], Sequence[Any]]
    encode: Callable[[Any, Any], Row]
    size: tuple[int, int]

    def __call__(self) -> Row:
        """Make the row of this image alone, in this thread."""
        item = self.decode()
        (result,) = self.run([item])
        return self.encode(item, result)


class BatchRunner:
    """Make the rows of many images with batches of a network.

    Args:
        stage: The name of the stage, for the log.
        device: The device of the network.
        size: Images in a batch. None measures what the first image takes on a GPU, and chooses how many fit; it is 1 on a CPU.
        share: The share of a GPU that this process may use.

    Example:
        >>> found = BatchRunner("maps", "cuda", size=8)({0: first, 1: second}, lambda places: None)
    """

    def __init__(self, stage: str, device: str, *, size: int | None = None, share: float = 1.0) -> None:
        self.stage, self.device, self.share = stage, device, share
        self.on_gpu = device.startswith("cuda")
        self.size = size if size is not None or self.on_gpu else 1
        self._told = False

    def __call__(self, makes: Mapping[int, NetworkRow], running: Callable[[Sequence[int]], None]) -> dict[int, Row | str]:
        """Make the rows of a shard.

        Args:
            makes: The images by their row in the shard.
            running: Called with the rows of each batch before the network runs on it.

        Returns:
            For each row of the shard, the row, or the reason why the image failed.

        Raises:
            Exception: what `is_machine_failure` accepts, such as too little memory for one image.
        """
        pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="images")
        try:
            return _Shard(self, makes, running, pool).rows()
        finally:
            pool.shutdown(cancel_futures=True)

    def measure(self, run: Callable[[Sequence[Any]], Sequence[Any]], item: Any) -> int:
        """Run the network on one image, on a GPU, and return how many images of this size fit into a batch."""
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run([item])
        torch.cuda.synchronize()
        each = torch.cuda.max_memory_allocated() - before
        free, total = torch.cuda.mem_get_info()
        reusable = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return images_that_fit(each, min(free + reusable, self.share * total - torch.cuda.memory_allocated()))

    def shrink(self, size: int, reason: str) -> None:
        """Halve the batches after one of `size` images failed, and say so once. Free what it has left on a GPU."""
        self.size = max(1, size // 2)
        if not self._told:
            self._told = True
            _log.warning(
                "stage %s: a batch of %d images fails: %s. Continuing with batches of %d, and smaller ones if needed.",
                self.stage,
                size,
                reason,
                self.size,
            )
        gc.collect()  # a traceback may hold tensors
        if self.on_gpu:
            import torch

            torch.cuda.empty_cache()


def images_that_fit(each: float, usable: float, most: int = MOST) -> int:
    """Return how many images a batch may have: a power of two, so that similar machines choose the same number.

    Args:
        each: Bytes that one image takes.
        usable: Bytes of memory that may be used.
        most: Largest number of images.

    Example:
        >>> images_that_fit(each=1e9, usable=20e9)
        8
    """
    count = min(most, int(_OF_FREE * usable / max(1.0, each)))
    return 1 << (count.bit_length() - 1) if count > 0 else 1


def reason_of(error: Exception) -> str:
    """Return why an image failed, for the errors of a stage."""
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


class _Shard:
    """One call of a `BatchRunner`: what is decoded ahead of the network, and what is encoded behind it."""

    def __init__(
        self,
        runner: BatchRunner,
        makes: Mapping[int, NetworkRow],
        running: Callable[[Sequence[int]], None],
        pool: ThreadPoolExecutor,
    ) -> None:
        self.runner, self.makes, self.running, self.pool = runner, makes, running, pool
        # The largest first: it is measured, and later batches need no more memory than earlier ones.
        order = sorted(makes, key=lambda place: (-makes[place].size[0] * makes[place].size[1], makes[place].size, place))
        self.waiting = deque(order)
        self.ahead: deque[tuple[int, Future[Any]]] = deque()
        self.behind: deque[list[tuple[int, Future[Row]]]] = deque()
        self.found: dict[int, Row | str] = {}

    def rows(self) -> dict[int, Row | str]:
        """Make the rows of all images."""
        while self.waiting or self.ahead:
            size = self.runner.size or 1
            self._decode(size)
            batch = [self.ahead.popleft() for _ in range(min(size, len(self.ahead)))]
            self._decode(size)
            decoded = {place: future.result() for place, future in batch if self._is_good(place, future)}
            if self.runner.size is None:
                self._measure(decoded)
                self.ahead.extendleft(one for one in reversed(batch) if one[0] not in self.found)
            elif decoded and not self._run(decoded):
                self.ahead.extendleft(one for one in reversed(batch) if one[0] in decoded)
            while len(self.behind) > 1:
                self._collect()
        while self.behind:
            self._collect()
        return self.found

    def _decode(self, count: int) -> None:
        """Begin to decode images until `count` lie ahead."""
        while self.waiting and len(self.ahead) < count:
            place = self.waiting.popleft()
            self.ahead.append((place, self.pool.submit(self.makes[place].decode)))

    def _is_good(self, place: int, future: Future[Any]) -> bool:
        """Wait for an image or a row. Note why it failed, and return False; raise what is not the image's fault."""
        error = future.exception()
        if error is None:
            return True
        if place not in self.found:
            self._fail(place, error)
        return False

    def _fail(self, place: int, error: BaseException) -> None:
        if not isinstance(error, Exception) or is_machine_failure(error):
            self.running([place])
            raise error
        self.found[place] = reason_of(error)

    def _measure(self, decoded: Mapping[int, Any]) -> None:
        for place, item in decoded.items():
            self.running([place])
            try:
                self.runner.size = self.runner.measure(self.makes[place].run, item)
            except Exception as error:  # noqa: BLE001  `_fail` raises it again unless this image is to blame
                self._fail(place, error)

    def _run(self, decoded: Mapping[int, Any]) -> bool:
        """Run the network on a batch, and begin to encode the results. Return False if it must run again in smaller batches."""
        places, size = list(decoded), len(decoded)
        self.running(places)
        results: dict[int, Any] = {}
        short, reason = False, ""
        try:
            results = dict(zip(places, self.makes[places[0]].run(list(decoded.values())), strict=True))
        except Exception as error:
            if size == 1:
                self._fail(places[0], error)
                return True
            short, reason = is_out_of_memory(error), in_one_line(error)[:_LONGEST]
            if not short and is_machine_failure(error):
                raise
        if short:  # here and not above, where the error still holds tensors
            self.runner.shrink(size, reason)
            return False
        if reason:
            results = self._one_by_one(decoded)
            if len(results) == size:  # no image is to blame
                self.runner.shrink(size, reason)
        self.behind.append(
            [(place, self.pool.submit(self.makes[place].encode, decoded[place], found)) for place, found in results.items()]
        )
        return True

    def _one_by_one(self, decoded: Mapping[int, Any]) -> dict[int, Any]:
        """Run the network on each image of a batch alone. Return the results of those that do not fail."""
        results = {}
        for place, item in decoded.items():
            self.running([place])
            try:
                (results[place],) = self.makes[place].run([item])
            except Exception as error:  # noqa: BLE001  as above
                self._fail(place, error)
        return results

    def _collect(self) -> None:
        for place, future in self.behind.popleft():
            if self._is_good(place, future):
                self.found[place] = future.result()
