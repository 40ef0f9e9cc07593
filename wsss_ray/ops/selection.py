"""Stochastic hidden-unit selection (FickleNet, section 3.1) in closed form: no expanded map, no autograd for the maps.

Around every window position u of a feature map x, only some of the D = S*S offsets d are kept; the same choice serves all
channels, and the centre is always kept (3.1.2). The classifier's score convolves what is kept with W and averages over the
positions (3.1.3). Written with the keep mask m[u, d] as a number, both the score and its Grad-CAM are sums that commute:

    score[c]  = 1/(HW) sum_u sum_d m[u, d] <W[c, :, d], x[:, u + d]>
              = 1/(HW) sum_d <W[c, :, d], P[:, d]>                     P[k, d] = sum_v m[v - d, d] x[k, v]
    CAM[c, v] = relu( sum_k x[k, v] d score[c] / d x[k, v] )           (Eq. 1)
              = relu( 1/(HW) sum_d m[v - d, d] A[c, d, v] )            A[c, d, v] = <W[c, :, d], x[:, v]>

so the score is one (K x HW)(HW x D) product, and N selections cost one 1x1 convolution and N masked sums. The score here is
the pooled one before the sigmoid: the sigmoid only scales a map by a positive number, which its normalisation removes.

A keep mask is indexed by window position; what the sums need is the mask indexed by the position v = u + d that is looked at
(`_by_source`). Positions whose window would start outside the map have no window: False.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LANES = 4  # 16-bit random numbers in one 64-bit draw


def sample_keep(
    *, n: int, kernel_size: int, height: int, width: int, dropout_rate: float, generator: torch.Generator
) -> Tensor:
    """Draw keep masks for stochastic selection with centre-preserving dropout (3.1.2).

    Each offset but the centre is kept with probability 1 - `dropout_rate`, rounded to a multiple of 2**-16. Selections are
    drawn one after another, so that drawing n at once or in chunks gives the same masks.

    Args:
        n: number of selections N.
        kernel_size: side S of the window, odd.
        height: rows H of the feature map.
        width: columns W of the feature map.
        dropout_rate: p in [0, 1].
        generator: source of randomness; the masks lie on its device.

    Returns:
        keep_NDHW, bool: whether the window at (h, w) keeps the offset d, offsets row by row.

    Raises:
        ValueError: on an even window, or a rate outside [0, 1].
    """
    _check(kernel_size, dropout_rate)
    positions = kernel_size**2
    flat = _bernoulli(n, positions * height * width, 1.0 - dropout_rate, generator)
    keep_NDHW = flat.view(n, positions, height, width)
    keep_NDHW[:, positions // 2] = True
    return keep_NDHW


def sample_dropout(
    *, n: int, kernel_size: int, height: int, width: int, dropout_rate: float, generator: torch.Generator
) -> Tensor:
    """Draw keep masks for general dropout: the locations of the map are dropped once per selection, for all windows alike.

    The baseline of the paper's Tables 5 and 6, as a keep mask: the window at u keeps the offset d exactly when location u + d
    is kept; the centre has no privilege. Arguments, returns and errors as in `sample_keep`.
    """
    _check(kernel_size, dropout_rate)
    location_NHW = _bernoulli(n, height * width, 1.0 - dropout_rate, generator).view(n, height, width)
    return _windows(location_NHW.unsqueeze(1).expand(-1, kernel_size**2, -1, -1), kernel_size, sign=1)


def keep_all(*, n: int, kernel_size: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Keep masks of the deterministic network: everything is kept. Shape as in `sample_keep`."""
    return torch.ones(n, kernel_size**2, height, width, dtype=torch.bool, device=device)


