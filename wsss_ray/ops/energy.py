"""Compute the dense energy loss of RRM (Zhang et al., AAAI 2020, Eqs. 10 to 14): close pixels of like colour get like labels.

    E = -sum_l sum_i  p_il  g_i  sum_j k_ij p_jl,      k_ij = exp(-|x_i - x_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2)

The sums run over the labels l and all pairs of pixels of the scaled image, including i = j. `Lattice.filter` computes the sum
over j. The gate g is the paper's soft filter: 1 for a pixel without a label, 1 - max_l p_il for a pixel with one. It spares
pixels that the cross-entropy has already settled, and it is a constant. Padding does not count.

The loss follows the authors' code, which derives from rloss (Tang et al., ECCV 2018). The paper prints the two widths the other
way round. The sum is not normalised, so the caller's weight is small: 1e-7 in RRM, 2e-9 in rloss. These weights are tuned to the
lattice, whose sums here are 0.5 to 0.6 of the exact ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.lattice.base import Lattice, bilateral_features
from wsss_ray.ops.lattice.build import build_lattice


def dense_energy(
    prob_BLHW: Tensor,
    image_BCHW: Tensor,
    label_BHW: Tensor,
    valid_BHW: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
) -> Tensor:
    """Compute the dense energy of each image.

    The gradient is the one of the authors' code, -2 g_i sum_j k_ij p_jl. The exact derivative of the value for a constant gate is
    -(g_i sum_j k_ij p_jl + sum_j k_ij g_j p_jl). Both agree where the gate has the same value everywhere.

    Args:
        prob_BLHW: probabilities, which carry the gradient. They are resized by `scale` bilinearly, without smoothing.
        image_BCHW: RGB 0..255. Image, labels and validity are resized to the nearest pixel.
        label_BHW: labels of the same pixels; the loss only looks at whether they are `IGNORE`.
        valid_BHW: bool, False on padding.
        sigma_rgb: standard deviation of the kernel in colour values.
        sigma_xy: standard deviation of the kernel in pixels of the image before resizing.
        scale: size at which the energy is computed, relative to the image.

    Returns:
        E of shape (B,), at most 0, not divided by the number of pixels. It is float64 for float64 probabilities, else float32. No
        image depends on the others in the batch.

    Raises:
        ValueError: if the lattice cannot represent the pixels, for example with a NaN in the image (see `build_lattice`).

    Example:
        >>> prob = torch.rand(1, 3, 16, 16).softmax(dim=1)
        >>> label, valid = torch.full((1, 16, 16), IGNORE), torch.ones(1, 16, 16, dtype=torch.bool)
        >>> dense_energy(prob, torch.rand(1, 3, 16, 16) * 255, label, valid).shape
        torch.Size([1])
    """
    prob_BLHW = prob_BLHW.to(torch.promote_types(prob_BLHW.dtype, torch.float32))  # half precision would lose small values
    prob_BLhw = functional.interpolate(prob_BLHW, scale_factor=scale, mode="bilinear", align_corners=False)
    given_BCHW = torch.cat([image_BCHW.float(), label_BHW.unsqueeze(1).float(), valid_BHW.unsqueeze(1).float()], dim=1)
    given_BChw = functional.interpolate(given_BCHW, scale_factor=scale, mode="nearest")
    image_BChw, label_B1hw, valid_B1hw = given_BChw.split_with_sizes([3, 1, 1], dim=1)
    settled_B1hw = (1 - prob_BLhw.detach().amax(dim=1, keepdim=True)).clamp(min=0)
    gate_B1hw = torch.where(label_B1hw == IGNORE, torch.ones_like(settled_B1hw), settled_B1hw) * valid_B1hw
    images = image_BChw.permute(0, 2, 3, 1).unbind(0)
    lattices = [build_lattice(bilateral_features(image, sxy=sigma_xy * scale, srgb=sigma_rgb)) for image in images]
    energy_B: Tensor = _Energy.apply(prob_BLhw * valid_B1hw, gate_B1hw, lattices)  # type: ignore[no-untyped-call]
    return energy_B


class _Energy(torch.autograd.Function):
    """Function -sum p gate filter(p) of each image, with the gradient -2 gate filter(p)."""

    @staticmethod
    def forward(ctx: Any, prob_BLhw: Tensor, gate_B1hw: Tensor, lattices: list[Lattice]) -> Tensor:
        filtered = [
            lattice.filter(prob_Lhw.flatten(1).T.contiguous()).T.reshape(prob_Lhw.shape)
            for lattice, prob_Lhw in zip(lattices, prob_BLhw, strict=True)
        ]
        pull_BLhw = gate_B1hw * torch.stack(filtered)
        ctx.save_for_backward(pull_BLhw)
        return -(prob_BLhw * pull_BLhw).flatten(1).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor, None, None]:
        (pull_BLhw,) = ctx.saved_tensors
        return -2 * grad_B[:, None, None, None] * pull_BLhw, None, None
