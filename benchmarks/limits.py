"""What grows beside the plan: the driver's memory by the number of shards, and a training worker's by the number of images.

    python -m benchmarks.limits [--shards 8000] [--images 4000]

The pipeline of shards has workers that do nothing. The training is only started, not run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks.measure import machine


def shards_in_ray(count: int) -> str:
    """Hand so many shard numbers through a pipeline as the runner builds it, whose workers do nothing.

    Call it in a process that has done nothing else: its peak counts.
    """
    import ray
    import ray.data

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=256 * 1024**2)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def handed(shards: int) -> tuple[float, int]:
        began = time.process_time()
        rows = ray.data.from_items([{"shard": shard} for shard in range(shards)], override_num_blocks=shards)
        done = rows.map(_Nothing, compute=ray.data.ActorPoolStrategy(size=1))
        assert sum(1 for _ in done.iter_rows()) == shards
        return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    few, most, fewer = handed(count // 8), handed(count), count // 8
    seconds, memory = ((most[place] - few[place]) / (count - fewer) for place in (0, 1))
    return f"driver, a further shard up to {count:,}: {memory / 1e3:.1f} kB, {1e3 * seconds:.1f} ms of processor time"


class _Nothing:
    """A worker that makes nothing."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row."""
        return row | {"images": 0}


def places_in_training(count: int) -> str:
    """Start a training's dataset on so many images in this process."""
    from tests.local import job_of, run_stage, stage_named
    from tests.shapes import tiny_job
    from wsss_ray.core.contracts import Learner
    from wsss_ray.engine.loader import ShardedImages
    from wsss_ray.storage.store import RunStore

    with tempfile.TemporaryDirectory(prefix="wsss-limits-") as folder:
        store = RunStore(str(Path(folder)))
        plan = job_of(tiny_job(data={"kind": "shapes", "train": count, "shard_size": 128})).plan()
        run_stage(store, plan.stages[0])
        stage = stage_named(plan, "classifier")
        assert isinstance(stage.component, Learner)
        began = time.process_time()
        ShardedImages(store, stage, stage.component.augment, 3)
        seconds = (time.process_time() - began) / count
        tracemalloc.start()
        images = ShardedImages(store, stage, stage.component.augment, 3)
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(images) == count
        kept = f"{held / count:.0f} bytes, {most / count:.0f} while it starts, {1e6 * seconds:.0f} microseconds of processor time"
        return f"training worker, an image of {count:,}: {kept}"


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8000, help="shards of the pipeline; 0 to leave it out")
    parser.add_argument("--images", type=int, default=4000, help="images of the training; 0 to leave it out")
    options = parser.parse_args()
    print(machine(), "", sep="\n", flush=True)
    if options.shards:
        print(shards_in_ray(options.shards), flush=True)
    if options.images:
        print(places_in_training(options.images), flush=True)


if __name__ == "__main__":
    main()
