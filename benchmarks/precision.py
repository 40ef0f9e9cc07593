"""What makes a training step faster and rounds otherwise: bfloat16, channels-last weights, torch.compile; and what it costs.

A step is a trunk's forward and backward pass on batches laid out as the loader lays them out, which is channels-last already.
One thread, in turns, by processor time, so that a busy machine counts little. Accuracy: a DeepLab trained on the masks of
coloured shapes from several seeds, in float32 and in bfloat16; its ratio is the difference of the means over its standard error.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from benchmarks.measure import Row, Timing
from tests.local import job_of, run_plan
from tests.shapes import tiny_job
from wsss_ray.engine.networks import use_bfloat16
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights
from wsss_ray.storage.store import RunStore


def rows(full: bool) -> Iterator[Row]:
    """Steps of two trunks in each form, and the accuracy over three seeds (five with `full`, and torch.compile)."""
    torch.set_num_threads(1)
    cpu = ", CPU" + (" with avx512_bf16" if torch.cpu._is_avx512_bf16_supported() else " without avx512_bf16")
    vgg = Vgg16(weights=Weights())
    large = (4, 321) if full else (2, 161)
    for kind, trunk, images, size in (("small_net", SmallNet(), 32, 64), ("VGG16", vgg, *large)):
        name = f"{kind}, {images} images of {size} px"
        forms = forms_of(trunk.build(), images, size, compiled=full)
        times = processor_times(forms, rounds=5)
        for form, timing in times.items():
            if form != "float32":
                bound = 1.0 if form == "bfloat16" else None
                ratio = timing.median / times["float32"].median
                yield Row("9", f"{name}{cpu}: {form} against float32", str(timing), str(times["float32"]), ratio, bound=bound)
    yield accuracy(range(5 if full else 3))


def forms_of(trunk: nn.Module, images: int, size: int, *, compiled: bool) -> Mapping[str, Callable[[], None]]:
    """One step of each form, by name."""
    holder = nn.ModuleDict({"trunk": trunk})
    faster, last = copy.deepcopy(holder), copy.deepcopy(holder).to(memory_format=torch.channels_last)
    use_bfloat16(faster, torch.device("cpu"))
    both = copy.deepcopy(last)
    use_bfloat16(both, torch.device("cpu"))
    nets = {"float32": holder, "bfloat16": faster, "channels-last weights": last, "bfloat16 and channels-last weights": both}
    if compiled:
        nets["torch.compile"] = copy.deepcopy(holder)
        nets["torch.compile"]["trunk"].compile()
    image_BCHW = torch.randint(0, 256, (images, size, size, 3)).permute(0, 3, 1, 2).float()

    def step(net: nn.ModuleDict) -> None:
        net["trunk"](image_BCHW).square().mean().backward()
        net.zero_grad()

    return {name: lambda net=net: step(net) for name, net in nets.items()}  # type: ignore[misc]


def processor_times(forms: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, Timing]:
    """Seconds that the process computed for each form, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(2 + rounds):
        for name, form in forms.items():
            began = time.process_time()
            form()
            if turn >= 2:
                seconds[name].append(time.process_time() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def accuracy(seeds: Sequence[int]) -> Row:
    """Mean IoU on held-out shapes of the same DeepLab in both. In float32 it has to learn every class, or nothing is said."""
    learner = {"trunk": {"kind": "small_net", "widths": [16, 32, 32], "strides": [2, 1, 1]}, "steps": 300, "epochs": None,
               "head": {"kind": "large_fov", "dilation": 2, "hidden": 32, "dropout": 0.0}, "batch_size": 8, "loss_at": "image",
               "augment": {"kind": "random_crop", "size": 48}, "optimizer": {"kind": "adam", "lr": 5e-3},
               "schedule": {"kind": "one_cycle"}, "head_lr_scale": 1.0}  # fmt: skip
    method = {"name": "deeplab", "segmenter": learner, "metric": {"scales": [1.0], "crf": None}}
    data = {"kind": "shapes", "size": 48, "train": 160, "held_out": 64}
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        for seed in seeds:
            for precision, scores in found.items():
                plan = job_of(tiny_job(method=method, data=data, run={"seed": seed, "precision": precision})).plan()
                run_plan(store, plan)
                record = store.record(plan.targets[-1])
                assert record is not None
                assert precision != "float32" or min(record["metrics"]["iou"]) > 0.5, record["metrics"]["iou"]
                scores.append(record["metrics"]["miou"])
    plain, fast = found.values()
    error = (sum(statistics.variance(scores) for scores in found.values()) / len(plain)) ** 0.5
    apart = abs(statistics.mean(fast) - statistics.mean(plain))
    shown = [" ".join(f"{score:.3f}" for score in scores) for scores in (fast, plain)]
    return Row("9", f"mIoU over {len(plain)} seeds, bfloat16 against float32", shown[0], shown[1], apart / error, bound=2.0)
