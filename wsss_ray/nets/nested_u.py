"""Define the network of U2-Net (Qin et al., Pattern Recognition 2020, sections 3.1 and 3.2): a U of small Us.

The modules have the names of the authors' state dicts. Batch norms are folded into their convolutions, because the network is
used for inference only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_ray.nets.modules import IMAGENET_MEAN, IMAGENET_STD, Normalize

_EPS = 1e-5  # of the batch norms in the authors' state dicts


@dataclass(frozen=True)
class Block:
    """Shape of a residual U-block: `depth` convolutions down, with `middle` channels inside, and `out` channels.

    A block that is not pooled dilates its convolutions in place of halving the map (RSU-4F in the paper).
    """

    depth: int
    middle: int
    out: int
    pooled: bool = True


FORMS: dict[str, tuple[Sequence[Block], Sequence[Block]]] = {
    "u2netp": (
        (*(Block(depth, 16, 64) for depth in (7, 6, 5, 4)), Block(4, 16, 64, False), Block(4, 16, 64, False)),
        (*(Block(depth, 16, 64) for depth in (7, 6, 5, 4)), Block(4, 16, 64, False)),
    ),
    "u2net": (
        (
            Block(7, 32, 64),
            Block(6, 32, 128),
            Block(5, 64, 256),
            Block(4, 128, 512),
            Block(4, 256, 512, False),
            Block(4, 256, 512, False),
        ),
        (Block(7, 16, 64), Block(6, 32, 64), Block(5, 64, 128), Block(4, 128, 256), Block(4, 256, 512, False)),
    ),
}
"""The blocks of the encoder and of the decoder, finest first (the paper's table 1, `U2-Net` and its small form)."""


class ConvRelu(nn.Module):
    """A 3x3 convolution, which includes its batch norm, and a ReLU."""

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        return F.relu(self.conv_s1(x_BCHW), inplace=True)


class ResidualU(nn.Module):
    """A residual U-block (section 3.1): a small encoder and decoder whose result is added to its first convolution's."""

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.block = block
        self.rebnconvin = ConvRelu(channels, block.out, 1)
        for level in range(1, block.depth + 1):
            before = block.out if level == 1 else block.middle
            self.add_module(f"rebnconv{level}", ConvRelu(before, block.middle, self._dilation(level)))
        for level in range(block.depth - 1, 0, -1):
            dilation = 1 if block.pooled else self._dilation(level)
            self.add_module(f"rebnconv{level}d", ConvRelu(2 * block.middle, block.out if level == 1 else block.middle, dilation))

    def _dilation(self, level: int) -> int:
        if self.block.pooled:
            return 2 if level == self.block.depth else 1
        return int(2 ** (level - 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        first_BCHW = self.rebnconvin(x_BCHW)
        down, hidden_BCHW = list[Tensor](), first_BCHW
        for level in range(1, self.block.depth):
            hidden_BCHW = self.get_submodule(f"rebnconv{level}")(hidden_BCHW)
            down.append(hidden_BCHW)
            if self.block.pooled and level < self.block.depth - 1:
                hidden_BCHW = _halved(hidden_BCHW)
        hidden_BCHW = self.get_submodule(f"rebnconv{self.block.depth}")(hidden_BCHW)
        for level in range(self.block.depth - 1, 0, -1):
            hidden_BCHW = self.get_submodule(f"rebnconv{level}d")(_joined(hidden_BCHW, down[level - 1]))
        out_BCHW: Tensor = hidden_BCHW + first_BCHW
        return out_BCHW


class NestedU(nn.Module):
    """U2-Net: residual U-blocks as encoder and decoder, a saliency map of each level, and their fusion (section 3.2).

    Args:
        form: A name of `FORMS`.

    Example:
        >>> NestedU("u2netp").eval()(torch.rand(1, 3, 320, 320) * 255).shape
        torch.Size([1, 1, 320, 320])
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        encoder, decoder = FORMS[form]
        self.levels = len(encoder)
        self.normalise = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        channels = 3
        for level, block in enumerate(encoder, start=1):
            self.add_module(f"stage{level}", ResidualU(channels, block))
            channels = block.out
        for level in range(len(decoder), 0, -1):
            block = decoder[level - 1]
            self.add_module(f"stage{level}d", ResidualU(channels + encoder[level - 1].out, block))
            channels = block.out
        for level, block in enumerate((*decoder, encoder[-1]), start=1):
            self.add_module(f"side{level}", nn.Conv2d(block.out, 1, 3, padding=1))
        self.outconv = nn.Conv2d(self.levels, 1, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the fused saliency maps (B, 1, H, W) in [0, 1] of RGB images with values 0..255."""
        hidden_BCHW = self.normalise(image_BCHW)
        down = list[Tensor]()
        for level in range(1, self.levels + 1):
            hidden_BCHW = self.get_submodule(f"stage{level}")(_halved(hidden_BCHW) if down else hidden_BCHW)
            down.append(hidden_BCHW)
        up = [hidden_BCHW]
        for level in range(self.levels - 1, 0, -1):
            hidden_BCHW = self.get_submodule(f"stage{level}d")(_joined(hidden_BCHW, down[level - 1]))
            up.insert(0, hidden_BCHW)
        sides = [self.get_submodule(f"side{level}")(one) for level, one in enumerate(up, start=1)]
        fused_B1HW: Tensor = self.outconv(torch.cat([_resized(one, sides[0]) for one in sides], dim=1))
        return fused_B1HW.sigmoid()


def folded(net: NestedU, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of `net` from a file's.

    Args:
        net: the network.
        state: the authors' state dict, whose batch norms are folded here; or the initializers of an exported ONNX file in the
            order of use, folded already, in which only the last convolutions have names.

    Raises:
        ValueError: if the number of tensors differs, for example because they are those of the other form.
    """
    if any(key.endswith("bn_s1.running_var") for key in state):
        return _with_batch_norms_folded(state)
    blocks = [key for key in net.state_dict() if key.startswith("stage")]
    unnamed = [key for key in state if not key.startswith(("side", "outconv", "stage"))]
    if not unnamed:
        return dict(state)
    if len(unnamed) != len(blocks):
        counts = f"{len(unnamed)} tensors of blocks, and the network has {len(blocks)}"
        raise ValueError(f"weights.source: the file has {counts}. Give weights of the same network.")
    names = dict(zip(unnamed, blocks, strict=True))
    return {names.get(key, key): value for key, value in state.items()}


def _with_batch_norms_folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {key: value for key, value in state.items() if ".bn_s1." not in key}
    for key in [key for key in found if key.endswith("conv_s1.weight")]:
        conv, norm = key.removesuffix("weight"), key.replace("conv_s1.weight", "bn_s1.")
        mean_C, var_C = state[f"{norm}running_mean"], state[f"{norm}running_var"]
        scale_C = state[f"{norm}weight"] / (var_C + _EPS).sqrt()
        found[key] = state[key] * scale_C[:, None, None, None]
        found[f"{conv}bias"] = state[f"{norm}bias"] + (state.get(f"{conv}bias", torch.zeros_like(mean_C)) - mean_C) * scale_C
    return found


def _halved(x_BCHW: Tensor) -> Tensor:
    return F.max_pool2d(x_BCHW, 2, stride=2, ceil_mode=True)


def _joined(low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
    return torch.cat([_resized(low_BCHW, skip_BCHW), skip_BCHW], dim=1)


def _resized(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    if x_BCHW.shape[2:] == like_BCHW.shape[2:]:
        return x_BCHW
    return F.interpolate(x_BCHW, size=like_BCHW.shape[2:], mode="bilinear", align_corners=False)
