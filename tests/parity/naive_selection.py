"""FickleNet's selection as the paper draws it: window by window (Fig. 2a), and on the expanded map (Fig. 2b). Oracles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def naive_logits(x_BKHW: Tensor, weight_CKSS: Tensor, keep_BDHW: Tensor) -> Tensor:
    """One dropout and one product per window position."""
    batch, _, height, width = x_BKHW.shape
    size = weight_CKSS.shape[-1]
    padded = F.pad(x_BKHW, [size // 2] * 4)
    score = x_BKHW.new_zeros(batch, len(weight_CKSS))
    for row in range(height):
        for column in range(width):
            window_BKSS = padded[:, :, row : row + size, column : column + size]
            kept = window_BKSS * keep_BDHW[:, :, row, column].view(batch, 1, size, size)
            score = score + torch.einsum("bkst,ckst->bc", kept, weight_CKSS)
    return score / (height * width)


def expanded_logits(x_BKHW: Tensor, weight_CKSS: Tensor, keep_BDHW: Tensor) -> Tensor:
    """Expand to (K, S*H, S*W), drop once, convolve with stride S, pool."""
    batch, channels, height, width = x_BKHW.shape
    size = weight_CKSS.shape[-1]
    columns = F.unfold(x_BKHW, size, padding=size // 2).view(batch, channels, size, size, height, width)
    expanded = columns.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels, size * height, size * width)
    keep = keep_BDHW.view(batch, size, size, height, width).permute(0, 3, 1, 4, 2).reshape(batch, 1, size * height, size * width)
    return F.conv2d(expanded * keep, weight_CKSS, stride=size).mean(dim=(2, 3))


def autograd_cams(logits, x_KHW: Tensor, weight_CKSS: Tensor, keep_NDHW: Tensor) -> Tensor:
    """Eq. 1 by autograd through `logits`, one selection and class at a time."""
    cams = []
    for keep in keep_NDHW:
        x = x_KHW.detach().clone().requires_grad_()
        score_C = logits(x.unsqueeze(0), weight_CKSS, keep.unsqueeze(0))[0]
        grads = [torch.autograd.grad(score, x, retain_graph=True)[0] for score in score_C]
        cams.append(torch.stack([(x * grad).sum(0).relu() for grad in grads]).detach())
    return torch.stack(cams)
