"""Wrap networks as trunks: any module of one's own, and those of efficientnet_lite_pytorch and timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from wsss_ray.nets.modules import IMAGENET_MEAN, IMAGENET_STD, Normalize, fix_batch_norms


class EfficientNetTrunk(nn.Module):
    """Trunk around an `efficientnet_lite_pytorch` network: no classifier, a smaller stride, fixed batch norms.

    Each stride beyond `output_stride` is removed. All later depthwise convolutions are dilated instead, so that each one still
    covers the same part of the image. There is no stochastic depth.

    Args:
        net: the network; this class changes it. Build it with `image_size=None`: it then pads as TensorFlow does ("same"), by the
            size of the input, the stride and the dilation.
        output_stride: pixels per feature: 32, 16 or 8.
        features: "block" for the output of the last block, "head" for the output of the 1x1 convolution after it.
        frozen: train no parameter.

    Example:
        >>> net = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        >>> trunk = EfficientNetTrunk(net, output_stride=16, features="head", frozen=False)
        >>> trunk(torch.rand(1, 3, 65, 65) * 255).shape
        torch.Size([1, 1280, 5, 5])
    """

    def __init__(self, net: Any, *, output_stride: int, features: Literal["block", "head"], frozen: bool) -> None:
        super().__init__()
        del net._fc, net._dropout, net._avg_pooling  # unused parameters would stop distributed training
        if features == "block":
            del net._conv_head, net._bn1
        self.net: Any = net.to(memory_format=torch.channels_last)  # makes depthwise convolutions much faster
        self.features = features
        stride, dilation = 2, 1  # after the stem
        for block in net._blocks:
            conv = block._depthwise_conv
            conv.dilation = (dilation, dilation)
            if tuple(conv.stride) in ((2,), (2, 2)):
                if stride >= output_stride:
                    conv.stride = (1, 1)
                    dilation *= 2
                else:
                    stride *= 2
        last = net._conv_head if features == "head" else net._blocks[-1]._project_conv
        self.channels: int = last.out_channels
        for module in net.modules():
            fixed = frozen or isinstance(module, nn.BatchNorm2d)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(not fixed)
        self.train()

    def train(self, mode: bool = True) -> EfficientNetTrunk:
        """Set the mode of this module. The wrapped network stays in evaluation: batch statistics would couple the images."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW of images with values 0..255."""
        net = self.net
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        x_BCHW: Tensor = net._swish(net._bn0(net._conv_stem((image_BCHW - 127.0) / 128.0)))
        for block in net._blocks:
            x_BCHW = block(x_BCHW)
        if self.features == "head":
            x_BCHW = net._swish(net._bn1(net._conv_head(x_BCHW)))
        return x_BCHW.contiguous()

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0 and the pixels per feature, along a side of `size` pixels.

        On even sides, TensorFlow's padding shifts each layer with a stride by one pixel.
        """
        first, step = 0.0, 1.0
        convs = [self.net._conv_stem, *(block._depthwise_conv for block in self.net._blocks)]
        for kernel, stride in ((conv.kernel_size[0], conv.stride[0]) for conv in convs):
            if stride == 2:
                cells = -(-size // 2)
                padding = max(0, (cells - 1) * 2 + kernel - size)
                first, step, size = first + step * ((kernel - 1) / 2 - padding // 2), step * 2, cells
        return first, step


class ModuleTrunk(nn.Module):
    """Trunk around any network that maps normalised images to one feature map: image_BCHW (RGB, 0..255) -> features_BCHW.

    The network always runs in evaluation mode. This keeps batch norms fixed and switches off dropout and stochastic depth, whose
    randomness would not come from the images' keys. Parameters that the features do not depend on are not trained.

    Args:
        net: the network. It must accept images of any size.
        stride: pixels per feature.
        alignment: position of the features. "corner": feature i lies at pixel i * stride. "cell": it lies in the middle of the
            i-th group of stride pixels; images are padded with the mean colour on the right and at the bottom to whole cells.
            "auto": "cell" if a convolution or a max pooling has a stride equal to its kernel size, else "corner".
        mean: mean of each colour, 0..255, that the network expects to be subtracted. Default: that of ImageNet.
        std: standard deviation of each colour, by which the network expects to be divided.

    Raises:
        ValueError: if the features of a small test image do not have the stride.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 48, 8, stride=8), nn.GELU())
        >>> trunk = ModuleTrunk(net, stride=8)
        >>> trunk(torch.rand(1, 3, 64, 64) * 255).shape, trunk.channels, trunk.centres(64)
        (torch.Size([1, 48, 8, 8]), 48, (3.5, 8.0))
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        stride: int,
        alignment: Literal["auto", "corner", "cell"] = "auto",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if alignment == "auto":
            alignment = "cell" if any(_moves_by_its_size(module) for module in net.modules()) else "corner"
        self.normalize, self.net, self.alignment, self.stride = Normalize(mean, std), net, alignment, stride
        self.train()
        side, parameters = 4 * stride + 1, list(net.parameters())
        with torch.enable_grad():
            x_BCHW = self(torch.zeros(1, 3, side, side))
            reached = torch.autograd.grad(x_BCHW.sum(), parameters, allow_unused=True) if parameters else ()
        if x_BCHW.ndim != 4 or x_BCHW.shape[0] != 1 or x_BCHW.shape[2:] != (5, 5):
            expected = f"(1, channels, 5, 5) at stride {stride}"
            raise ValueError(f"an image of {side} x {side} has features {tuple(x_BCHW.shape)}, not {expected}")
        self.channels: int = x_BCHW.shape[1]
        for parameter, grad in zip(parameters, reached, strict=True):
            parameter.requires_grad_(grad is not None)  # unused parameters would stop distributed training
        fix_batch_norms(net)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module. The wrapped network stays in evaluation."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW."""
        x_BCHW: Tensor = self.normalize(image_BCHW)
        if self.alignment == "cell":
            height, width = x_BCHW.shape[-2:]
            x_BCHW = nn.functional.pad(x_BCHW, (0, -width % self.stride, 0, -height % self.stride))
        return self.features(x_BCHW).contiguous()

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return the network's features_BCHW of normalised images."""
        features_BCHW: Tensor = self.net(x_BCHW)
        return features_BCHW

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0 and the pixels per feature."""
        return (self.stride - 1) / 2 if self.alignment == "cell" else 0.0, float(self.stride)


class TimmTrunk(ModuleTrunk):
    """Trunk around a feature extractor of timm.

    Args:
        net: a timm model made with `features_only=True` and one output index.
        alignment: position of the features; see `ModuleTrunk`.

    Raises:
        ValueError: if the features of a small test image do not have the stride that timm states.

    Example:
        >>> net = timm.create_model("resnet18", features_only=True, out_indices=(-1,))
        >>> TimmTrunk(net, alignment="auto")(torch.rand(1, 3, 65, 65) * 255).shape
        torch.Size([1, 512, 3, 3])
    """

    def __init__(self, net: Any, *, alignment: Literal["auto", "corner", "cell"]) -> None:
        mean, std = ([255.0 * value for value in net.pretrained_cfg[name]] for name in ("mean", "std"))
        net.pretrained_cfg = net.default_cfg = None  # may hold a second copy of the weights
        super().__init__(net, stride=int(net.feature_info.reduction()[-1]), alignment=alignment, mean=mean, std=std)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """See `ModuleTrunk.features`."""
        features_BCHW: Tensor = self.net(x_BCHW)[-1]
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        return features_BCHW.permute(0, 3, 1, 2) if channels_last else features_BCHW


def _moves_by_its_size(module: nn.Module) -> bool:
    """Return True for a convolution or a max pooling whose stride equals its kernel size, above 1."""
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return False
    kernel, stride = (size if isinstance(size, tuple) else (size, size) for size in (module.kernel_size, module.stride))
    return kernel == stride and kernel[0] > 1
