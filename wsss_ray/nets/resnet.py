"""Build torchvision's ResNet (He, Zhang, Ren and Sun, CVPR 2016) as a fully convolutional trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class ResNet(Trunk):
    """ResNet50 or ResNet101 up to layer4, with 2048 channels. At stride 8, 321 x 321 -> 41 x 41. Batch norms are fixed.

    Removed strides become dilations of the 3x3 convolutions after them. torchvision puts the stride of a bottleneck into its 3x3
    convolution; the Caffe model of DeepLab v2 puts it into the 1x1 before. State dicts of torchvision's resnet50 and resnet101
    fit without changes; their classifier is ignored.
    """

    depth: Literal[50, 101] = Field(default=50, description="Number of layers.")
    output_stride: Literal[8, 16] = Field(default=16, description="Pixels per feature.")
    weights: Weights = Field(
        default=Weights(source="imagenet"), description="none, imagenet (torchvision's IMAGENET1K_V1), or a path to a file."
    )
    frozen: int = Field(
        default=0, ge=0, le=5, description="Number of parts that are not trained, in the order stem, layer1, ..., layer4."
    )

    @classmethod
    def kind(cls) -> str:
        """Return the name in job files."""
        return "resnet"

    @property
    def is_frozen(self) -> bool:
        """Return True if no part is trained and there are weights. See `Trunk.is_frozen`."""
        return self.frozen == 5 and self.weights.source != "none"

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """
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
