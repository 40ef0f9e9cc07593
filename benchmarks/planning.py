"""What a plan takes of one process: memory and processor time by the number of images, of files and of a drawn list."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Row
from wsss_ray.core.plugins import PLUGINS

MOST_MEMORY, MOST_MICROSECONDS = 1e9, 10.0
FEW = 1_000


@dataclass(frozen=True)
class Planning:
    """A plan of so many images: processor seconds, and the most memory in bytes."""

    images: int
    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"{self.images:,} images: {self.seconds:.2f} s, {self.memory / 1e6:,.1f} MB"

    def since(self, few: Planning) -> str:
        """What a further image takes."""
        more = self.images - few.images
        micro, size = 1e6 * (self.seconds - few.seconds) / more, (self.memory - few.memory) / more
        return f"a further image: {micro:.1f} microseconds, {size:.0f} bytes"


_TAKEN = """
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), peak)
"""
_PLAN = """
import time
from wsss_ray.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
_WRITE = """
import sys, time
from wsss_ray.config.job import load_job
from wsss_ray.engine.listing import StoredListing
from wsss_ray.storage.store import RunStore
job = load_job(sys.argv[1])
StoredListing(RunStore(job.run.store), job.plan().stages[0]).write()
"""


def planned(write: Callable[[Path], dict[str, Any]], count: int, *, listing: bool = False) -> Planning:
    """Plan a job in a process of its own, as `wsss-ray plan` does.

    Args:
        write: Makes the data in a folder, and returns the job.
        count: Number of its images.
        listing: Plan, and write the listing into the store for the workers.
    """
    with tempfile.TemporaryDirectory(prefix="wsss-plan-") as folder:
        job = Path(folder, "job.yaml")
        job.write_text(yaml.safe_dump(write(Path(folder))))
        arguments = [_WRITE + _TAKEN, str(job)] if listing else [_PLAN + _TAKEN, "plan", str(job)]
        environment = os.environ | {PLUGINS: "benchmarks.drawn"}
        done = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        seconds, memory = done.stdout.splitlines()[-1].split()
        return Planning(count, float(seconds), int(memory) * 1024)


def drawn_rows(job: Callable[[Path], dict[str, Any]], count: int) -> Iterator[Row]:
    """A plan of `count` images that are only listed, against its bounds; and the same with the listing written to the store.

    Args:
        job: Makes a job of a folder; its data is replaced.
        count: Number of images.
    """

    def drawn(images: int) -> Callable[[Path], dict[str, Any]]:
        return lambda root: job(root) | {"data": {"kind": "drawn", "count": images}}

    few, most = (planned(drawn(images), images) for images in (FEW, count))
    stored = planned(drawn(count), count, listing=True)
    what, against = f"plan of {count:,} drawn images", f"{few.memory / 1e6:,.0f} MB, {FEW:,} images"
    yield Row("7", f"{what}, peak", f"{most.memory / 1e6:,.0f} MB", against, most.memory / MOST_MEMORY, 1.0)
    each, again = (1e6 * seconds / count for seconds in (most.seconds, stored.seconds - most.seconds))
    bound = f"{MOST_MICROSECONDS:g} µs"
    yield Row("7", f"{what}, processor time of an image", f"{each:.2f} µs", bound, each / MOST_MICROSECONDS, 1.0)
    told = f"{stored.memory / 1e6:,.0f} MB"
    yield Row("7", f"{what}, and its listing written to the store, peak", told, against, stored.memory / MOST_MEMORY, 1.0)
    yield Row("7", "writing this listing, processor time of an image", f"{again:.2f} µs", bound, again / MOST_MICROSECONDS)
