"""Scale: memory and cost per image as the number of images grows, and what one image takes on disk and in processor time.

    python -m benchmarks.scale [--full] [--sizes 1000 10000] [--drawn 200000] [--plans 100000] [--photographs 16]

The first part submits a job as `jobs/seeds.yaml` (ingest, a tiny untrained classifier, localization maps, seeds, their score) on
folders of 32 x 32 images, each run in a process of its own, and watches its processes in /proc. The second plans a job of a list
without files, the third one of such a folder. The fourth makes shards of 500 x 375 photographs with VGG16 in this process, on one
core. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.measure import HEAD, Row, machine
from benchmarks.planning import FEW, drawn_rows, planned
from benchmarks.processes import Watch
from wsss_ray.storage.shards import shard_path

SMALL, FULL = (1_000, 3_000, 5_000), (1_000, 10_000, 100_000)
DRAWN = 200_000, 10_000_000  # images of the drawn list: small, full
MB = 1e6
CAP = 256 * 1024**2  # bytes that a private Ray gives its object store
_STAGES = ("images-weak", "maps", "seeds", "seed_quality")


def tiny_method(*, widths: list[int], size: int, selections: int) -> dict[str, Any]:
    """Seeds of an untrained network that takes next to nothing."""
    return {
        "name": "seeds",
        "classifier": {
            "kind": "stochastic_classifier",
            "steps": 0,
            "trunk": {"kind": "small_net", "widths": widths, "strides": [2, 2]},
            "kernel_size": 3,
            "augment": {"kind": "random_crop", "size": size},
        },
        "localizer": {"kind": "stochastic_grad_cam", "selections": selections, "size": None},
        "seed_rule": {"kind": "threshold_seeds", "background": {"kind": "cam_background", "threshold": 0.2}, "crf": None},
    }


def tiny_job(root: Path) -> dict[str, Any]:
    """A job over the images of `written`."""
    return {
        "name": "scale",
        "method": tiny_method(widths=[8, 16], size=32, selections=2),
        "data": {"kind": "folder", "root": f"{root}/images", "tags": f"{root}/tags.csv", "masks": f"{root}/masks"},
        "run": {"store": f"{root}/runs"},
    }


def written(root: Path, count: int) -> Path:
    """A folder with a job and its 32 x 32 images with tags and masks, of 64 contents."""
    (root / "job.yaml").write_text(yaml.safe_dump(tiny_job(root)))
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    contents = []
    for place in range(64):
        mask_HW = np.zeros((32, 32), np.uint8)
        mask_HW[8:24, 4 + place % 8 : 20] = 1 + place % 3
        image_HWC = rng.integers(90, 150, (32, 32, 3)).astype(np.uint8)
        image_HWC[mask_HW > 0, place % 3] = 220
        contents.append((encoded(image_HWC, "PNG"), encoded(mask_HW, "PNG"), ("bar", "disc", "square")[place % 3]))
    with (root / "tags.csv").open("w") as table:
        table.write("image,tags\n")
        for number in range(count):
            image, mask, tag = contents[number % 64]
            (root / "images" / f"{number:08d}.png").write_bytes(image)
            (root / "masks" / f"{number:08d}.png").write_bytes(mask)
            table.write(f"{number:08d}.png,{tag}\n")
    return root


def encoded(pixels: np.ndarray, form: str) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()


@dataclass(frozen=True)
class Run:
    """One submit: bytes of the driver, the largest worker and the object store at their most; processor and wall seconds."""

    images: int
    driver: int
    worker: int
    store: int
    processor_s: float
    wall_s: float
    stages: dict[str, float]


def submitted(count: int) -> Run:
    """Make the images, submit the job, watch it. Raises RuntimeError with its output if it fails."""
    with tempfile.TemporaryDirectory(prefix="wsss-scale-") as folder:
        root = written(Path(folder), count)
        command = [sys.executable, "-m", "wsss_ray", "submit", str(root / "job.yaml")]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            watch = Watch(process.pid)
            thread = threading.Thread(target=watch.until_over)
            thread.start()
            output, _ = process.communicate()
            watch.over.set()
            thread.join()
        wall = time.perf_counter() - began
        if process.returncode:
            raise RuntimeError(output)
        records = [json.loads(path.read_text()) for path in root.glob("runs/stages/*/record.json")]
        stages = {record["name"]: record["seconds"] for record in records}
        assert all(record["counts"].get("images", count) == count for record in records)
        return Run(count, watch.driver, watch.worker, watch.store, sum(watch.seconds.values()), wall, stages)


def measured(sizes: Sequence[int]) -> Iterator[Row]:
    """Memory and cost of an image for every number of images, against the fewest."""
    runs = []
    for size in sizes:
        runs.append(submitted(size))
        print(f"    {runs[-1]}", file=sys.stderr, flush=True)
    few, most, what, against = runs[0], runs[-1], f"{runs[-1].images:,} images", f"{runs[0].images:,} images"
    grown, held = (most.driver - few.driver) / MB, (most.worker - few.worker) / MB
    yield Row("7", f"driver, peak: MB more, {what}", _mb(most.driver), f"{_mb(few.driver)}, {against}", grown, 100.0)
    yield Row("7", f"largest worker, peak: MB more, {what}", _mb(most.worker), f"{_mb(few.worker)}, {against}", held, 100.0)
    yield Row("7", f"object store touched, {what}", _mb(most.store), f"{_mb(CAP)}, its cap", most.store / CAP, 1.0)
    costs = [(run.processor_s - few.processor_s) / (run.images - few.images) for run in runs[1:]]
    if len(costs) > 1:
        told = f"{1e3 * costs[-1]:.2f} ms", f"{1e3 * costs[0]:.2f} ms, to {runs[1].images:,}"
        yield Row("7", f"processor time of a further image, to {what}", *told, costs[-1] / costs[0], 1.1)
    for stage in _STAGES:
        each = [1e3 * run.stages[stage] / run.images for run in (most, runs[-2])]
        told = f"{each[0]:.2f} ms", f"{each[1]:.2f} ms, {runs[-2].images:,} images"
        yield Row("7", f"wall time of {stage} for an image, {what}", *told, each[0] / each[1])


def _mb(size: float) -> str:
    return f"{size / MB:,.1f} MB"


def rows(full: bool) -> Iterator[Row]:
    """The figures of goal 7."""
    yield from drawn_rows(tiny_job, DRAWN[full])
    yield from measured(FULL if full else SMALL)


def folder_of(count: int) -> Callable[[Path], dict[str, Any]]:
    """What makes the job of `submitted` in a folder."""
    return lambda root: tiny_job(written(root, count))


@dataclass(frozen=True)
class Cost:
    """What one image costs in a stage: processor seconds on one core, and bytes of its shard with and without the footer."""

    stage: str
    seconds: float
    size: float
    footer: float

    def __str__(self) -> str:
        return f"| {self.stage} | {self.seconds:.3f} | {self.size:,.0f} | {self.footer:,.0f} |"


COSTS = "| stage | processor s of an image, one core | bytes of an image | of these in the footer |\n|---|---|---|---|"


def photographs(root: Path, count: int) -> None:
    """Crops of scikit-learn's two photographs, 500 x 375 JPEGs of quality 90, with two tags and a mask of large shapes."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    lines = ["image,tags"]
    for number in range(count):
        photo = photos[number % len(photos)]
        width = (0.6 + 0.4 * rng.random()) * photo.width
        height = min(0.75 * width, photo.height)
        left, top = rng.random() * (photo.width - width), rng.random() * (photo.height - height)
        small = photo.resize((500, 375), Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        mask_HW, (y, x) = np.zeros((375, 500), np.uint8), np.mgrid[:375, :500]
        for label in (1, 2):
            across, down = rng.integers(100, 400), rng.integers(100, 275)
            mask_HW[((x - across) / 90) ** 2 + ((y - down) / 70) ** 2 < 1 + 0.2 * np.sin(x / 7)] = label
        (root / f"images/{number:04d}.jpg").write_bytes(encoded(np.asarray(small), "JPEG"))
        (root / f"masks/{number:04d}.png").write_bytes(encoded(mask_HW, "PNG"))
        lines.append(f"{number:04d},cat;dog")
    (root / "tags.csv").write_text("\n".join(lines))


def photograph_job(root: Path) -> dict[str, Any]:
    """`jobs/seeds.yaml` with the paper's localizer on VGG16 with random weights, seeds by threshold and dense CRF."""
    trunk = {"kind": "vgg16", "weights": "none"}
    rule = {"kind": "threshold_seeds", "background": {"kind": "cam_background", "threshold": 0.2}, "crf": {"iterations": 10}}
    method = {
        "name": "seeds",
        "classifier": {"kind": "stochastic_classifier", "steps": 0, "trunk": trunk},
        "localizer": {"kind": "stochastic_grad_cam", "selections": 200, "size": 321},
        "seed_rule": rule,
    }
    return tiny_job(root) | {"method": method}


def costs(count: int) -> Iterator[Cost]:
    """Make one shard of every stage in this process, on one core."""
    import torch

    from tests.local import job_of, run_stage
    from wsss_ray.engine.workers import worker_class
    from wsss_ray.storage.store import RunStore

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="wsss-scale-") as folder:
        root = Path(folder)
        photographs(root, count)
        store, plan = RunStore(f"{root}/runs"), job_of(photograph_job(root)).plan()
        for stage in plan:
            if stage.kind == "train":
                run_stage(store, stage)
                continue
            worker = worker_class(stage)(store, stage)
            if stage.kind == "localize":
                _ = worker.model  # it is loaded once
            began = time.process_time()
            worker(0)
            taken = (time.process_time() - began) / count
            run_stage(store, stage)
            path = Path(shard_path(store, stage, 0))
            footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
            yield Cost(stage.name, taken, path.stat().st_size / count, footer / count)
        sizes = [path.stat().st_size for path in root.glob("runs/stages/*/record.json")]
        files = sum(path.stat().st_size for path in root.glob("images/*")) / count
        print(f"source files: {files:,.0f} bytes of an image; records: {sum(sizes) / len(sizes):,.0f} bytes each", flush=True)


