"""What every benchmark shares: forms timed in turns within one run, and rows of one table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one piece of work in several runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of them."""
        return statistics.median(self.seconds)

    def times(self, factor: float) -> Timing:
        """The time of `factor` times the work, for what is too long to be run as often."""
        return Timing(tuple(factor * one for one in self.seconds))

    def __str__(self) -> str:
        unit, scale = ("s", 1.0) if self.median >= 0.1 else ("ms", 1e3)
        text = f"{scale * self.median:.3g} {unit}"
        spread = f" ({scale * min(self.seconds):.3g} to {scale * max(self.seconds):.3g})"
        return text + (spread if len(self.seconds) > 1 else "")


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it is held against, and whether the goal is met.

    `ratio` is compared with `bound`: at most that, or at least that if `more` is better. Without a bound it is for information.
    """

    goal: str
    what: str
    ours: str
    baseline: str
    ratio: float
    bound: float | None = None
    more: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.more else self.ratio <= self.bound

    def __str__(self) -> str:
        wanted = "" if self.bound is None else f"{'at least' if self.more else 'at most'} {self.bound:g}"
        verdict = {None: "", True: "met", False: "**not met**"}[self.met]
        return f"| {self.goal} | {self.what} | {self.ours} | {self.baseline} | {self.ratio:.3g} | {wanted} | {verdict} |"


HEAD = "| goal | what | here | held against | ratio | goal's bound | |\n|---|---|---|---|---|---|---|"


def in_turns(forms: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 1) -> dict[str, Timing]:
    """Time each form once per round, one after another, so that a busy machine slows all alike; `warm` rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(warm + rounds):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def machine() -> str:
    """The machine and the versions, a line each."""
    model = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    packages = ("torch", "numpy", "numba", "ray", "pydensecrf2", "pyarrow")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except ModuleNotFoundError:
            versions.append(f"no {package}")
    load = f"load {os.getloadavg()[0]:.1f} as it began"
    return f"{model}, {os.cpu_count()} cores, {gpu}, {load}; Python {platform.python_version()}, {', '.join(versions)}"


def table(rows: Iterable[Row]) -> str:
    """Rows as Markdown."""
    return "\n".join([HEAD, *map(str, rows)])
