"""A small version of any method, for tests: the same parts and the same plan, few channels, few steps, small images."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import tests.shapes  # noqa: F401  the data set that tiny jobs name
from wsss_ray.config.job import register
from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner, Trunk
from wsss_ray.core.optim import Adam, Constant, Optimizer, Schedule
from wsss_ray.core.tokens import TokenTrunk
from wsss_ray.data.transforms import RandomCrop, Warp
from wsss_ray.methods import methods
from wsss_ray.nets.clip import Clip, ClipWeights
from wsss_ray.nets.deeplab import DilatedPair, Head, LargeFov
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.timm_vit import TimmVit
from wsss_ray.ops.background import Background, CamBackground
from wsss_ray.ops.crf import DenseCrf

TRUNK = SmallNet(widths=(8, 16), strides=(2, 1))
VIT = TimmVit(name="test_vit", patch_size=4, weights="none")
PLAIN = {"hidden_std": None,  # N(0, 0.01) is for 1024 channels; with 16, nothing passes
         "log_steps": 3, "gammas": (2.0, 8.0),
         "selections": 8, "kernel_size": 5, "sizes": (32,), "background_floor": 0.3, "gamma": 4.0, "crf_floor": 0.3}  # fmt: skip


def shrink(part: Any, *, size: int = 32, steps: int = 6, batch: int = 8) -> Any:
    """The same component with everything in it that takes time made small; what it does stays."""
    if isinstance(part, tuple):
        return tuple(shrink(one, size=size, steps=steps, batch=batch) for one in part)
    if not isinstance(part, Component) or isinstance(part, Schedule | Optimizer):
        return part
    if isinstance(part, Trunk):
        return VIT if isinstance(part, TokenTrunk) else TRUNK
    if isinstance(part, Head):
        pair = isinstance(part, DilatedPair)
        dropout = 0.1 if getattr(part, "dropout", 0.1) else 0.0
        return DilatedPair(dilation=2, hidden=16) if pair else LargeFov(dilation=2, hidden=16, dropout=dropout)
    if isinstance(part, Clip):
        return Clip(weights=ClipWeights(source="random"))
    if isinstance(part, RandomCrop | Warp):
        return type(part)(size=size)
    if isinstance(part, Background) and part.needs_saliency:
        return CamBackground(threshold=0.3)
    fields = {name: shrink(value, size=size, steps=steps, batch=batch) for name, value in part}
    fields |= {name: value for name, value in PLAIN.items() if name in fields}
    if isinstance(part, DenseCrf):
        return part.model_copy(update={"iterations": 2, "scale": min(part.scale, 4.0)})
    if isinstance(part, Learner):
        budget = {"steps": steps, "epochs": None, "batch_size": batch, "optimizer": Adam(lr=5e-3), "schedule": Constant()}
        fields |= budget | ({"head_lr_scale": 1.0} if "head_lr_scale" in fields else {})
    for name, value in (("size", None), ("hidden", 16), ("scales", (1.0, 0.5))):
        if name in fields and fields[name] not in (None, (1.0,)):
            fields[name] = value
    return type(part).model_validate(fields)


def skip_without_extras(name: str) -> None:
    """Skip a test that runs a method whose small version needs a package that is not installed."""
    import pytest

    parts = [type(part) for part in methods()[name].model_validate(tiny_method(name)).parts()]
    for part, package, extra in ((TimmVit, "timm", "timm"), (Clip, "open_clip", "clip")):
        if part in parts and find_spec(package) is None:
            pytest.skip(f"needs wsss-ray[{extra}]")


def tiny_method(name: str, **changes: Any) -> dict[str, Any]:
    """The `method` block of a job file for a small version of the method as it stands by default."""
    register()
    spec: dict[str, Any] = shrink(methods()[name](), **changes).spec()
    return spec


def tiny_job_of(name: str, **overrides: Any) -> dict[str, Any]:
    """A whole job on shapes."""
    run = {"checkpoint_every": 4, "log_every": 2}
    return {"name": f"tiny-{name}", "method": tiny_method(name), "data": {"kind": "shapes"}, "run": run} | overrides
