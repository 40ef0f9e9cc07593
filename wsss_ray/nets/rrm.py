"""RRM's network: one trunk, a classification branch whose maps make the labels, a segmentation branch that learns them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsss_ray.nets.cam import cam_block
from wsss_ray.nets.segnet import AtrousHead, SegNet


class RrmNet(SegNet):
    """forward(image_BCHW) -> (logits_BK of the tags, logits_BLhw of the pixels). Its first two parts are named as in `CamNet`."""

    def __init__(self, trunk: nn.Module, head: AtrousHead, *, num_classes: int, dropout: float) -> None:
        super().__init__(trunk, head)
        channels: int = trunk.channels  # type: ignore[assignment]
        self.blocks = nn.ModuleList([cam_block(channels, num_classes, dropout=dropout, whole_channels=True)])

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Both branches on the same features."""
        x_BCHW = self.trunk(image_BCHW)
        return self.blocks[0](x_BCHW).mean(dim=(-2, -1)), self.head(x_BCHW)

    def cams(self, image_BCHW: Tensor) -> Tensor:
        """Raw maps_BKhw of the classification branch."""
        maps: Tensor = self.blocks[0](self.trunk(image_BCHW))
        return maps

    def segment(self, image_BCHW: Tensor) -> Tensor:
        """Logits_BLhw of the segmentation branch alone."""
        logits: Tensor = self.head(self.trunk(image_BCHW))
        return logits


def class_maps(net: RrmNet, image_BCHW: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Multi-scale maps_BKhw (Eq. 2), in evaluation mode and without a gradient: the labels are constants."""
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
