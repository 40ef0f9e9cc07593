"""Define torch modules that several networks share: normalisation, plain convolutional trunks and keyed dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_ray.ops import splitmix

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class Normalize(nn.Module):
    """Layer that computes (image_BCHW - mean) / std for each of three colour channels.

    Args:
        mean: mean of each channel.
        std: standard deviation of each channel.

    Example:
        >>> Normalize(IMAGENET_MEAN, IMAGENET_STD)(torch.rand(1, 3, 8, 8) * 255).shape
        torch.Size([1, 3, 8, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the normalised images."""
        return (image_BCHW - self.mean) / self.std


def fix_batch_norms(net: nn.Module) -> None:
    """Put all batch norms of a network in evaluation mode and freeze them: batch statistics would couple the images.

    Args:
        net: network; changed.

    Example:
        >>> norm = nn.BatchNorm2d(8)
        >>> fix_batch_norms(norm)
        >>> norm.training, norm.weight.requires_grad
        (False, False)
    """
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)


class ConvTrunk(nn.Module):
    """Trunk image_BCHW (RGB, 0..255) -> features_BCHW that normalises each colour and runs a sequence of layers.

    Args:
        features: the layers.
        channels: channels of their output.
        stride: pixels per feature.
        mean: mean of each colour.
        std: standard deviation of each colour.
        levels: numbers of layers whose outputs are returned too, before the last one along the channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Sequential,
        *,
        channels: int,
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.features, self.channels, self.stride, self.levels = features, channels, stride, tuple(levels)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW at the trunk's stride."""
        x_BCHW: Tensor = (image_BCHW - self.mean) / self.std
        below: list[Tensor] = []
        for number, layer in enumerate(self.features):
            x_BCHW = layer(x_BCHW)
            if number in self.levels:
                below.append(x_BCHW)
        return torch.cat([*below, x_BCHW], dim=1) if below else x_BCHW

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0 and the pixels per feature: odd kernels with padding start at pixel 0 at any size."""
        return 0.0, float(self.stride)


def vgg16_trunk(*, width: float, pool5: bool, conv4: bool = False) -> ConvTrunk:
    """Build VGG16 at stride 8. It numbers layers as torchvision's `features.N` and initialises convolutions as torchvision.

    Args:
        width: factor for all channel counts.
        pool5: add pool5 and pool5a of DeepLab.
        conv4: return the features of conv4_3 too, before the last ones along the channels.

    Returns:
        The trunk with random weights.

    Example:
        >>> vgg16_trunk(width=0.125, pool5=False)(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 64, 9, 9])
    """
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
    levels = [number - 1 for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)][3:4] if conv4 else []
    channels += channels * len(levels)  # conv4_3 and conv5_3 are equally wide
    return ConvTrunk(nn.Sequential(*layers), channels=channels, stride=8, mean=IMAGENET_MEAN, std=IMAGENET_STD, levels=levels)


def small_trunk(*, widths: Sequence[int], strides: Sequence[int]) -> ConvTrunk:
    """Build a trunk with a 3x3 convolution, a group norm and a ReLU for each width.

    Args:
        widths: channels of each layer. A group norm has gcd(width, 8) groups.
        strides: stride of each layer.

    Returns:
        The trunk with random weights.

    Example:
        >>> small_trunk(widths=(8, 16), strides=(2, 2))(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 16, 16, 16])
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in zip(widths, strides, strict=True):
        conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.GroupNorm(math.gcd(width, 8), width), nn.ReLU(inplace=True)]
        channels = width
    init_he(layers)
    return ConvTrunk(nn.Sequential(*layers), channels=channels, stride=math.prod(strides), mean=(127.5,) * 3, std=(63.75,) * 3)


