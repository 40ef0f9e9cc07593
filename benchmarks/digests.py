"""What the digests of files cost: the share of their SHA-256 in the time of a training and of a seed generation.

    python -m benchmarks --only digests [--full]

The job is that of `frozen`, with kept features and a checkpoint every 200 steps, the default. Every call of hashlib.sha256 is
timed: for files that are written, inputs that are read whole, and images that are packed. One core, in processor time.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.frozen import FULL, SEEDS, job_spec
from benchmarks.measure import Row
from benchmarks.seeds import Size, photographs
from tests.local import job_of, run_stage
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.storage.store import RunStore

SMALL = Size(100, 240, 320, 16, 1.0, 256, 200)  # with fewer, a training is as short as the writing of its one checkpoint
BOUND, EVERY = 0.02, 200  # steps between checkpoints, the default


class Timed:
    """hashlib.sha256, and the processor seconds and bytes that it took."""

    def __init__(self, sha256: Callable[..., Any]) -> None:
        self.sha256, self.seconds, self.bytes = sha256, 0.0, 0

    def __call__(self, data: Any = b"", **options: Any) -> Any:
        """Compute as hashlib does."""
        began = time.process_time()
        made = self.sha256(data, **options)
        self.seconds += time.process_time() - began
        self.bytes += memoryview(data).nbytes
        return made


def rows(full: bool) -> Iterator[Row]:
    """The share of digests in the stages' processor seconds."""
    size = FULL if full else SMALL
    found: dict[str, tuple[float, float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root, size)
        warm, store = RunStore(str(root / "warm")), RunStore(str(root / "store"))
        for stage in _up_to_seeds(job_of(job_spec(root, size, "fused", steps=2)).plan()):
            run_stage(warm, stage, micro_batch=20, checkpoint_every=EVERY)
        for stage in _up_to_seeds(job_of(job_spec(root, size, "fused")).plan()):
            timed, began = Timed(hashlib.sha256), time.process_time()
            with patch.object(hashlib, "sha256", timed):
                run_stage(store, stage, micro_batch=20, checkpoint_every=EVERY)
            found[stage.name] = (time.process_time() - began, timed.seconds, timed.bytes)
    images = f"{size.images} photographs of {size.width} x {size.height}, one core"
    parts = {"seed generation": ("features", *SEEDS), "training of the classifier, 8 epochs": ("classifier",)}
    for what, names in parts.items():
        taken, spent, hashed = (sum(found[name][place] for name in names) for place in range(3))
        yield Row(
            "digests", f"{what}: {images}", f"{1e3 * spent:.0f} ms, {hashed / 1e6:.0f} MB", f"{taken:.1f} s", spent / taken, BOUND
        )


def _up_to_seeds(plan: Plan) -> list[Stage]:
    stages = list(plan)
    return stages[: 1 + max(place for place, stage in enumerate(stages) if stage.name in SEEDS)]