def main() -> None:
    """Print the four parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"sizes {', '.join(f'{size:,}' for size in FULL)}")
    parser.add_argument("--sizes", type=int, nargs="*", help="numbers of images of the first part; none to leave it out")
    parser.add_argument("--drawn", type=int, help="images of the second part; 0 to leave it out")
    parser.add_argument("--plans", type=int, default=100_000, help="images of the third part; 0 to leave it out")
    parser.add_argument("--photographs", type=int, default=16, help="images of the fourth part; 0 to leave it out")
    options = parser.parse_args()
    print(machine(), "", sep="\n", flush=True)
    sizes = options.sizes if options.sizes is not None else FULL if options.full else SMALL
    drawn = options.drawn if options.drawn is not None else DRAWN[options.full]
    parts = [*([measured(sizes)] if len(sizes) > 1 else []), *([drawn_rows(tiny_job, drawn)] if drawn else [])]
    print(HEAD, flush=True)
    for row in chain(*parts):
        print(row, flush=True)
    print()
    if options.plans:
        few, most = (planned(folder_of(size), size) for size in (FEW, options.plans))
        print(f"plan of {few}", f"plan of {most}", most.since(few), "", sep="\n", flush=True)
    if options.photographs:
        print(COSTS)
        for cost in costs(options.photographs):
            print(cost, flush=True)


if __name__ == "__main__":
    main()