class KeyedDropout(nn.Module):
    """Dropout of elements or whole channels with masks drawn from one key per image.

    Kept values are multiplied by 1 / (1 - p), as in Caffe. The mask of an image depends only on its key, the layer and the shape
    of the features: not on the rest of the batch, the worker, the device or torch's global generator. Call `set_dropout_keys`
    before each forward pass in training. In evaluation, or with p = 0, the layer does nothing.

    Args:
        p: dropout probability.
        whole_channels: drop whole channels instead of elements.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), KeyedDropout(0.5))
        >>> set_dropout_keys(net, keys=(17, 42))
        >>> net(torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, p: float, *, whole_channels: bool = False) -> None:
        super().__init__()
        self.p, self.whole_channels, self.layer = p, whole_channels, 0
        self.keys: tuple[int, ...] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the features with dropped elements or channels set to 0."""
        if not self.training or self.p == 0:
            return x_BCHW
        assert self.keys is not None, "KeyedDropout in training without keys: call set_dropout_keys(net, batch.keys_B) first"
        assert len(self.keys) == len(x_BCHW), f"{len(self.keys)} dropout keys for {len(x_BCHW)} images"
        shape = (*x_BCHW.shape[:2], 1, 1) if self.whole_channels else x_BCHW.shape
        bits = random_bits(self.keys, stream=self.layer, count=math.prod(shape[1:]), device=x_BCHW.device)
        keep_BCHW = (bits >= round(self.p * 2**16) - 2**15).view(shape)
        return x_BCHW * keep_BCHW / (1.0 - self.p)

    def extra_repr(self) -> str:
        """Return the text for print(net)."""
        return f"p={self.p}" + (", whole_channels=True" if self.whole_channels else "")


def set_dropout_keys(net: nn.Module, keys: Sequence[int]) -> None:
    """Set the keys of a batch in every `KeyedDropout` of a network. Each layer draws its own masks.

    Args:
        net: network, which may be wrapped for distributed training.
        keys: one key per image, as `Batch.keys_B`.

    Example:
        >>> set_dropout_keys(net, batch.keys_B)
        >>> logits = net(batch.image_BCHW)
    """
    layers = [module for module in net.modules() if isinstance(module, KeyedDropout)]
    for index, module in enumerate(layers):
        module.keys, module.layer = tuple(keys), index


def random_bits(keys: Sequence[int], *, stream: int, count: int, device: torch.device) -> Tensor:
    """Draw uniform int16 numbers of shape (len(keys), count), equal on every device.

    Row b depends only on keys[b] and `stream`: they give the key of a stream of `ops.splitmix`, each of whose 64-bit draws holds
    four numbers. Draws by counter need no sequential generator, so each device draws the masks it uses.

    Args:
        keys: one key per row.
        stream: number of the stream, such as the number of a layer.
        count: numbers per row.
        device: device that draws.

    Returns:
        int16 of shape (len(keys), count).

    Example:
        >>> random_bits((17, 42), stream=0, count=6, device=torch.device("cpu")).shape
        torch.Size([2, 6])
    """
    key_B = torch.tensor([splitmix.signed(key) for key in keys], dtype=torch.int64)
    start_B = splitmix.draws(splitmix.draws(key_B, torch.tensor(0)) + stream, torch.tensor(0))
    return splitmix.lanes(start_B.to(device)[:, None], torch.arange(-(-count // 4), device=device))[:, :count]


def _pool(*, stride: int) -> nn.MaxPool2d:
    """Build a 3x3 max pooling that rounds sizes up, as Caffe does."""
    return nn.MaxPool2d(3, stride=stride, padding=1, ceil_mode=True)


def init_he(layers: Sequence[nn.Module]) -> None:
    """Initialise convolutions as He et al. (ICCV 2015), with fan out, and set their biases to 0.

    Args:
        layers: layers; convolutions are changed, other layers stay as they are.

    Example:
        >>> init_he([nn.Conv2d(3, 8, 3), nn.ReLU()])
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network itself if `net` wraps it for distributed training, else `net`.

    Args:
        net: network, wrapped or not.

    Returns:
        The network without its wrapper.

    Example:
        >>> unwrapped(DistributedDataParallel(segnet)) is segnet
        True
    """
    inner = getattr(net, "module", None)
    return inner if isinstance(inner, nn.Module) else net
