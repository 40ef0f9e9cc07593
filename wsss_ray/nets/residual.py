"""Define residual networks as torch modules: the wide ResNet38, and torchvision's ResNets without their classifier."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wsss_ray.nets.modules import IMAGENET_MEAN, IMAGENET_STD, KeyedDropout, Normalize, fix_batch_norms, init_he

# Stage: number of units, channels of a unit's convolutions, stride of the first unit, dilations of the first unit's convolutions
# (the last one serves all convolutions of the later units), dropout. Stages 6 and 7 are bottlenecks.
_WIDE = {
    "b2": (3, (128, 128), 2, (1, 1), 0.0),
    "b3": (3, (256, 256), 2, (1, 1), 0.0),
    "b4": (6, (512, 512), 2, (1, 1), 0.0),
    "b5": (3, (512, 1024), 1, (1, 2), 0.0),
    "b6": (1, (512, 1024, 2048), 1, (1, 4, 1), 0.3),
    "b7": (1, (1024, 2048, 4096), 1, (1, 4, 1), 0.5),
}
_BRANCH = ("branch2a", "branch2b1", "branch2b2")
_STEM = ("conv1a", "b2", "b2_1", "b2_2")
_RESNET = (("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


class WideUnit(nn.Module):
    """Residual unit with pre-activation: batch norm, ReLU, [dropout of whole channels,] convolution, two or three times.

    With two convolutions, both are 3x3. With three, only the middle one is 3x3 and the others are 1x1. Layer names are those of
    PSA's `resnet38d.py`.

    Args:
        channels: input channels.
        outs: output channels of each convolution.
        stride: stride of the first convolution.
        dilations: dilation of each convolution.
        dropout: dropout probability before each convolution but the first; 0 for none.
        shortcut: make the shortcut a 1x1 convolution of the first activation. Needed where the shape or the channels change.
    """

    def __init__(
        self, channels: int, outs: tuple[int, ...], *, stride: int, dilations: tuple[int, ...], dropout: float, shortcut: bool
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(outs) == 2 else (1, 3, 1)
        self.branch = _BRANCH[: len(outs)]
        ins = (channels, *outs[:-1])
        for index, (name, kernel, dilation) in enumerate(zip(self.branch, kernels, dilations, strict=True)):
            self.add_module(f"bn_{name}", nn.BatchNorm2d(ins[index]))
            if dropout and index:
                self.add_module(f"dropout_{name}", KeyedDropout(dropout, whole_channels=True))
            conv = nn.Conv2d(
                ins[index],
                outs[index],
                kernel,
                stride=stride if index == 0 else 1,
                padding=dilation * (kernel // 2),
                dilation=dilation,
                bias=False,
            )
            self.add_module(f"conv_{name}", conv)
        self.conv_branch1 = nn.Conv2d(channels, outs[-1], 1, stride=stride, bias=False) if shortcut else None

    def activated(self, x_BCHW: Tensor) -> Tensor:
        """Return the input after the first batch norm and ReLU, which is what the branch reads."""
        normed: Tensor = self.get_submodule(f"bn_{self.branch[0]}")(x_BCHW)
        return nn.functional.relu(normed)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the shortcut plus the branch."""
        parts = dict(self.named_children())
        skip_BCHW = branch_BCHW = x_BCHW
        for name in self.branch:
            branch_BCHW = nn.functional.relu(parts[f"bn_{name}"](branch_BCHW), inplace=True)
            if self.conv_branch1 is not None and name == self.branch[0]:
                skip_BCHW = self.conv_branch1(branch_BCHW)
            if dropout := parts.get(f"dropout_{name}"):
                branch_BCHW = dropout(branch_BCHW)
            branch_BCHW = parts[f"conv_{name}"](branch_BCHW)
        return skip_BCHW + branch_BCHW


