"""The networks as torch modules. The components that configure them are in the other files here and import no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class Normalize(nn.Module):
    """(image_BCHW - mean) / std, each of three colours for itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Normalise."""
        return (image_BCHW - self.mean) / self.std


def fix_batch_norms(net: nn.Module) -> None:
    """Put all batch norms of `net` in evaluation and train none of them: statistics of a batch would couple its images."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)


class ConvTrunk(nn.Module):
    """image_BCHW (RGB, 0..255) -> features_BCHW: normalise each colour, then a plain sequence of layers."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, features: nn.Sequential, *, channels: int, stride: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.features, self.channels, self.stride = features, channels, stride
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Features at the trunk's stride."""
        x_BCHW: Tensor = self.features((image_BCHW - self.mean) / self.std)
        return x_BCHW

    def centres(self, size: int) -> tuple[float, float]:
        """Pixel of feature 0 and pixels per feature: odd kernels with their own padding start at pixel 0, whatever the size."""
        return 0.0, float(self.stride)


def vgg16_trunk(*, width: float, pool5: bool) -> ConvTrunk:
    """VGG16 at stride 8, its layers numbered as torchvision's `features.N`. Convolutions as torchvision initialises them."""
    layers: list[nn.Module] = []
    channels, pools = 3, 0
    for item in _VGG16:
        if isinstance(item, str):
            pools += 1
            layers.append(_pool(stride=2 if pools < 4 else 1))
            continue
        out = max(1, round(item * width))
        dilation = 2 if pools == 4 else 1
        layers += [nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
        channels = out
    if pool5:
        layers += [_pool(stride=1), nn.AvgPool2d(3, stride=1, padding=1)]
    init_he(layers)
    return ConvTrunk(nn.Sequential(*layers), channels=channels, stride=8, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def small_trunk(*, widths: Sequence[int], strides: Sequence[int]) -> ConvTrunk:
    """3x3 convolution, group norm, ReLU for each width. As many groups as divide both 8 and the width."""
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in zip(widths, strides, strict=True):
        conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.GroupNorm(math.gcd(width, 8), width), nn.ReLU(inplace=True)]
        channels = width
    init_he(layers)
    return ConvTrunk(nn.Sequential(*layers), channels=channels, stride=math.prod(strides), mean=(127.5,) * 3, std=(63.75,) * 3)


class EfficientNetTrunk(nn.Module):
    """The `efficientnet_lite_pytorch` network `net` without its classifier, at a smaller stride, its batch norms fixed.

    Where a stride is dropped, all later depthwise convolutions are dilated, so that each keeps its reach on the image. `net`
    pads as TensorFlow does ("same", by the input's size, stride and dilation), so it must be built with image_size None.
    """

    def __init__(self, net: Any, *, output_stride: int, features: Literal["block", "head"], frozen: bool) -> None:
        super().__init__()
        del net._fc, net._dropout, net._avg_pooling  # unused parameters would stop distributed training
        if features == "block":
            del net._conv_head, net._bn1
        self.net: Any = net.to(memory_format=torch.channels_last)  # depthwise convolutions are much faster so
        self.features = features
        stride, dilation = 2, 1  # behind the stem
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
        """Set the mode; the batch norms stay in evaluation, for statistics of a batch would couple its images."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Features of the last block, or of the 1x1 convolution behind it. No stochastic depth."""
        net = self.net
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        x_BCHW: Tensor = net._swish(net._bn0(net._conv_stem((image_BCHW - 127.0) / 128.0)))
        for block in net._blocks:
            x_BCHW = block(x_BCHW)
        if self.features == "head":
            x_BCHW = net._swish(net._bn1(net._conv_head(x_BCHW)))
        return x_BCHW.contiguous()

    def centres(self, size: int) -> tuple[float, float]:
        """Pixel of feature 0 and pixels per feature. On even sides TensorFlow's padding moves each strided layer by a pixel."""
        first, step = 0.0, 1.0
        convs = [self.net._conv_stem, *(block._depthwise_conv for block in self.net._blocks)]
        for kernel, stride in ((conv.kernel_size[0], conv.stride[0]) for conv in convs):
            if stride == 2:
                cells = -(-size // 2)
                padding = max(0, (cells - 1) * 2 + kernel - size)
                first, step, size = first + step * ((kernel - 1) / 2 - padding // 2), step * 2, cells
        return first, step


class TimmTrunk(nn.Module):
    """image_BCHW (RGB, 0..255) -> one feature map of timm's feature extractor `net`, as BCHW, always in evaluation.

    Evaluation keeps batch norms fixed and leaves out dropout and stochastic depth, whose randomness would not come from the
    images' keys. One small image is passed through `net` here: ValueError unless the features have the stride that timm says.

    With `alignment` "corner" feature i lies at pixel i * stride. With "cell" it lies in the middle of the i-th stride pixels,
    and images are continued to the right and below to whole cells, with the mean colour. "auto" is "cell" where a convolution or
    a maximum moves by its whole size.
    """

    def __init__(self, net: Any, *, alignment: Literal["auto", "corner", "cell"]) -> None:
        super().__init__()
        if alignment == "auto":
            alignment = "cell" if any(_moves_by_its_size(module) for module in net.modules()) else "corner"
        mean, std = ([255.0 * value for value in net.pretrained_cfg[name]] for name in ("mean", "std"))
        net.pretrained_cfg = net.default_cfg = None  # may hold a second copy of the weights
        self.normalize, self.net, self.alignment = Normalize(mean, std), net, alignment
        self.channels, self.stride = int(net.feature_info.channels()[-1]), int(net.feature_info.reduction()[-1])
        self.channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self.train()
        side, parameters = 4 * self.stride + 1, list(net.parameters())
        with torch.enable_grad():
            x_BCHW = self(torch.zeros(1, 3, side, side))
            reached = torch.autograd.grad(x_BCHW.sum(), parameters, allow_unused=True)
        if x_BCHW.shape != (1, self.channels, 5, 5):
            expected = f"(1, {self.channels}, 5, 5) at stride {self.stride}"
            raise ValueError(f"an image of {side} x {side} has features {tuple(x_BCHW.shape)}, not {expected}")
        for parameter, grad in zip(parameters, reached, strict=True):
            parameter.requires_grad_(grad is not None)  # unused parameters would stop distributed training
        fix_batch_norms(net)

    def train(self, mode: bool = True) -> TimmTrunk:
        """Set the mode of this module; `net` stays in evaluation."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The chosen features."""
        x_BCHW: Tensor = self.normalize(image_BCHW)
        if self.alignment == "cell":
            height, width = x_BCHW.shape[-2:]
            x_BCHW = nn.functional.pad(x_BCHW, (0, -width % self.stride, 0, -height % self.stride))
        x_BCHW = self.net(x_BCHW)[-1]
        return (x_BCHW.permute(0, 3, 1, 2) if self.channels_last else x_BCHW).contiguous()

    def centres(self, size: int) -> tuple[float, float]:
        """Pixel of feature 0 and pixels per feature."""
        return (self.stride - 1) / 2 if self.alignment == "cell" else 0.0, float(self.stride)


def _moves_by_its_size(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return False
    kernel, stride = (size if isinstance(size, tuple) else (size, size) for size in (module.kernel_size, module.stride))
    return kernel == stride and kernel[0] > 1


class KeyedDropout(nn.Module):
    """Dropout (Caffe's: kept values grow by 1 / (1 - p)) of elements or whole channels, its masks from one key per image.

    An image's mask depends on its key, the layer and the feature's shape, on nothing else: not on the batch around it, the
    worker, the device, or torch's global generator. Call `set_dropout_keys` before each forward pass in training. In evaluation,
    or with p 0, it does nothing.
    """

    def __init__(self, p: float, *, whole_channels: bool = False) -> None:
        super().__init__()
        self.p, self.whole_channels, self.layer = p, whole_channels, 0
        self.keys: tuple[int, ...] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Zero the dropped elements or channels."""
        if not self.training or self.p == 0:
            return x_BCHW
        assert self.keys is not None, "KeyedDropout in training without keys: call set_dropout_keys(net, batch.keys_B) first"
        assert len(self.keys) == len(x_BCHW), f"{len(self.keys)} dropout keys for {len(x_BCHW)} images"
        shape = (*x_BCHW.shape[:2], 1, 1) if self.whole_channels else x_BCHW.shape
        bits = random_bits(self.keys, stream=self.layer, count=math.prod(shape[1:]), device=x_BCHW.device)
        keep_BCHW = (bits >= round(self.p * 2**16) - 2**15).view(shape)
        return x_BCHW * keep_BCHW / (1.0 - self.p)

    def extra_repr(self) -> str:
        """For print(net)."""
        return f"p={self.p}" + (", whole_channels=True" if self.whole_channels else "")


def set_dropout_keys(net: nn.Module, keys: Sequence[int]) -> None:
    """Hand the images' keys to every `KeyedDropout` in `net`, which may be wrapped; each layer draws its own masks."""
    layers = [module for module in net.modules() if isinstance(module, KeyedDropout)]
    for index, module in enumerate(layers):
        module.keys, module.layer = tuple(keys), index


def random_bits(keys: Sequence[int], *, stream: int, count: int, device: torch.device) -> Tensor:
    """Uniform int16 (len(keys), count): row b is a function of keys[b] and `stream` alone, equal on every device.

    SplitMix64 (Steele et al., OOPSLA 2014) at the counters 1, 2, ..., four numbers from each 64-bit word. Counters need no
    sequential generator, so the masks are drawn where they are used.
    """
    starts = [_signed(_mix(_mix(key % 2**64) + stream)) for key in keys]
    words = torch.arange(1, -(-count // 4) + 1, device=device) * _signed(_GAMMA)
    z = words + torch.tensor(starts, dtype=torch.int64, device=device)[:, None]
    for shift, factor in _ROUNDS:
        z = z ^ ((z >> shift) & (2 ** (64 - shift) - 1))  # a logical shift
        z = z * _signed(factor)
    z = z ^ ((z >> 31) & (2**33 - 1))
    return z.view(torch.int16)[:, :count]


_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _mix(value: int) -> int:
    z = (value + _GAMMA) % 2**64
    for shift, factor in _ROUNDS:
        z = (z ^ (z >> shift)) * factor % 2**64
    return z ^ (z >> 31)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _pool(*, stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=stride, padding=1, ceil_mode=True)  # Caffe rounds up


def init_he(layers: Sequence[nn.Module]) -> None:
    """Start convolutions as He et al. (ICCV 2015), biases at 0."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def bare(net: nn.Module) -> nn.Module:
    """The network itself, where `net` may be wrapped for distributed training."""
    inner = getattr(net, "module", None)
    return inner if isinstance(inner, nn.Module) else net
