"""Build classifiers whose last layer outputs class activation maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_ray.nets.modules import KeyedDropout, init_he


class CamNet(nn.Module):
    """Classifier with a trunk and one or more blocks. The logits of a block are its maps, averaged over the image.

    `forward(image_BCHW)` returns logits_BGK for G blocks. Only MDC has more than one block.

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build` returns it.
        num_classes: number of classes K.
        rates: dilation of each block.
        hidden: channels of a block's convolutions; None for blocks that have only a class layer.
        layers: convolutions per block.
        dropout: dropout probability before each class layer.
        whole_channels: drop whole channels instead of elements.
        hidden_std: standard deviation of the initial weights of the blocks' 3x3 convolutions; None for He et al.

    Example:
        >>> net = CamNet(SmallNet().build(), num_classes=20, rates=(1,), hidden=None, layers=1, dropout=0.0)
        >>> net(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1, 20])
        >>> net.cams(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1, 20, 16, 16])
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        num_classes: int,
        rates: Sequence[int],
        hidden: int | None,
        layers: int,
        dropout: float,
        whole_channels: bool = False,
        hidden_std: float | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        channels: int = trunk.channels  # type: ignore[assignment]
        self.blocks = nn.ModuleList(
            cam_block(
                channels,
                num_classes,
                rate=rate,
                hidden=hidden,
                layers=layers,
                dropout=dropout,
                whole_channels=whole_channels,
                hidden_std=hidden_std,
            )
            for rate in rates
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits_BGK, the class scores before the sigmoid."""
        return self.cams(image_BCHW).mean(dim=(-2, -1))

    def cams(self, image_BCHW: Tensor) -> Tensor:
        """Return the raw maps_BGKhw, with positive and negative values."""
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
    hidden_std: float | None = None,
) -> nn.Sequential:
    """Build one block: `layers` dilated 3x3 convolutions with ReLU, dropout, and a class layer (1x1, no bias).

    The weights of the class layer start at N(0, 0.01).

    Args:
        channels: channels of the features.
        num_classes: number of classes K.
        rate: dilation of the 3x3 convolutions.
        hidden: channels of the 3x3 convolutions; None leaves them out.
        layers: number of 3x3 convolutions.
        dropout: dropout probability before the class layer.
        whole_channels: drop whole channels instead of elements.
        hidden_std: standard deviation of the initial weights of the 3x3 convolutions; None for He et al.

    Returns:
        A module features_BCHW -> maps_BKHW.

    Example:
        >>> cam_block(96, 20, rate=3, hidden=64, dropout=0.5).eval()(torch.rand(1, 96, 16, 16)).shape
        torch.Size([1, 20, 16, 16])
    """
    stack: list[nn.Module] = []
    for _ in range(layers if hidden is not None else 0):
        assert hidden is not None
        stack += [nn.Conv2d(channels, hidden, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)]
        channels = hidden
    stack += [KeyedDropout(dropout, whole_channels=whole_channels), nn.Conv2d(channels, num_classes, 1, bias=False)]
    init_he(stack)
    if hidden_std is not None:
        for layer in stack[:-1]:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=hidden_std)
    nn.init.normal_(stack[-1].weight, std=0.01)  # type: ignore[arg-type]
    return nn.Sequential(*stack)