class WideResNet(nn.Module):
    """Trunk ResNet38 (Model A1) at stride 8: image_BCHW (RGB, 0..255) -> features_BCHW after the last batch norm and ReLU.

    The statistics and the affine part of the batch norms are fixed. In training the bottlenecks drop whole channels: call
    `set_dropout_keys` before each forward pass.

    Args:
        width: factor for all channel counts.
        frozen: parts that are not trained: "none", "stem" (conv1a and the b2 units) or "all".
        levels: units before which the features are also returned, activated, one after the other along the channels.

    Example:
        >>> WideResNet(width=1 / 32, frozen="stem").eval()(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 128, 9, 9])
    """

    def __init__(self, *, width: float, frozen: Literal["none", "stem", "all"], levels: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.levels = levels
        self.level_channels: list[int] = []
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        channels = _scaled(64, width)
        self.conv1a = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.units: list[str] = []
        for stage, (count, wide, stride, dilations, dropout) in _WIDE.items():
            outs = tuple(_scaled(out, width) for out in wide)
            for index in range(count):
                unit = WideUnit(
                    channels,
                    outs,
                    stride=1 if index else stride,
                    dilations=(dilations[-1],) * 2 if index else dilations,
                    dropout=dropout,
                    shortcut=index == 0,
                )
                self.units.append(f"{stage}_{index}" if index else stage)
                if self.units[-1] in levels:
                    self.level_channels.append(channels)
                self.add_module(self.units[-1], unit)
                channels = outs[-1]
        self.bn7 = nn.BatchNorm2d(channels)
        self.level_channels.append(channels)
        self.channels = sum(self.level_channels)
        init_he(list(self.modules()))
        for name in {"none": (), "stem": _STEM, "all": ("conv1a", *self.units)}[frozen]:
            self.get_submodule(name).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> WideResNet:
        """Set the mode. The batch norms stay in evaluation."""
        super().train(mode)
        fix_batch_norms(self)
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW at stride 8."""
        x_BCHW: Tensor = self.conv1a(self.normalize(image_BCHW))
        below: list[Tensor] = []
        for name in self.units:
            unit = self.get_submodule(name)
            if name in self.levels:
                assert isinstance(unit, WideUnit)
                below.append(unit.activated(x_BCHW))
            x_BCHW = unit(x_BCHW)
        x_BCHW = nn.functional.relu(self.bn7(x_BCHW), inplace=True)
        return torch.cat([*below, x_BCHW], dim=1) if below else x_BCHW

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0 and the pixels per feature: odd kernels with padding start at pixel 0 at any size."""
        return 0.0, 8.0


class ResNetTrunk(nn.Module):
    """Trunk around a ResNet of torchvision: image_BCHW (RGB, 0..255) -> features_BCHW of layer4.

    The statistics and the affine part of the batch norms are fixed. Layer names are torchvision's.

    Args:
        net: the ResNet. Its classifier is left out.
        stride: pixels per feature of `net`.
        frozen: number of parts that are not trained, counted from the first of stem, layer1, ..., layer4.

    Example:
        >>> net = torchvision().models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        >>> ResNetTrunk(net, stride=16, frozen=0)(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 2048, 5, 5])
    """

    def __init__(self, net: Any, *, stride: int, frozen: int) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.stride, self.channels = stride, int(net.fc.in_features)
        self.parts = [name for part in _RESNET for name in part]
        for name in self.parts:
            self.add_module(name, getattr(net, name))
        for name in (name for part in _RESNET[:frozen] for name in part):
            self.get_submodule(name).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> ResNetTrunk:
        """Set the mode. The batch norms stay in evaluation."""
        super().train(mode)
        fix_batch_norms(self)
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW of layer4."""
        x_BCHW: Tensor = self.normalize(image_BCHW)
        for name in self.parts:
            x_BCHW = self.get_submodule(name)(x_BCHW)
        return x_BCHW

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0 and the pixels per feature: odd kernels with padding start at pixel 0 at any size."""
        return 0.0, float(self.stride)


def _scaled(channels: int, width: float) -> int:
    """Return the channel count times `width`, at least 1."""
    return max(1, round(channels * width))
