"""Compute localization maps from the tokens of a transformer: attention of class tokens, and affinity of patches."""

from __future__ import annotations

from torch import Tensor


def class_attention(attention_BANN: Tensor, class_tokens: int, grid: tuple[int, int], *, layers: int) -> Tensor:
    """Return how much each class token reads of each patch, averaged over the last layers (MCTformer).

    Args:
        attention_BANN: attention of every layer, class tokens first. See `Tokens`.
        class_tokens: number T of class tokens.
        grid: rows and columns of the patches.
        layers: number K of last layers to average over; more than there are takes all.

    Returns:
        Maps (B, T, *grid), each at least 0.

    Example:
        >>> class_attention(tokens.attention_BANN, 20, (14, 14), layers=3).shape
        torch.Size([1, 20, 14, 14])
    """
    mean_BNN = attention_BANN[:, -layers:].mean(dim=1)
    return mean_BNN[:, :class_tokens, class_tokens:].reshape(len(mean_BNN), class_tokens, *grid)


def spread_by_affinity(map_BKHW: Tensor, attention_BANN: Tensor, class_tokens: int) -> Tensor:
    """Refine maps by the attention between patches, averaged over all layers: a matrix product (MCTformer).

    Args:
        map_BKHW: maps on the grid of the patches.
        attention_BANN: attention of every layer, class tokens first.
        class_tokens: number of class tokens.

    Returns:
        Maps of the same shape: the value of a patch is the sum over all patches, weighted by how much it reads of each.

    Example:
        >>> spread_by_affinity(map_BKHW, tokens.attention_BANN, 20).shape == map_BKHW.shape
        True
    """
    affinity_BNN = attention_BANN.mean(dim=1)[:, class_tokens:, class_tokens:]
    spread_BNK = affinity_BNN @ map_BKHW.flatten(2).transpose(1, 2)
    return spread_BNK.transpose(1, 2).reshape(map_BKHW.shape)


def stretch(map_CHW: Tensor) -> Tensor:
    """Map the range of each map, from its minimum to its maximum, to [0, 1]. A constant map becomes 0 everywhere.

    Example:
        >>> stretch(torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000]]])
    """
    if not map_CHW.numel():
        return map_CHW
    low, high = map_CHW.amin(dim=(-2, -1), keepdim=True), map_CHW.amax(dim=(-2, -1), keepdim=True)
    return (map_CHW - low) / (high - low).clamp_min(1e-12)
