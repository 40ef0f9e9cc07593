"""DeepLab's heads and segmentation networks as torch modules, and the parameter groups they are trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from wsss_ray.nets.modules import KeyedDropout, init_he
from wsss_ray.nets.weights import copy_weights


class AtrousHead(nn.Module):
    """features_BCHW -> logits_BLHW: one branch per rate, summed (DeepLab; one rate is LargeFOV, several are ASPP).

    A branch is fc6 (3x3, dilated), ReLU, dropout, fc7 (1x1), ReLU, dropout, fc8 (1x1); with `hidden` None, dropout and one
    dilated 3x3. The scoring layers start at N(0, 0.01) with bias 0, the others at He's unless `hidden_layers` gives them.
    """

    def __init__(self, *, channels: int, num_labels: int, rates: Sequence[int], hidden: int | None, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(channels, num_labels, rate=rate, hidden=hidden, dropout=dropout) for rate in rates)
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
    """image_BCHW -> logits_BLHW at the trunk's stride."""

    head: AtrousHead

    def __init__(self, trunk: nn.Module, head: AtrousHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits; resize them, not their softmax."""
        logits_BLHW: Tensor = self.head(self.trunk(image_BCHW))
        return logits_BLHW


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


def param_groups_deeplab(net: nn.Module, *, head_scale: float = 10.0, bias_scale: float = 2.0) -> list[dict[str, object]]:
    """Optimiser groups as DeepLab trains: what is pretrained and what is new, weights and biases.

    Learning rates are 1 for the weights of the trunk and of a head's hidden layers if they are pretrained, `head_scale` for what
    starts at random, `bias_scale` times that for biases, which take no weight decay. Frozen parameters and empty groups are
    left out.
    """
    assert isinstance(net, SegNet)
    head = {id(parameter) for parameter in net.head.new_parameters()}
    groups: list[dict[str, object]] = []
    for in_head, is_bias in ((False, False), (False, True), (True, False), (True, True)):
        chosen = [
            parameter
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and (id(parameter) in head) == in_head and name.endswith("bias") == is_bias
        ]
        scale = (head_scale if in_head else 1.0) * (bias_scale if is_bias else 1.0)
        if chosen:
            groups.append({"params": chosen, "lr_scale": scale} | ({"weight_decay": 0.0} if is_bias else {}))
    return groups


def _branch(channels: int, num_labels: int, *, rate: int, hidden: int | None, dropout: float) -> nn.Sequential:
    if hidden is None:
        score = nn.Conv2d(channels, num_labels, 3, padding=rate, dilation=rate)
        layers: list[nn.Module] = [KeyedDropout(dropout), score]
    else:
        fc6, fc7 = nn.Conv2d(channels, hidden, 3, padding=rate, dilation=rate), nn.Conv2d(hidden, hidden, 1)
        score = nn.Conv2d(hidden, num_labels, 1)
        layers = [fc6, nn.ReLU(inplace=True), KeyedDropout(dropout), fc7, nn.ReLU(inplace=True), KeyedDropout(dropout), score]
    init_he(layers)
    nn.init.normal_(score.weight, std=0.01)
    return nn.Sequential(*layers)
