"""Bring a trained network into a form that is quicker to run: folded batch norms, channels last, optionally bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsss_ray.core.contracts import Inference

_SIDE = 97  # pixels of the image that shows which convolution feeds which batch norm
_TOLERANCE = 1e-3  # of the largest feature; a network that folding changes by more than this is left as it was

Layer = Callable[[Tensor], Any]


def parts_of(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a network: its trunk, its head, and each of its blocks.

    Example:
        >>> len(list(parts_of(CamNet(trunk, num_classes=20, rates=(1, 3), hidden=None, layers=1, dropout=0.0))))
        3
    """
    for child in net.children():
        yield from child if isinstance(child, nn.ModuleList) else [child]


def each_tensor(found: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of what a part of a network returned: a tensor, or a nest of tuples, lists and mappings of them.

    Example:
        >>> each_tensor((torch.ones(2), [torch.ones(3)]), Tensor.double)[1][0].dtype
        torch.float64
    """
    if isinstance(found, Tensor):
        return change(found)
    if isinstance(found, Mapping):
        return {name: each_tensor(one, change) for name, one in found.items()}
    if isinstance(found, tuple | list):
        several = [each_tensor(one, change) for one in found]
        return type(found)(*several) if hasattr(found, "_fields") else type(found)(several)
    return found


def real_numbers_in_float32(found: Any) -> Any:
    """Return what a part of a network returned with all its tensors of real numbers in float32.

    Example:
        >>> real_numbers_in_float32([torch.ones(2, dtype=torch.bfloat16)])[0].dtype
        torch.float32
    """
    return each_tensor(found, lambda one: one.float() if one.is_floating_point() else one)


def fused(part: nn.Module, form: Inference) -> Layer:
    """Bring a part of a network into a form for inference.

    The convolutions of "bfloat16" compute in that precision; sums such as those of a batch norm that cannot be folded stay
    float32. Sizes and types of input and output are those of the part.

    Args:
        part: module in evaluation mode; changed. It keeps its names.
        form: "plain", "fused" or "bfloat16".

    Returns:
        The function of the part, x_BCHW -> y_BCHW, float32; or x_BCHW -> a nest of tensors, such as `Tokens`.

    Example:
        >>> run = fused(trunk.eval(), "fused")
        >>> torch.allclose(run(image_BCHW), features_BCHW, atol=1e-3)
        True
    """
    if form == "plain":
        return part.forward
    with torch.no_grad():
        fold_batch_norms(part)
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if form == "bfloat16":
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.to(torch.bfloat16)
    return _Quick(part.forward, half=form == "bfloat16")


class _Quick:
    """The function of a part in a form for inference. No closure, so that a copy of the part runs with the copy's weights."""

    def __init__(self, forward: Layer, *, half: bool) -> None:
        self.forward, self.half = forward, half

    def __call__(self, x_BCHW: Tensor) -> Any:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            found = self.forward(x_BCHW)
            return each_tensor(real_numbers_in_float32(found) if self.half else found, Tensor.contiguous)


def fold_batch_norms(part: nn.Module) -> int:
    """Fold each batch norm that directly follows a convolution into its weights, in evaluation mode.

    The pairs are found by running the part on one image, so only parts that take images are folded. If the features change by
    more than rounding, the part is left as it was.

    Args:
        part: module image_BCHW -> features_BCHW in evaluation mode; changed.

    Returns:
        The number of batch norms that were folded.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in part.modules()):
        return 0
    device = next(part.parameters()).device
    image_1CHW = 127.5 + 127.5 * torch.linspace(-9, 9, 3 * _SIDE * _SIDE, device=device).view(1, 3, _SIDE, _SIDE).sin()
    pairs, before = _conv_bn_pairs(part, image_1CHW)
    kept = {conv: (conv.weight, conv.bias) for conv, _ in pairs}
    for conv, norm in pairs:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        norm.forward = _same  # type: ignore[method-assign,assignment]
    after = part(image_1CHW)
    if bool((after - before).abs().max() <= _TOLERANCE * before.abs().max()):
        return len(pairs)
    for conv, norm in pairs:
        conv.weight, conv.bias = kept[conv]
        del norm.forward
    return 0


def _conv_bn_pairs(part: nn.Module, image_1CHW: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Run a part. Return the convolutions whose output is the input of a batch norm, with these, and the features."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id of the output, which is kept so that no other tensor gets its id
    fed: dict[nn.BatchNorm2d, list[nn.Conv2d | None]] = {}
    runs: dict[nn.Conv2d, int] = {}

    def conv_made(module: nn.Conv2d, _: object, output: Tensor) -> None:
        made[id(output)] = (module, output)
        runs[module] = runs.get(module, 0) + 1

    def norm_read(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: object) -> None:
        fed.setdefault(module, []).append(made.get(id(inputs[0]), (None,))[0])

    with ExitStack() as stack:
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                stack.callback(module.register_forward_hook(conv_made).remove)
            if isinstance(module, nn.BatchNorm2d):
                stack.callback(module.register_forward_hook(norm_read).remove)
        features = part(image_1CHW)
    once = [(convs[0], norm) for norm, convs in fed.items() if len(convs) == 1]
    return [(conv, norm) for conv, norm in once if conv is not None and runs[conv] == 1], features


def _same(x_BCHW: Tensor) -> Tensor:
    return x_BCHW
