"""DeepLab's heads and segmentation networks as torch modules, and the parameter groups they are trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.nets.modules import KeyedDropout, init_he
from wsss_ray.nets.weights import copy_weights
from wsss_ray.ops import grid
from wsss_ray.ops.multiscale import scaled_sizes


class AtrousHead(nn.Module):
    """features_BCHW -> logits_BLHW: branches, summed (DeepLab; one is LargeFOV, several are ASPP).

    The scoring layers start at N(0, 0.01) with bias 0, the others at He's unless `hidden_layers` gives them.
    """

    def __init__(self, branches: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.hidden_pretrained = False

    def start_hidden(self, state: Mapping[str, Tensor]) -> None:
        """Start fc6 and fc7 of every branch from `Trunk.hidden_layers`. ValueError if they do not fit."""
        for branch in self.branches:
            assert isinstance(branch, nn.Sequential)
            for layer, name in ((branch[0], "fc6"), (branch[3], "fc7")):
                copy_weights(layer, {part: state[f"{name}.{part}"] for part in ("weight", "bias")})
        self.hidden_pretrained = True

    def new_parameters(self) -> list[nn.Parameter]:
        """What starts at random: all, or the scoring layers."""
        layers = [branch[-1] if self.hidden_pretrained else branch for branch in self.branches]  # type: ignore[index]
        return [parameter for layer in layers for parameter in layer.parameters()]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Sum the branches."""
        scores: list[Tensor] = [branch(x_BCHW) for branch in self.branches]
        return reduce(torch.add, scores)


class SegNet(nn.Module):
    """image_BCHW -> logits_BLhw at the trunk's stride."""

    head: AtrousHead

    def __init__(self, trunk: nn.Module, head: AtrousHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits; enlarge them, not their softmax."""
        logits_BLHW: Tensor = self.head(self.trunk(image_BCHW))
        return logits_BLHW

    def enlarge(self, logits_BLhw: Tensor, height: int, width: int) -> Tensor:
        """Logits_BLHW at the pixels of the image they were made from."""
        return grid.enlarge(logits_BLhw, height, width, *grid.axes(self.trunk, height, width))

    def under(self, pixel_BHW: Tensor, logits_BLhw: Tensor) -> Tensor:
        """Labels (or any other pixels, (..., H, W)) under the centres of the features, (..., h, w)."""
        height, width = logits_BLhw.shape[-2:]
        return grid.at_features(pixel_BHW, (height, width), *grid.axes(self.trunk, *pixel_BHW.shape[-2:]))


class MultiInputSegNet(SegNet):
    """The same network on several sizes of its input (DeepLab v2's "MSC"), its scores fused by their maximum."""

    def __init__(self, trunk: nn.Module, head: AtrousHead, *, scales: Sequence[float]) -> None:
        super().__init__(trunk, head)
        self.scales = tuple(scales)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits_SBLhw on the grid of the first scale: those of every scale, and their maximum at the end."""
        size = (image_BCHW.shape[-2], image_BCHW.shape[-1])
        axes = grid.axes(self.trunk, *size)
        scores: list[Tensor] = []
        for rows, columns in scaled_sizes(*size, self.scales):
            same = (rows, columns) == size
            scaled = image_BCHW if same else functional.interpolate(image_BCHW, (rows, columns), mode="bilinear")
            logits = super().forward(scaled)
            if scores:
                shape = (scores[0].shape[-2], scores[0].shape[-1])
                logits = grid.resample(logits, shape, source=grid.axes(self.trunk, rows, columns), target=axes)
            scores.append(logits)
        return torch.stack([*scores, torch.stack(scores).amax(dim=0)])


def decimate(state: Mapping[str, Tensor], hidden: int) -> dict[str, Tensor]:
    """fc6 and fc7 for a head of `hidden` channels from the fully connected layers of a VGG classifier, as DeepLab reduces them.

    Every n-th of its 4096 units, and every third row and column of the 7x7 window that fc6 looks at. Empty without a classifier
    of a multiple of `hidden` units.
    """
    names = [f"classifier.{layer}.{part}" for layer in (0, 3) for part in ("weight", "bias")]
    if not all(name in state for name in names) or len(state[names[0]]) % hidden:
        return {}
    fc6, fc6_bias, fc7, fc7_bias = (state[name] for name in names)
    step = len(fc6) // hidden
    return {
        "fc6.weight": fc6.view(len(fc6), -1, 7, 7)[::step, :, ::3, ::3],
        "fc6.bias": fc6_bias[::step],
        "fc7.weight": fc7[::step, ::step, None, None],
        "fc7.bias": fc7_bias[::step],
    }


def param_groups_deeplab(
    net: nn.Module, new: Iterable[nn.Parameter], *, head_scale: float = 10.0, bias_scale: float = 2.0
) -> list[dict[str, object]]:
    """Optimiser groups as DeepLab trains: what is pretrained and what is new, weights and biases.

    Learning rates are 1 for what is pretrained, `head_scale` for the parameters that start at random (`new`), `bias_scale` times
    that for biases, which take no weight decay. Frozen parameters and empty groups are left out.
    """
    fresh = {id(parameter) for parameter in new}
    groups: list[dict[str, object]] = []
    for is_new, is_bias in ((False, False), (False, True), (True, False), (True, True)):
        chosen = [
            parameter
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and (id(parameter) in fresh) == is_new and name.endswith("bias") == is_bias
        ]
        scale = (head_scale if is_new else 1.0) * (bias_scale if is_bias else 1.0)
        if chosen:
            groups.append({"params": chosen, "lr_scale": scale} | ({"weight_decay": 0.0} if is_bias else {}))
    return groups


def fov_branch(channels: int, num_labels: int, *, rate: int, hidden: int | None, dropout: float) -> nn.Sequential:
    """fc6 (3x3, dilated), ReLU, dropout, fc7 (1x1), ReLU, dropout, fc8 (1x1); with `hidden` None, dropout and one dilated 3x3."""
    if hidden is None:
        return _started([KeyedDropout(dropout), nn.Conv2d(channels, num_labels, 3, padding=rate, dilation=rate)])
    fc6, fc7 = nn.Conv2d(channels, hidden, 3, padding=rate, dilation=rate), nn.Conv2d(hidden, hidden, 1)
    behind = [nn.ReLU(inplace=True), KeyedDropout(dropout)]
    again = [nn.ReLU(inplace=True), KeyedDropout(dropout)]
    return _started([fc6, *behind, fc7, *again, nn.Conv2d(hidden, num_labels, 1)])


def pair_branch(channels: int, num_labels: int, *, rate: int, hidden: int) -> nn.Sequential:
    """Two dilated 3x3 convolutions with ReLU between them."""
    first, score = (nn.Conv2d(i, o, 3, padding=rate, dilation=rate) for i, o in ((channels, hidden), (hidden, num_labels)))
    return _started([first, nn.ReLU(inplace=True), score])


def _started(layers: list[nn.Module]) -> nn.Sequential:
    init_he(layers)
    nn.init.normal_(layers[-1].weight, std=0.01)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
