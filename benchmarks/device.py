"""Measure a device: seconds of work on it, the share of them in which it is busy, and its limits.

Every function takes the device, so that the same code runs on a CPU at tiny sizes in the tests.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch


@dataclass(frozen=True)
class Size:
    """Sizes of one table. `seconds` is how long a figure is measured at most, after a warm-up."""

    side: int
    selections: int
    crf: tuple[int, int]
    copy_bytes: int
    product: int
    seconds: float
    steps: int
    tiny: bool = False


FULL = Size(side=321, selections=200, crf=(375, 500), copy_bytes=2**30, product=8192, seconds=3.0, steps=10)
TINY = Size(side=33, selections=4, crf=(30, 40), copy_bytes=2**20, product=64, seconds=0.0, steps=2, tiny=True)


@dataclass(frozen=True)
class Limits:
    """The most that the device was seen to do: bytes that a copy reads and writes, and operations of a product, per second."""

    copied: float
    float32: float
    tf32: float
    bfloat16: float


@dataclass(frozen=True)
class Line:
    """One line of the table. `busy` and `of_limit` are shares, None where they were not measured."""

    what: str
    figure: str
    one_core: str = ""
    ratio: float | None = None
    busy: float | None = None
    of_limit: float | None = None

    def __str__(self) -> str:
        shares = [f"{share:.0%}" if share is not None else "" for share in (self.busy, self.of_limit)]
        ratio = f"{self.ratio:.3g}" if self.ratio is not None else ""
        return f"| {self.what} | {self.figure} | {self.one_core} | {ratio} | {shares[0]} | {shares[1]} |"


HEAD = "| what | on the device | on one core | ratio | device busy | of its limit |\n|---|---|---|---|---|---|"


def finish(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: torch.device, *, most: float, warm: int = 2, least: int = 3) -> float:
    """The median time of some work with its end: runs for about `most` seconds, and at least `least` of them."""
    for _ in range(warm):
        work()
    finish(device)
    times: list[float] = []
    while len(times) < least or sum(times) < most:
        began = time.perf_counter()
        work()
        finish(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def busy_share(work: Callable[[], object], device: torch.device) -> float | None:
    """The share of the time from the first to the last kernel in which one runs; None without a GPU."""
    if device.type != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    finish(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        finish(device)
    kernels = [event.time_range for event in seen.events() or () if event.device_type == DeviceType.CUDA]
    return share_covered((kernel.start, kernel.end) for kernel in kernels)


def share_covered(spans: Iterable[tuple[float, float]]) -> float | None:
    """The share of the time from the earliest start to the latest end that some span covers; None without spans.

    Example:
        >>> share_covered([(0, 2), (1, 3), (7, 10)])
        0.6
    """
    ordered = sorted(spans)
    if not ordered:
        return None
    covered, reached = 0.0, ordered[0][0]
    for start, end in ordered:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - ordered[0][0]) if reached > ordered[0][0] else None


@contextmanager
def one_core() -> Iterator[torch.device]:
    """Run torch on one thread of the CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield torch.device("cpu")
    finally:
        torch.set_num_threads(threads)


def limits(device: torch.device, size: Size) -> tuple[Limits, list[Line]]:
    """Measure the limits of the device, and the copies between it and the host."""
    lines = []
    source = torch.empty(size.copy_bytes, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copied = 2 * size.copy_bytes / seconds_of(lambda: target.copy_(source), device, most=size.seconds / 3)
    lines.append(Line(f"copy of {size.copy_bytes / 2**20:.0f} MiB on the device, read and written", f"{copied / 1e9:.4g} GB/s"))
    host = torch.empty(size.copy_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for way, into, out_of in (("to", target, host), ("from", host, target)):
        work = partial(into.copy_, out_of, non_blocking=True)
        speed = size.copy_bytes / seconds_of(work, device, most=size.seconds / 3)
        lines.append(Line(f"copy {way} the device, pinned memory", f"{speed / 1e9:.4g} GB/s"))
    rates = []
    for name, dtype in (("float32", torch.float32), ("TF32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(size.product, size.product, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, name == "TF32"
        try:
            rate = 2 * size.product**3 / seconds_of(partial(torch.matmul, a, b), device, most=size.seconds / 3)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        rates.append(rate)
        lines.append(Line(f"product of two matrices of {size.product}, {name}", f"{rate / 1e12:.4g} TFLOP/s"))
    return Limits(copied, *rates), lines