def selection_logits(x_BKHW: Tensor, weight_CKSS: Tensor, keep_BDHW: Tensor) -> Tensor:
    """Class scores of a batch of feature maps under one selection each (3.1.3), before the sigmoid.

    Differentiable in `x_BKHW` and `weight_CKSS`. No 1/(1-p) scaling is applied: selection stays on at inference.

    Args:
        x_BKHW: feature maps.
        weight_CKSS: classifier kernel, one S x S window per class; zero padding keeps H x W positions.
        keep_BDHW: keep masks, D = S*S.

    Returns:
        logits_BC.
    """
    batch, channels, height, width = x_BKHW.shape
    classes, _, size, _ = weight_CKSS.shape
    source_BDV = _by_source(keep_BDHW, size).flatten(2).to(x_BKHW.dtype)
    pooled_BKD = x_BKHW.reshape(batch, channels, -1) @ source_BDV.transpose(1, 2)
    return pooled_BKD.reshape(batch, -1) @ weight_CKSS.reshape(classes, -1).t() / (height * width)


def selection_cams(x_KHW: Tensor, weight_CKSS: Tensor, keep_NDHW: Tensor) -> Tensor:
    """Grad-CAM (Eq. 1) of each class under each of N selections of one feature map, without autograd.

    Args:
        x_KHW: feature map of one image.
        weight_CKSS: classifier kernel of the classes wanted (the image's tags as a rule).
        keep_NDHW: keep masks, D = S*S.

    Returns:
        cams_NCHW, not normalised: relu(sum_k x_k * d score_c / d x_k), the score being the pooled one before the sigmoid.
    """
    channels, height, width = x_KHW.shape
    classes, _, size, _ = weight_CKSS.shape
    kernel_CDK = weight_CKSS.permute(0, 2, 3, 1).reshape(classes * size**2, channels)
    answer_VDC = (kernel_CDK @ x_KHW.reshape(channels, -1)).view(classes, size**2, -1).permute(2, 1, 0)
    cams = []
    for keep in torch.split(keep_NDHW, max(1, _CHUNK // (size**2 * height * width))):
        source_VND = _by_source(keep, size).flatten(2).permute(2, 0, 1).to(x_KHW.dtype)
        cams.append(torch.bmm(source_VND, answer_VDC))  # (V, n, C)
    cams_VNC = torch.cat(cams, dim=1).clamp_(min=0) / (height * width)
    return cams_VNC.permute(1, 2, 0).reshape(len(keep_NDHW), classes, height, width)


_CHUNK = 4_000_000  # elements of a keep mask that are turned into numbers at a time


def _check(kernel_size: int, dropout_rate: float) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd so that a window has a centre, got {kernel_size}")
    if not 0.0 <= dropout_rate <= 1.0:
        raise ValueError(f"dropout_rate must lie in [0, 1], got {dropout_rate}")


def _bernoulli(n: int, size: int, probability: float, generator: torch.Generator) -> Tensor:
    """(n, size) bools, True with `probability`; four 16-bit comparisons per 64-bit draw, which is what makes it quick."""
    draws = torch.empty(n, -(-size // _LANES), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    lanes = draws.view(torch.int16)[:, :size]
    return lanes < round(probability * 2**16) - 2**15 if probability < 1.0 else torch.ones_like(lanes, dtype=torch.bool)


def _by_source(keep_NDHW: Tensor, size: int) -> Tensor:
    """From "the window at u keeps offset d" to "location v is kept by the window at v - d"; False where there is no window."""
    return _windows(keep_NDHW, size, sign=-1)


def _windows(mask_NDHW: Tensor, size: int, *, sign: int) -> Tensor:
    """out[n, d, u] = mask[n, d, u + sign * d], False outside the map."""
    count, _, height, width = mask_NDHW.shape
    radius = size // 2
    out = torch.zeros(count, size**2, height, width, dtype=torch.bool, device=mask_NDHW.device)
    for index in range(size**2):
        dy, dx = sign * (index // size - radius), sign * (index % size - radius)
        rows = slice(max(0, -dy), min(height, height - dy))
        columns = slice(max(0, -dx), min(width, width - dx))
        if rows.start < rows.stop and columns.start < columns.stop:
            from_rows, from_columns = slice(rows.start + dy, rows.stop + dy), slice(columns.start + dx, columns.stop + dx)
            out[:, index, rows, columns] = mask_NDHW[:, index, from_rows, from_columns]
    return out
