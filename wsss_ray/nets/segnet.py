"""Define DeepLab's heads and segmentation networks as torch modules, and group their parameters for the optimiser."""

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
    """Head features_BCHW -> logits_BLHW that sums branches. One branch is DeepLab's LargeFOV, several are its ASPP.

    Scoring layers start at N(0, 0.01) with bias 0. Other layers start as He et al., or from a classifier (`start_hidden`).

    Args:
        branches: modules made by `fov_branch` or `pair_branch`.

    Example:
        >>> AtrousHead([fov_branch(512, 21, rate=12, hidden=None, dropout=0.0)])(torch.rand(1, 512, 41, 41)).shape
        torch.Size([1, 21, 41, 41])
    """

    def __init__(self, branches: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.hidden_pretrained = False

    def start_hidden(self, state: Mapping[str, Tensor]) -> None:
        """Initialise fc6 and fc7 of every branch.

        Args:
            state: weights and biases, as `Trunk.hidden_layers` returns them.

        Raises:
            ValueError: if a shape does not fit.
        """
        for branch in self.branches:
            assert isinstance(branch, nn.Sequential)
            for layer, name in ((branch[0], "fc6"), (branch[3], "fc7")):
                copy_weights(layer, {part: state[f"{name}.{part}"] for part in ("weight", "bias")})
        self.hidden_pretrained = True

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the randomly initialised parameters: those of the scoring layers after `start_hidden`, else all."""
        layers = [branch[-1] if self.hidden_pretrained else branch for branch in self.branches]  # type: ignore[index]
        return [parameter for layer in layers for parameter in layer.parameters()]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the sum of the branches, logits_BLHW."""
        scores: list[Tensor] = [branch(x_BCHW) for branch in self.branches]
        return reduce(torch.add, scores)


class SegNet(nn.Module):
    """Segmentation network image_BCHW -> logits_BLhw at the trunk's stride.

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build` returns it.
        head: module features_BCHW -> logits_BLHW, as `Head.build` returns it.

    Example:
        >>> trunk = SmallNet().build()
        >>> net = SegNet(trunk, LargeFov(hidden=64).build(trunk.channels, 21)).eval()
        >>> logits = net(torch.rand(1, 3, 64, 64))
        >>> logits.shape, net.enlarge(logits, 64, 64).shape
        (torch.Size([1, 21, 16, 16]), torch.Size([1, 21, 64, 64]))
    """

    head: AtrousHead

    def __init__(self, trunk: nn.Module, head: AtrousHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits_BLhw. To get scores at pixels, enlarge the logits, not their softmax."""
        logits_BLHW: Tensor = self.head(self.trunk(image_BCHW))
        return logits_BLHW

    def enlarge(self, logits_BLhw: Tensor, height: int, width: int) -> Tensor:
        """Resize logits to the image they were computed from.

        Args:
            logits_BLhw: logits of this network.
            height: rows of the image.
            width: columns of the image.

        Returns:
            logits_BLHW.
        """
        return grid.enlarge(logits_BLhw, height, width, *grid.axes(self.trunk, height, width))

    def under(self, pixel_BHW: Tensor, logits_BLhw: Tensor) -> Tensor:
        """Read the labels, or other values of pixels, under the centres of the features.

        Args:
            pixel_BHW: values of shape (..., H, W) at the pixels of the image.
            logits_BLhw: logits of that image; only their size is used.

        Returns:
            Values of shape (..., h, w).
        """
        height, width = logits_BLhw.shape[-2:]
        return grid.at_features(pixel_BHW, (height, width), *grid.axes(self.trunk, *pixel_BHW.shape[-2:]))


class MultiInputSegNet(SegNet):
    """Segmentation network that runs on several sizes of its input and takes the maximum of the scores (DeepLab v2's "MSC").

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build` returns it.
        head: module features_BCHW -> logits_BLHW, as `Head.build` returns it.
        scales: sizes of the input, relative to the image.

    Example:
        >>> trunk = SmallNet().build()
        >>> head = LargeFov(hidden=64).build(trunk.channels, 21)
        >>> MultiInputSegNet(trunk, head, scales=(1.0, 0.75, 0.5)).eval()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([4, 1, 21, 16, 16])
    """

    def __init__(self, trunk: nn.Module, head: AtrousHead, *, scales: Sequence[float]) -> None:
        super().__init__(trunk, head)
        self.scales = tuple(scales)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits_SBLhw on the grid of the first scale: the logits of every scale, then their maximum."""
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
    """Reduce the fully connected layers of a VGG classifier to fc6 and fc7 of a head, as DeepLab does.

    Keep every n-th of the 4096 units, and every third row and column of fc6's 7x7 window.

    Args:
        state: state dict of torchvision's vgg16.
        hidden: channels of fc6 and fc7.

    Returns:
        Weights and biases of fc6 (hidden x channels x 3 x 3) and fc7 (hidden x hidden x 1 x 1). Empty if `state` has no
        classifier, or if its number of units is not a multiple of `hidden`.

    Example:
        >>> decimate(vgg16_state, hidden=1024)["fc6.weight"].shape
        torch.Size([1024, 512, 3, 3])
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
    """Split the parameters of a network into DeepLab's optimiser groups: pretrained and new, weights and biases.

    Pretrained weights have the relative learning rate 1, new weights `head_scale`. Biases have `bias_scale` times that rate and
    no weight decay. Frozen parameters and empty groups are left out.

    Args:
        net: the network.
        new: parameters that start at random.
        head_scale: learning rate of new parameters over that of pretrained ones.
        bias_scale: learning rate of biases over that of weights.

    Returns:
        At most four groups with `params`, `lr_scale` and, for biases, `weight_decay`.

    Example:
        >>> groups = param_groups_deeplab(net, net.head.new_parameters())
        >>> [group["lr_scale"] for group in groups]
        [1.0, 2.0, 10.0, 20.0]
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
    """Build a branch: fc6 (dilated 3x3), ReLU, dropout, fc7 (1x1), ReLU, dropout, fc8 (1x1).

    Args:
        channels: channels of the features.
        num_labels: number of labels L.
        rate: dilation of the 3x3 convolution.
        hidden: channels of fc6 and fc7; None for a branch of dropout and one dilated 3x3 convolution.
        dropout: dropout probability.

    Returns:
        A module features_BCHW -> logits_BLHW.

    Example:
        >>> fov_branch(512, 21, rate=12, hidden=1024, dropout=0.5).eval()(torch.rand(1, 512, 41, 41)).shape
        torch.Size([1, 21, 41, 41])
    """
    if hidden is None:
        return _started([KeyedDropout(dropout), nn.Conv2d(channels, num_labels, 3, padding=rate, dilation=rate)])
    fc6, fc7 = nn.Conv2d(channels, hidden, 3, padding=rate, dilation=rate), nn.Conv2d(hidden, hidden, 1)
    behind = [nn.ReLU(inplace=True), KeyedDropout(dropout)]
    again = [nn.ReLU(inplace=True), KeyedDropout(dropout)]
    return _started([fc6, *behind, fc7, *again, nn.Conv2d(hidden, num_labels, 1)])


def pair_branch(channels: int, num_labels: int, *, rate: int, hidden: int) -> nn.Sequential:
    """Build a branch with two dilated 3x3 convolutions and a ReLU between them.

    Args:
        channels: channels of the features.
        num_labels: number of labels L.
        rate: dilation of both convolutions.
        hidden: channels between them.

    Returns:
        A module features_BCHW -> logits_BLHW.

    Example:
        >>> pair_branch(4096, 21, rate=12, hidden=512)(torch.rand(1, 4096, 41, 41)).shape
        torch.Size([1, 21, 41, 41])
    """
    first, score = (nn.Conv2d(i, o, 3, padding=rate, dilation=rate) for i, o in ((channels, hidden), (hidden, num_labels)))
    return _started([first, nn.ReLU(inplace=True), score])


def _started(layers: list[nn.Module]) -> nn.Sequential:
    """Initialise the layers and chain them. The last one, which scores, starts at N(0, 0.01)."""
    init_he(layers)
    nn.init.normal_(layers[-1].weight, std=0.01)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
