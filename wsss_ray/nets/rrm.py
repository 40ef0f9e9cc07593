"""Build RRM's network: one trunk, a classification branch whose maps give labels, a segmentation branch that learns them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsss_ray.nets.cam import cam_block
from wsss_ray.nets.segnet import AtrousHead, SegNet


class RrmNet(SegNet):
    """Network with a classification and a segmentation branch on one trunk.

    `forward(image_BCHW)` returns logits_BK of the tags and logits_BLhw of the pixels. `trunk` and `blocks` have the same names
    as in `CamNet`.

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build` returns it.
        head: head of the segmentation branch.
        num_classes: number of classes K.
        dropout: probability that a whole channel is dropped before the class layer.

    Example:
        >>> trunk = SmallNet().build()
        >>> net = RrmNet(trunk, DilatedPair().build(trunk.channels, 21), num_classes=20, dropout=0.0)
        >>> [logits.shape for logits in net(torch.rand(1, 3, 64, 64))]
        [torch.Size([1, 20]), torch.Size([1, 21, 16, 16])]
    """

    def __init__(self, trunk: nn.Module, head: AtrousHead, *, num_classes: int, dropout: float) -> None:
        super().__init__(trunk, head)
        channels: int = trunk.channels  # type: ignore[assignment]
        self.blocks = nn.ModuleList([cam_block(channels, num_classes, dropout=dropout, whole_channels=True)])

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return logits_BK and logits_BLhw, computed from the same features."""
        x_BCHW = self.trunk(image_BCHW)
        return self.blocks[0](x_BCHW).mean(dim=(-2, -1)), self.head(x_BCHW)

    def cams(self, image_BCHW: Tensor) -> Tensor:
        """Return the raw maps_BKhw of the classification branch."""
        maps: Tensor = self.blocks[0](self.trunk(image_BCHW))
        return maps

    def segment(self, image_BCHW: Tensor) -> Tensor:
        """Return logits_BLhw of the segmentation branch only."""
        logits: Tensor = self.head(self.trunk(image_BCHW))
        return logits


def class_maps(net: RrmNet, image_BCHW: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Compute multi-scale class activation maps (Eq. 2) in evaluation mode and without a gradient.

    The labels made from these maps are constants of the loss. The mode of `net` is restored afterwards.

    Args:
        net: the network.
        image_BCHW: RGB images, 0..255.
        scales: sizes of the input, relative to the images; the maps lie on the grid of the first.

    Returns:
        maps_BKhw, not normalised.

    Example:
        >>> class_maps(net, torch.rand(1, 3, 64, 64), scales=(1.0, 0.5)).shape
        torch.Size([1, 20, 16, 16])
    """
    from torch.nn.functional import interpolate

    from wsss_ray.ops.cam import merge_scales
    from wsss_ray.ops.multiscale import scaled_sizes

    size = (image_BCHW.shape[-2], image_BCHW.shape[-1])
    images = [image_BCHW if at == size else interpolate(image_BCHW, at, mode="bilinear") for at in scaled_sizes(*size, scales)]
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            return merge_scales(net.cams, net.trunk, images)
    finally:
        net.train(training)
