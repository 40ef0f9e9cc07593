"""Build the classifier of MCTformer-V2: a transformer with one class token per class, and a convolution on its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from wsss_ray.ops.tokens import class_attention, spread_by_affinity

if TYPE_CHECKING:
    from wsss_ray.core.tokens import Tokens

Fuse = Literal["product", "attention", "patches"]


class MctNet(nn.Module):
    """Classifier with two branches: class tokens, and CAMs of the patch tokens ("PatchCAM").

    `forward(image_BCHW)` returns logits_BGK of both branches: the mean of each class token over its channels, and the PatchCAMs
    averaged over the image.

    Args:
        trunk: module image_BCHW -> `Tokens` with one class token per class, as `TokenTrunk.build_tokens` returns it.
        num_classes: number of classes K.

    Example:
        >>> net = MctNet(TimmVit(name="test_vit", weights="none").build_tokens(20), num_classes=20)
        >>> net(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 2, 20])
        >>> net.maps(torch.rand(2, 3, 64, 64), layers=3, fuse="product", affinity=True).shape
        torch.Size([2, 20, 4, 4])
    """

    def __init__(self, trunk: nn.Module, *, num_classes: int) -> None:
        super().__init__()
        self.trunk, self.num_classes = trunk, num_classes
        channels: int = trunk.channels  # type: ignore[assignment]
        self.head = nn.Conv2d(channels, num_classes, 3, padding=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits_BGK, the class scores before the sigmoid: of the class tokens, and of the patches."""
        tokens: Tokens = self.trunk(image_BCHW)
        return torch.stack([tokens.class_BTC.mean(dim=2), self.head(tokens.patch_BCHW).mean(dim=(2, 3))], dim=1)

    def maps(self, image_BCHW: Tensor, *, layers: int, fuse: Fuse, affinity: bool) -> Tensor:
        """Return maps_BKhw, at least 0 and not normalised.

        Args:
            image_BCHW: images.
            layers: number of last layers whose attention of class tokens is averaged.
            fuse: that attention times the positive part of the PatchCAMs ("product"), or one of the two alone.
            affinity: refine the maps by the attention between patches.
        """
        tokens: Tokens = self.trunk(image_BCHW)
        attention_BANN, patch_BCHW = tokens.attention_BANN, tokens.patch_BCHW
        grid = (patch_BCHW.shape[2], patch_BCHW.shape[3])
        parts = []
        if fuse != "patches":
            parts.append(class_attention(attention_BANN, self.num_classes, grid, layers=layers))
        if fuse != "attention":
            parts.append(self.head(patch_BCHW).relu())
        map_BKHW = parts[0] * parts[1] if len(parts) > 1 else parts[0]
        return spread_by_affinity(map_BKHW, attention_BANN, self.num_classes) if affinity else map_BKHW
