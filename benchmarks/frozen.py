"""What it gives to compute the features of a frozen trunk once: FickleNet on a frozen EfficientNet-Lite0, as `init` writes it.

    python -m benchmarks --only frozen [--full]

The same job with `inference: plain`, which runs the trunk in every step and for every map, and with `inference: fused`. One core,
in processor time. The features' own stage counts for the trainings and not for the seeds, as in a run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.seeds import Size, photographs
from tests.local import job_of, run_stage
from wsss_ray.core.contracts import Inference
from wsss_ray.storage.store import RunStore

FULL, SMALL = Size(200, 240, 320, 32, 1.0, 256, 200), Size(40, 240, 320, 8, 1.0, 256, 200)
SEEDS = ("maps", "seeds")


def rows(full: bool) -> Iterator[Row]:
    """Processor seconds of the stages in both forms."""
    size = FULL if full else SMALL
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root, size)
        seconds = {form: _stages(root, size, form) for form in ("plain", "fused")}
    plain, fused = seconds["plain"], seconds["fused"]
    images = f"{size.images} photographs of {size.width} x {size.height}, one core"
    for name, what in (("classifier", "classifier, 8 epochs"), ("segmenter", "DSRG, 4 epochs")):
        share = fused["features"] if name == "classifier" else 0.0
        ours, theirs = fused[name] + share, plain[name]
        note = ", with its features" if share else ", features known"
        held = f"in every step: {theirs:.1f} s"
        yield Row("frozen", f"{what}{note}: {images}", f"{ours:.1f} s", held, theirs / ours, 2.0, more=True)
    ours, theirs = (sum(one[name] for name in SEEDS) for one in (fused, plain))
    rates = [f"{size.images / taken:.1f} images/s" for taken in (ours, theirs)]
    yield Row("seeds", f"maps and seeds: {images}", rates[0], f"trunk run again: {rates[1]}", theirs / ours, 1.5, more=True)


def _stages(root: Path, size: Size, form: Inference) -> dict[str, float]:
    """Run the stages up to the segmenter, after a short run that compiles, and return their processor seconds by name."""
    plan = job_of(job_spec(root, size, form)).plan()
    _run(RunStore(str(root / f"warm-{form}")), job_of(job_spec(root, size, form, steps=2)).plan())
    return _run(RunStore(str(root / form)), plan)


def _run(store: RunStore, plan: Any) -> dict[str, float]:
    seconds = {}
    for stage in plan:
        began = time.process_time()
        run_stage(store, stage, micro_batch=20, checkpoint_every=1 << 30)
        seconds[stage.name] = time.process_time() - began
        if stage.name == "segmenter":
            return seconds
    raise AssertionError("the plan has no segmenter")


def job_spec(root: Path, size: Size, form: Inference, *, steps: int | None = None) -> dict[str, Any]:
    """The method of `init`'s job at 256 pixels, up to the first segmenter."""
    trunk = {"kind": "efficientnet_lite0", "output_stride": 16, "frozen": True}
    adam = {"kind": "adam", "lr": 1e-3, "decoupled": True, "weight_decay": 1e-2}
    crf = {"iterations": 5, "bilateral_sxy": 50, "bilateral_srgb": 5}
    warp = {"kind": "warp", "size": size.warp}

    def length(epochs: float) -> dict[str, Any]:
        return {"epochs": epochs, "steps": None} if steps is None else {"epochs": None, "steps": steps}

    classifier = {"trunk": trunk, "kernel_size": 5, "dropout_rate": 0.7, "batch_size": 20, "augment": warp, "optimizer": adam}
    head = {"kind": "large_fov", "dilation": 2, "hidden": 64, "dropout": 0.5}
    segmenter = {"trunk": trunk, "head": head, "batch_size": 10, "augment": warp, "optimizer": adam, "head_lr_scale": 1.0}
    method = {
        "name": "ficklenet",
        "classifier": classifier | length(8),
        "localizer": {"selections": size.selections, "dropout_rate": 0.7, "size": size.warp},
        "seed_rule": {"theta": 0.7, "background": {"kind": "cam_background", "threshold": 0.35}, "crf": crf},
        "segmenter": segmenter | {"crf": {"scale": 16, **crf}} | length(4),
    }
    data = {"kind": "folder", "root": str(root / "images"), "tags": str(root / "tags.csv"), "shard_size": size.shard}
    return {"name": "frozen", "method": method, "data": data, "run": {"inference": form}}
