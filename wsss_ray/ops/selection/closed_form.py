"""Compute FickleNet's stochastic selection (section 3.1) in closed form: no expanded maps, and no autograd for the maps.

Around every window position u of a feature map x, only some of the D = S*S offsets d are kept. The choice is the same for all
channels, and the centre is always kept (3.1.2). The classifier convolves the kept units with W and averages over the positions
(3.1.3). With the keep mask m[u, d] written as a number, the score and its Grad-CAM are sums whose order can be exchanged:

    score[c]  = 1/(HW) sum_u sum_d m[u, d] <W[c, :, d], x[:, u + d]>
              = 1/(HW) sum_d <W[c, :, d], P[:, d]>                     P[k, d] = sum_v m[v - d, d] x[k, v]
    CAM[c, v] = relu( sum_k x[k, v] d score[c] / d x[k, v] )           (Eq. 1)
              = relu( 1/(HW) sum_d m[v - d, d] A[c, d, v] )            A[c, d, v] = <W[c, :, d], x[:, v]>

The score is thus one (K x HW)(HW x D) product, and N selections cost one 1x1 convolution and N masked sums. The score is the
pooled one before the sigmoid: the sigmoid only scales a map by a positive number, and normalisation removes that number.

The bits of a mask come from a stream by counter (`splitmix.py`). A loop can draw them where it needs them and keep no mask in
memory (`stochastic_cams`, `stochastic_logits`). A keep mask is indexed by window position u. The sums need the mask indexed by
the position v = u + d that the window reads (`_by_source`). Where v - d lies outside the map there is no window, and the value is
False.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wsss_ray.ops import splitmix

_LANES = 4  # 16-bit random numbers in one 64-bit draw
_CHUNK = 4_000_000  # elements of maps, or of a keep mask in memory, per piece


def sample_keep(
    *,
    key: int,
    n: int,
    kernel_size: int,
    height: int,
    width: int,
    dropout_rate: float,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw keep masks for stochastic selection with centre-preserving dropout (3.1.2).

    Each offset except the centre is kept with probability 1 - `dropout_rate`, rounded to a multiple of 2**-16. The bits of a
    selection depend only on the key and the selection's number: not on the device, nor on the selections drawn with it.

    Args:
        key: 64-bit key of the random stream.
        n: number of selections N.
        kernel_size: side S of the window, odd.
        height: rows H of the feature map.
        width: columns W of the feature map.
        dropout_rate: p in [0, 1].
        first: number of the first selection.
        device: device that draws the masks.

    Returns:
        keep_NDHW, bool: True if the window at (h, w) keeps the offset d. Offsets are ordered row by row.

    Raises:
        ValueError: if the window is even, or the rate is outside [0, 1].

    Example:
        >>> sample_keep(key=7, n=4, kernel_size=3, height=5, width=6, dropout_rate=0.9).shape
        torch.Size([4, 9, 5, 6])
    """
    _check(kernel_size, dropout_rate)
    offsets = kernel_size**2
    flat = _bernoulli(key, n * offsets, height * width, dropout_rate, first=first * offsets, device=device)
    keep_NDHW = flat.view(n, offsets, height, width)
    keep_NDHW[:, offsets // 2] = True
    return keep_NDHW


def sample_dropout(
    *,
    key: int,
    n: int,
    kernel_size: int,
    height: int,
    width: int,
    dropout_rate: float,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw keep masks for general dropout, the baseline of the paper's Tables 5 and 6.

    Each selection drops locations of the map, the same ones for all windows. The window at u keeps the offset d exactly if the
    location u + d is kept. The centre can be dropped as well. For arguments, result and errors see `sample_keep`.

    Example:
        >>> sample_dropout(key=7, n=4, kernel_size=3, height=5, width=6, dropout_rate=0.5).shape
        torch.Size([4, 9, 5, 6])
    """
    _check(kernel_size, dropout_rate)
    location_NHW = _bernoulli(key, n, height * width, dropout_rate, first=first, device=device).view(n, height, width)
    return _windows(location_NHW.unsqueeze(1).expand(-1, kernel_size**2, -1, -1), kernel_size, sign=1)


def keep_all(*, n: int, kernel_size: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Make keep masks that keep everything, for the deterministic network. For arguments and shape see `sample_keep`.

    Example:
        >>> keep_all(n=1, kernel_size=3, height=5, width=6).all()
        tensor(True)
    """
    return torch.ones(n, kernel_size**2, height, width, dtype=torch.bool, device=device)


def selection_logits(x_BKHW: Tensor, weight_CKSS: Tensor, keep_BDHW: Tensor) -> Tensor:
    """Compute class scores of a batch of feature maps under one selection each (3.1.3), before the sigmoid.

    Differentiable in `x_BKHW` and `weight_CKSS`. There is no 1/(1-p) scaling, because selection stays on at inference.

    Args:
        x_BKHW: feature maps.
        weight_CKSS: classifier kernel, one S x S window per class. Zero padding keeps H x W positions.
        keep_BDHW: keep masks, D = S*S.

    Returns:
        logits_BC.

    Example:
        >>> keep = sample_keep(key=7, n=2, kernel_size=3, height=5, width=6, dropout_rate=0.9)
        >>> selection_logits(torch.rand(2, 8, 5, 6), torch.rand(20, 8, 3, 3), keep).shape
        torch.Size([2, 20])
    """
    return _logits(x_BKHW, weight_CKSS, _by_source(keep_BDHW, weight_CKSS.shape[-1]).flatten(2))


def stochastic_logits(x_BKHW: Tensor, weight_CKSS: Tensor, *, keys: Sequence[int], dropout_rate: float) -> Tensor:
    """Compute `selection_logits` with one mask per image, drawn from the image's key. On a CPU one loop draws and sums.

    The mask of an image is the first one that `sample_keep` draws for its key.

    Args:
        x_BKHW: feature maps.
        weight_CKSS: classifier kernel.
        keys: keys of the random streams, one per image.
        dropout_rate: p in [0, 1].

    Returns:
        logits_BC.

    Raises:
        ValueError: if the window is even, or the rate is outside [0, 1].

    Example:
        >>> stochastic_logits(torch.rand(2, 8, 5, 6), torch.rand(20, 8, 3, 3), keys=(17, 42), dropout_rate=0.9).shape
        torch.Size([2, 20])
    """
    size, (batch, _, height, width) = weight_CKSS.shape[-1], x_BKHW.shape
    _check(size, dropout_rate)
    if x_BKHW.device.type != "cpu" or dropout_rate == 0:
        draw = dict(kernel_size=size, height=height, width=width, dropout_rate=dropout_rate, device=x_BKHW.device)
        return selection_logits(x_BKHW, weight_CKSS, torch.cat([sample_keep(key=key, n=1, **draw) for key in keys]))  # type: ignore[arg-type]
    from wsss_ray.ops.selection.loops import source_masks

    source_BDV = np.empty((batch, size**2, height * width), np.float32)
    source_masks(size, height, width, np.array([key % 2**64 for key in keys], np.uint64), _below(dropout_rate), source_BDV)
    return _logits(x_BKHW, weight_CKSS, torch.from_numpy(source_BDV))


def _logits(x_BKHW: Tensor, weight_CKSS: Tensor, source_BDV: Tensor) -> Tensor:
    """Pool the features with masks indexed by source position, and apply the kernels."""
    batch, channels, height, width = x_BKHW.shape
    pooled_BKD = x_BKHW.reshape(batch, channels, -1) @ source_BDV.to(x_BKHW.dtype).transpose(1, 2)
    return pooled_BKD.reshape(batch, -1) @ weight_CKSS.reshape(len(weight_CKSS), -1).t() / (height * width)


def selection_cams(x_KHW: Tensor, weight_CKSS: Tensor, keep_NDHW: Tensor) -> Tensor:
    """Compute the Grad-CAM (Eq. 1) of each class under each of N selections of one feature map, without autograd.

    Args:
        x_KHW: feature map of one image.
        weight_CKSS: classifier kernel of the requested classes, usually the image's tags.
        keep_NDHW: keep masks, D = S*S.

    Returns:
        cams_NCHW, not normalised: relu(sum_k x_k * d score_c / d x_k) with the pooled score before the sigmoid.

    Example:
        >>> keep = sample_keep(key=7, n=4, kernel_size=3, height=5, width=6, dropout_rate=0.9)
        >>> selection_cams(torch.rand(8, 5, 6), torch.rand(2, 8, 3, 3), keep).shape
        torch.Size([4, 2, 5, 6])
    """
    channels, height, width = x_KHW.shape
    classes, _, size, _ = weight_CKSS.shape
    kernel_CDK = weight_CKSS.permute(0, 2, 3, 1).reshape(classes * size**2, channels)
    answer_VDC = (kernel_CDK @ x_KHW.reshape(channels, -1)).view(classes, size**2, height * width).permute(2, 1, 0)
    cams = []
    for keep in torch.split(keep_NDHW, max(1, _CHUNK // (size**2 * height * width))):
        source_VND = _by_source(keep, size).flatten(2).permute(2, 0, 1).to(x_KHW.dtype)
        cams.append(torch.bmm(source_VND, answer_VDC))  # (V, n, C)
    cams_VNC = torch.cat(cams, dim=1).clamp_(min=0) / (height * width)
    return cams_VNC.permute(1, 2, 0).reshape(len(keep_NDHW), classes, height, width)


def stochastic_cams(x_KHW: Tensor, weight_CKSS: Tensor, *, key: int, n: int, dropout_rate: float) -> Iterator[Tensor]:
    """Compute `selection_cams` under N masks of `sample_keep`. Where a loop or kernel can draw bits, no mask is kept in memory.

    Args:
        x_KHW: feature map of one image, float32 or float64.
        weight_CKSS: classifier kernel of the requested classes.
        key: 64-bit key of the random stream.
        n: number of selections N.
        dropout_rate: p in [0, 1].

    Yields:
        cams_nCHW in pieces of a few MB, with the selections in order.

    Raises:
        ValueError: if the window is even, or the rate is outside [0, 1].

    Example:
        >>> pieces = stochastic_cams(torch.rand(8, 5, 6), torch.rand(2, 8, 3, 3), key=7, n=200, dropout_rate=0.9)
        >>> torch.cat(list(pieces)).shape
        torch.Size([200, 2, 5, 6])
    """
    channels, height, width = x_KHW.shape
    classes, _, size, _ = weight_CKSS.shape
    _check(size, dropout_rate)
    masked_sums = _fused(x_KHW.device.type) if classes and dropout_rate > 0 else None
    if masked_sums is None:
        step = max(1, _CHUNK // (size**2 * height * width))
        draw = dict(kernel_size=size, height=height, width=width, dropout_rate=dropout_rate, device=x_KHW.device)
        for first in range(0, n, step):
            keep_NDHW = sample_keep(key=key, n=min(step, n - first), first=first, **draw)  # type: ignore[arg-type]
            yield selection_cams(x_KHW, weight_CKSS, keep_NDHW)
        return
    kernel_CDK = weight_CKSS.detach().permute(0, 2, 3, 1).reshape(classes * size**2, channels)
    answer_CDV = (kernel_CDK @ x_KHW.detach().reshape(channels, -1)).view(classes, size**2, height * width)
    step = max(1, _CHUNK // (classes * height * width))
    for first in range(0, n, step):
        sums_NCV = answer_CDV.new_empty(min(step, n - first), classes, height * width)
        masked_sums(answer_CDV, size, height, width, key, first, _below(dropout_rate), sums_NCV)
        yield sums_NCV.clamp_(min=0).div_(height * width).view(len(sums_NCV), classes, height, width)


def _fused(device: str) -> Callable[..., None] | None:
    """Return a function that draws masks and sums the kept answers: compiled loops, or a Triton kernel; None without either."""
    if device == "cpu":
        from wsss_ray.ops.selection import loops

        return loops.masked_sums_of_tensors
    compiler = any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang"))))  # Triton needs a C compiler
    if device != "cuda" or not compiler or importlib.util.find_spec("triton") is None:
        return None
    from wsss_ray.ops.selection import triton_kernels

    return triton_kernels.masked_sums


def _check(kernel_size: int, dropout_rate: float) -> None:
    """Raise ValueError for an even window or a rate outside [0, 1]."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: must be odd so that a window has a centre, got {kernel_size}.")
    if not 0.0 <= dropout_rate <= 1.0:
        raise ValueError(f"dropout_rate: must lie in [0, 1], got {dropout_rate}.")


def _below(dropout_rate: float) -> int:
    """Return the bound that a signed 16-bit draw stays below with probability 1 - `dropout_rate`."""
    return round((1.0 - dropout_rate) * 2**16) - 2**15


def _bernoulli(key: int, n: int, size: int, dropout_rate: float, *, first: int, device: torch.device | str) -> Tensor:
    """Draw n rows of bools from row `first` on, True with probability 1 - `dropout_rate`. Each row starts with a new draw."""
    if dropout_rate == 0:
        return torch.ones(n, size, dtype=torch.bool, device=device)
    words = -(-size // _LANES)
    counter = torch.arange(first * words, (first + n) * words, device=device)
    return splitmix.lanes(key, counter).view(n, -1)[:, :size] < _below(dropout_rate)


def _by_source(keep_NDHW: Tensor, size: int) -> Tensor:
    """Reindex a mask from window position u to source position v = u + d. The result is False where there is no window."""
    return _windows(keep_NDHW, size, sign=-1)


def _windows(mask_NDHW: Tensor, size: int, *, sign: int) -> Tensor:
    """Return out[n, d, u] = mask[n, d, u + sign * d], False outside the map."""
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
