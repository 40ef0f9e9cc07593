"""Forms of a network in inference, per image on one core: as it was trained, fused, and in bfloat16.

The plain form is the trunk as the trainings leave it. Weights are random but for EfficientNet-Lite0's, which changes no time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, in_turns
from wsss_ray.core.contracts import Inference, Trunk
from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
from wsss_ray.nets.fused import fused
from wsss_ray.nets.resnet import ResNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights

NETS: tuple[tuple[str, Trunk, int], ...] = (
    ("VGG16", Vgg16(weights=Weights()), 321),
    ("ResNet50", ResNet(depth=50, output_stride=16, weights=Weights()), 321),
    ("EfficientNet-Lite0", EfficientNetLite0(output_stride=16), 256),
)
FORMS: tuple[Inference, ...] = ("plain", "fused", "bfloat16")
FASTER = 1.7  # times the plain form


def rows(full: bool) -> Iterator[Row]:
    """Each network in each form; the fused features are held against the plain ones first."""
    torch.set_num_threads(1)
    cpu = "CPU" + (" with avx512_bf16" if torch.cpu._is_avx512_bf16_supported() else " without avx512_bf16")
    for name, trunk, side in NETS:
        image_1CHW = (torch.rand(1, 3, side, side) * 255).round()
        forms = forms_of(trunk.build().eval(), image_1CHW)
        times = in_turns(forms, rounds=15 if full else 5, warm=2)
        for form in FORMS[1:]:
            ratio = times["plain"].median / times[form].median
            what = f"{name} at {side}, one image, one core, {cpu}: {form}"
            yield Row("inference", what, str(times[form]), f"plain: {times['plain']}", ratio, bound=FASTER, more=True)


def forms_of(trunk: nn.Module, image_1CHW: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return a function for each form, after comparing their features: a mean difference of 1e-4 or, in bfloat16, of a fifth."""
    made: dict[str, Callable[[], Tensor]] = {}
    for form in FORMS:
        run = fused(copy.deepcopy(trunk), form)
        made[form] = lambda run=run: _without_gradient(run, image_1CHW)  # type: ignore[misc]
    plain = made["plain"]()
    for form, most in (("fused", 1e-4), ("bfloat16", 0.2)):
        assert (made[form]() - plain).abs().mean() <= most * plain.abs().mean(), form
    return made


def _without_gradient(run: Callable[[Tensor], Tensor], image_1CHW: Tensor) -> Tensor:
    with torch.inference_mode():
        return run(image_1CHW)
