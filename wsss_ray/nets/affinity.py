"""Build PSA's AffinityNet: a trunk whose layers are brought to features that are alike where the class is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AffinityNet(nn.Module):
    """Network image_BCHW -> features_BFhw at the trunk's stride; their distances give affinities (`ops/affinity.py`).

    Each layer of the trunk gets a 1x1 convolution and an ELU; a last 1x1 convolution and ELU joins them. They have no bias and
    start as in the authors' code.

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build_levels` returns it.
        channels: channels of each layer that the trunk returns.
        widths: channels that each layer is brought to, one for each layer.
        grouped: put a group norm of 8 channels a group behind the convolution of each layer, as the authors do on VGG16.

    Example:
        >>> trunk, channels = SmallNet().build_levels()
        >>> AffinityNet(trunk, channels, widths=(32,))(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(self, trunk: nn.Module, channels: Sequence[int], *, widths: Sequence[int], grouped: bool = False) -> None:
        super().__init__()
        self.trunk, self.channels = trunk, tuple(channels)
        self.levels = nn.ModuleList()
        for channel, width in zip(channels, widths, strict=True):
            conv = nn.Conv2d(channel, width, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            norm = [nn.GroupNorm(max(1, width // 8), width)] if grouped else []
            self.levels.append(nn.Sequential(conv, *norm, nn.ELU()))
        joined = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        nn.init.xavier_uniform_(joined.weight, gain=4)
        self.joined = nn.Sequential(joined, nn.ELU())

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BFhw."""
        parts = self.trunk(image_BCHW).split(self.channels, dim=1)
        found: Tensor = self.joined(torch.cat([level(part) for level, part in zip(self.levels, parts, strict=True)], dim=1))
        return found
