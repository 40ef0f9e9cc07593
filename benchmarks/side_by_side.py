"""Measure whether several processes on one device make more images per second than one: `run.gpus_per_image_worker`."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from queue import Empty

import torch

from benchmarks.device import Line, Size
from benchmarks.device_table import finder, per_second, trunks

_START_S = 120.0


def processes(name: str, device: torch.device, size: Size) -> Line:
    """Images per second of FickleNet's maps by one process, by two and by four, each with a network of its own."""
    rates = {count: _rate(name, device, size, count) for count in ((1, 2) if size.tiny else (1, 2, 4))}
    best = max(rates, key=lambda count: rates[count])
    figure = "; ".join(f"{count}: {per_second(rate) if rate else 'none, a process ended'}" for count, rate in rates.items())
    what = f"localize, {name}, processes side by side (most with {best}: run.gpus_per_image_worker = {1 / best:g})"
    return Line(what, figure, ratio=rates[best] / rates[1] if rates[1] else None)


def _rate(name: str, device: torch.device, size: Size, count: int) -> float:
    """Return the images per second of all processes together; 0 if one of them ends, as without memory."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(count), context.Queue()
    children = [context.Process(target=_work, args=(name, device.type, size, barrier, rates)) for _ in range(count)]
    for child in children:
        child.start()
    try:
        return sum(rates.get(timeout=_START_S + 10 * size.seconds) for _ in children)
    except Empty:
        return 0.0
    finally:
        for child in children:
            child.join(timeout=10)
            child.kill()


def _work(name: str, device: str, size: Size, barrier: Barrier, rates: Queue[float]) -> None:
    """Localize one image again and again, from when all processes are ready."""
    torch.set_num_threads(1)
    work = finder(trunks(size)[name], size)(torch.device(device))
    work()
    barrier.wait(timeout=_START_S)
    began, done = time.perf_counter(), 0
    while done < 2 or time.perf_counter() - began < size.seconds:
        work()  # its result lies on the host, so the device has finished
        done += 1
    rates.put(done / (time.perf_counter() - began))
