"""Run a vision transformer of timm with several class tokens, and show its tokens and its attention."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from typing_extensions import Self

from wsss_ray.core.tokens import Tokens
from wsss_ray.nets.modules import Normalize


class VitTokens(nn.Module):
    """Vision transformer image_BCHW (RGB, 0..255) -> `Tokens`, for images of any size.

    Images are padded with the mean colour on the right and at the bottom to whole patches, and the positional embeddings are
    resized to the grid of patches as timm does. The norm after the last layer is left out. The network always runs in evaluation
    mode: no dropout, no stochastic depth.

    Args:
        net: timm's network, made with `num_classes=0` and `dynamic_img_size=True`; changed.
        class_tokens: number of class tokens. Each starts as a copy of the network's own.
        spread: standard deviation of noise that tells the copies apart, for a network without pretrained weights.

    Raises:
        ValueError: if the network is built in a way that this class cannot run.

    Example:
        >>> net = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True)
        >>> VitTokens(net, class_tokens=3)(torch.zeros(1, 3, 64, 48)).attention_BANN.shape
        torch.Size([1, 6, 15, 15])
    """

    def __init__(self, net: Any, *, class_tokens: int, spread: float = 0.0) -> None:
        super().__init__()
        if (odd := _not_plain(net)) is not None:
            raise ValueError(odd)
        mean, std = ([255.0 * value for value in net.pretrained_cfg[name]] for name in ("mean", "std"))
        net.pretrained_cfg = net.default_cfg = None  # may hold a second copy of the weights
        self.normalize, self.net = Normalize(mean, std), net
        self.channels: int = net.embed_dim
        self.stride: int = net.patch_embed.patch_size[0]
        self.class_tokens = class_tokens
        own_1TC = net.cls_token.detach()
        grid_1NC = net.pos_embed.detach()
        if not net.no_embed_class:  # the class token has a positional embedding too
            own_1TC, grid_1NC = own_1TC + grid_1NC[:, :1], grid_1NC[:, 1:]
        noise_1TC = spread * torch.randn(1, class_tokens, self.channels) if spread else 0.0
        net.cls_token = nn.Parameter(own_1TC.repeat(1, class_tokens, 1) + noise_1TC)
        net.pos_embed = nn.Parameter(grid_1NC.clone())
        net.norm = net.fc_norm = net.head = net.head_drop = nn.Identity()  # unused parameters would stop distributed training
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module. The wrapped network stays in evaluation."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Any:
        """Return the `Tokens` of images."""
        attention: list[Tensor] = []
        x_BNC, grid = self._embedded(image_BCHW)
        for block in self.net.blocks:
            read_BNC, attention_BNN = attend(block.attn, block.norm1(x_BNC))
            attention.append(attention_BNN)
            x_BNC = x_BNC + block.ls1(read_BNC)
            x_BNC = x_BNC + block.ls2(block.mlp(block.norm2(x_BNC)))
        return Tokens(x_BNC[:, : self.class_tokens], self._map(x_BNC, grid), torch.stack(attention, dim=1))

    def centres(self, size: int) -> tuple[float, float]:
        """Return the pixel of feature 0, in the middle of its patch, and the pixels per feature."""
        return (self.stride - 1) / 2, float(self.stride)

    def _embedded(self, image_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return all tokens before the first layer, and rows and columns of the patches."""
        height, width = image_BCHW.shape[-2:]
        padded = nn.functional.pad(self.normalize(image_BCHW), (0, -width % self.stride, 0, -height % self.stride))
        patch_BHWC: Tensor = self.net.patch_embed(padded)
        grid = (patch_BHWC.shape[1], patch_BHWC.shape[2])
        place_1NC = resample_abs_pos_embed(
            self.net.pos_embed, new_size=list(grid), old_size=list(self.net.patch_embed.grid_size), num_prefix_tokens=0
        )
        class_BTC = self.net.cls_token.repeat(len(patch_BHWC), 1, 1)
        x_BNC = torch.cat([class_BTC, patch_BHWC.flatten(1, 2) + place_1NC], dim=1)
        embedded_BNC: Tensor = self.net.norm_pre(x_BNC)
        return embedded_BNC, grid

    def _map(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the patch tokens as features_BCHW."""
        return x_BNC[:, self.class_tokens :].transpose(1, 2).reshape(len(x_BNC), self.channels, *grid).contiguous()


class VitFeatures(VitTokens):
    """Vision transformer as a plain trunk: image_BCHW -> features_BCHW, its patch tokens. It has one class token.

    Its attention is not shown, so timm's own attention computes it, which needs less memory on large images.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(net, class_tokens=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the patch tokens of images."""
        x_BNC, grid = self._embedded(image_BCHW)
        for block in self.net.blocks:
            x_BNC = block(x_BNC)
        return self._map(x_BNC, grid)


def attend(attention: Any, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
    """Run timm's attention layer step by step: its fused form does not show how much each token reads of the others.

    Args:
        attention: the layer, in evaluation mode.
        x_BNC: tokens.

    Returns:
        The layer's output (B, N, C), and the attention_BNN, averaged over the heads.

    Example:
        >>> read_BNC, attention_BNN = attend(block.attn, block.norm1(x_BNC))
    """
    count, tokens = x_BNC.shape[:2]
    parts = attention.qkv(x_BNC).reshape(count, tokens, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    score = (attention.q_norm(query) * attention.scale) @ attention.k_norm(key).transpose(-2, -1)
    weight = score.softmax(dim=-1)
    read_BNC = (weight @ value).transpose(1, 2).reshape(count, tokens, attention.attn_dim)
    return attention.proj(attention.norm(read_BNC)), weight.mean(dim=1)


def _not_plain(net: Any) -> str | None:
    """Return what of a network keeps `VitTokens` from running it, or None."""
    if not isinstance(net, VisionTransformer):
        return "it is no vision transformer"
    if net.cls_token is None or net.reg_token is not None or net.num_prefix_tokens != 1:
        return "it does not have exactly one class token"
    if net.pos_embed is None or net.patch_embed.patch_size[0] != net.patch_embed.patch_size[1]:
        return "it has no positional embeddings or no square patches"
    for block in net.blocks:
        if type(block) is not Block or type(block.attn) is not Attention or block.attn.gate is not None:
            return "its layers are not those of a plain vision transformer"
    return None
