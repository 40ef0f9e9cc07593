"""A vision transformer and MCTformer's maps in numpy, from the raw weights: what the networks are held to."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, softmax


def layer_norm(x, weight, bias, eps=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def cells_of(image_CHW, side):
    """The pixels of each patch, patches row by row: (rows * columns, C * side * side)."""
    rows, columns = (length // side for length in image_CHW.shape[1:])
    cells = [
        image_CHW[:, side * r : side * (r + 1), side * c : side * (c + 1)].ravel() for r in range(rows) for c in range(columns)
    ]
    return np.stack(cells)


def heads_of(x_NC, weight, bias, heads):
    """A projection, split into heads: (heads, N, C / heads)."""
    y = x_NC @ weight.T + bias
    return np.stack([y[:, place] for place in np.split(np.arange(y.shape[1]), heads)])


def attention_of(x_NC, weights, biases, heads):
    """Attention (heads, N, N), and what the tokens read (N, C), by three projections of their own."""
    query, key, value = (heads_of(x_NC, w, b, heads) for w, b in zip(weights, biases, strict=True))
    attention = np.stack([softmax(q @ k.T / np.sqrt(q.shape[1]), axis=1) for q, k in zip(query, key, strict=True)])
    return attention, np.concatenate([a @ v for a, v in zip(attention, value, strict=True)], axis=1)


def vit(image_CHW, weights, *, side, heads, place_NC=None):
    """Tokens (N, C) after the last layer and attention (A, N, N) of a network of `VitTokens`; one image, normalised already."""
    filters = weights["patch_embed.proj.weight"]
    patch = cells_of(image_CHW, side) @ filters.reshape(len(filters), -1).T + weights["patch_embed.proj.bias"]
    x = np.concatenate([weights["cls_token"][0], patch + (weights["pos_embed"][0] if place_NC is None else place_NC)])
    shown = []
    for layer in range(sum(name.endswith("attn.qkv.weight") for name in weights)):

        def of(name, layer=layer):
            return weights[f"blocks.{layer}.{name}"]

        normed = layer_norm(x, of("norm1.weight"), of("norm1.bias"))
        attention, read = attention_of(normed, np.split(of("attn.qkv.weight"), 3), np.split(of("attn.qkv.bias"), 3), heads)
        shown.append(attention.mean(0))
        x = x + read @ of("attn.proj.weight").T + of("attn.proj.bias")
        hidden = gelu(layer_norm(x, of("norm2.weight"), of("norm2.bias")) @ of("mlp.fc1.weight").T + of("mlp.fc1.bias"))
        x = x + hidden @ of("mlp.fc2.weight").T + of("mlp.fc2.bias")
    return x, np.stack(shown)


def conv3x3(map_CHW, weight, bias):
    """A 3x3 convolution with padding 1, pixel by pixel."""
    _, rows, columns = map_CHW.shape
    padded = np.pad(map_CHW, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), rows, columns))
    for r in range(rows):
        for c in range(columns):
            out[:, r, c] = (weight * padded[None, :, r : r + 3, c : c + 3]).sum((1, 2, 3)) + bias
    return out
