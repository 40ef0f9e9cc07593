"""A classifier whose last layer gives its class activation maps: a trunk, one or more blocks, and a class layer behind each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_ray.nets.modules import KeyedDropout, init_he


class CamNet(nn.Module):
    """forward(image_BCHW) -> logits_BGK: every block's maps averaged over the image. G is 1 but for MDC."""

    def __init__(
        self, trunk: nn.Module, *, num_classes: int, rates: Sequence[int], hidden: int | None, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.trunk = trunk
        channels: int = trunk.channels  # type: ignore[assignment]
        self.blocks = nn.ModuleList(
            cam_block(channels, num_classes, rate=rate, hidden=hidden, layers=layers, dropout=dropout) for rate in rates
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Class scores before the sigmoid."""
        return self.cams(image_BCHW).mean(dim=(-2, -1))

    def cams(self, image_BCHW: Tensor) -> Tensor:
        """Raw maps_BGKhw, positive and negative."""
        x_BCHW = self.trunk(image_BCHW)
        return torch.stack([block(x_BCHW) for block in self.blocks], dim=1)


def cam_block(
    channels: int,
    num_classes: int,
    *,
    rate: int = 1,
    hidden: int | None = None,
    layers: int = 1,
    dropout: float,
    whole_channels: bool = False,
) -> nn.Sequential:
    """`layers` times (3x3 convolution to `hidden` channels at dilation `rate`, ReLU), dropout, and the class layer without bias.

    With `hidden` None there is nothing but the class layer, which starts at N(0, 0.01).
    """
    stack: list[nn.Module] = []
    for _ in range(layers if hidden is not None else 0):
        assert hidden is not None
        stack += [nn.Conv2d(channels, hidden, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)]
        channels = hidden
    stack += [KeyedDropout(dropout, whole_channels=whole_channels), nn.Conv2d(channels, num_classes, 1, bias=False)]
    init_he(stack)
    nn.init.normal_(stack[-1].weight, std=0.01)  # type: ignore[arg-type]
    return nn.Sequential(*stack)
