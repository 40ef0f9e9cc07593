"""ResNet (He, Zhang, Ren and Sun, CVPR 2016) as torchvision has it, as a fully convolutional trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class ResNet(Trunk):
    """ResNet50 or ResNet101 up to layer4: 2048 channels, at stride 8 321 x 321 -> 41 x 41. Batch norms are fixed.

    Dropped strides become dilations of the 3x3 convolutions behind them. torchvision strides in the 3x3 convolution of a
    bottleneck; the Caffe model of DeepLab v2 strides in the 1x1 before it. State dicts of torchvision's resnet50 and resnet101
    fit as they are; their classifier is left out.
    """

    depth: Literal[50, 101] = Field(default=50, description="Layers.")
    output_stride: Literal[8, 16] = Field(default=16, description="Pixels per feature.")
    weights: Weights = Field(
        default=Weights(source="imagenet"), description="none, imagenet (torchvision's IMAGENET1K_V1), or a file."
    )
    frozen: int = Field(default=0, ge=0, le=5, description="How many of stem, layer1, ..., layer4 are not trained.")

    @classmethod
    def kind(cls) -> str:
        """The name in job files."""
        return "resnet"

    def build(self) -> nn.Module:
        """See `Trunk.build`. ValueError if the weights are missing or do not fit."""
        from wsss_ray.nets.residual import ResNetTrunk
        from wsss_ray.nets.torchvision_safe import torchvision

        build = getattr(torchvision().models, f"resnet{self.depth}")
        net: nn.Module = build(weights=None, replace_stride_with_dilation=[False, self.output_stride == 8, True])
        trunk = ResNetTrunk(net, stride=self.output_stride, frozen=self.frozen)
        if state := load_weights(self.weights, imagenet=self._imagenet):
            copy_weights(trunk, state, ignore=("fc.",))
        return trunk

    def _imagenet(self) -> dict[str, Tensor]:
        from wsss_ray.nets.torchvision_safe import torchvision

        weights = getattr(torchvision().models, f"ResNet{self.depth}_Weights").IMAGENET1K_V1
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        return state
