"""Run mean-field inference in a fully connected CRF (Krähenbühl and Koltun, NIPS 2011) on permutohedral lattices.

This is Algorithm 1 as densecrf implements it, with Potts compatibility, unary energies psi and symmetrically normalised kernels
k:

    Q = softmax(-psi),   then at each step   Q = softmax(-psi + sum_k w_k n_k * filter_k(n_k * Q)),   n_k = 1 / sqrt(filter_k(1))

Compiled loops run it on a CPU (compiled.py), torch on other devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsss_ray.ops.lattice.base import bilateral_features, spatial_features
from wsss_ray.ops.lattice.on_torch import TorchLattice


@torch.no_grad()
def infer(
    image_HWC: Tensor,
    energies: Sequence[Tensor],
    *,
    iterations: int,
    gaussian_sxy: float,
    gaussian_weight: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_weight: float,
) -> list[Tensor]:
    """Compute label probabilities of one image for one or several label sets.

    The label sets share the image's lattices and do not influence each other.

    Args:
        image_HWC: RGB 0..255 of any type; the computation runs on its device.
        energies: one energy_CHW of unary energies per label set, float32 (or float64), finite. C may differ and may be 0.
        iterations: number of mean-field steps.
        gaussian_sxy: standard deviation of the smoothness kernel in pixels.
        gaussian_weight: weight of the smoothness kernel; 0 switches it off.
        bilateral_sxy: standard deviation of the appearance kernel in pixels.
        bilateral_srgb: standard deviation of the appearance kernel in colour values.
        bilateral_weight: weight of the appearance kernel; 0 switches it off.

    Returns:
        One prob_CHW per label set, of the shape and type of its energies.

    Raises:
        ValueError: if the energies and the image differ in size, or no lattice can be built (see `build_lattice`).

    Example:
        >>> settings = dict(gaussian_sxy=3, gaussian_weight=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_weight=10)
        >>> (prob_CHW,) = infer(torch.zeros(4, 5, 3), [torch.rand(2, 4, 5)], iterations=5, **settings)
        >>> prob_CHW.shape
        torch.Size([2, 4, 5])
    """
    height, width = image_HWC.shape[:2]
    for energy_CHW in energies:
        if energy_CHW.shape[1:] != (height, width):
            shape = tuple(energy_CHW.shape)
            raise ValueError(f"energies: shape {shape} does not fit an image of {height} x {width}. Give (C, {height}, {width}).")
    kernels: list[tuple[Tensor, float]] = []
    if gaussian_weight > 0:
        kernels.append((spatial_features(height, width, sxy=gaussian_sxy, device=image_HWC.device), gaussian_weight))
    if bilateral_weight > 0:
        kernels.append((bilateral_features(image_HWC, sxy=bilateral_sxy, srgb=bilateral_srgb), bilateral_weight))
    single = all(energy_CHW.dtype == torch.float32 for energy_CHW in energies)
    if single and all(tensor.device.type == "cpu" for tensor in (image_HWC, *energies)):
        from wsss_ray.ops.lattice import compiled

        lattices = [(compiled.CompiledLattice.build(features_ND), weight) for features_ND, weight in kernels]
        return compiled.mean_field(lattices, energies, iterations)
    return mean_field(kernels, energies, iterations)


@torch.no_grad()
def mean_field(kernels: Sequence[tuple[Tensor, float]], energies: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """Compute label probabilities with plain torch, on any device.

    Args:
        kernels: features_ND of the pixels for each Gaussian, and its weight.
        energies: one energy_CHW per label set, as for `infer`.
        iterations: number of mean-field steps.

    Returns:
        One prob_CHW per label set, of the shape and type of its energies.

    Example:
        >>> kernels = [(spatial_features(4, 5, sxy=3.0), 3.0)]
        >>> [prob.shape for prob in mean_field(kernels, [torch.rand(2, 4, 5)], iterations=5)]
        [torch.Size([2, 4, 5])]
    """
    if not energies:
        return []
    messages = [_Kernel.build(features_ND, weight) for features_ND, weight in kernels]
    start_CN = -torch.cat([energy_CHW.flatten(1) for energy_CHW in energies])
    sizes = [len(energy_CHW) for energy_CHW in energies]
    prob_CN = _softmax(start_CN, sizes)
    for _ in range(iterations):
        prob_NC = prob_CN.T.contiguous()
        message_NC = torch.zeros_like(prob_NC)
        for kernel in messages:
            message_NC += kernel.message(prob_NC)
        prob_CN = _softmax(start_CN + message_NC.T.contiguous(), sizes)
    parts = prob_CN.split_with_sizes(sizes)
    return [part_CN.reshape(energy_CHW.shape) for part_CN, energy_CHW in zip(parts, energies, strict=True)]


@dataclass(frozen=True, eq=False)
class _Kernel:
    """Gaussian kernel of the pairwise energy: its lattice, its normalisation and its weight."""

    lattice: TorchLattice
    norm_N1: Tensor
    weight: float

    @classmethod
    def build(cls, features_ND: Tensor, weight: float) -> _Kernel:
        """Build the lattice and compute 1 / sqrt(filter(1))."""
        lattice = TorchLattice.build(features_ND)
        mass_N1 = lattice.filter(torch.ones_like(features_ND[:, :1]))
        return cls(lattice, 1 / (mass_N1 + 1e-20).sqrt(), weight)

    def message(self, prob_NC: Tensor) -> Tensor:
        """Compute the weighted, symmetrically normalised filter of the probabilities."""
        return self.lattice.filter(prob_NC * self.norm_N1) * (self.norm_N1 * self.weight)


def _softmax(logits_CN: Tensor, sizes: list[int]) -> Tensor:
    """Compute the softmax of each label set over its own rows."""
    return torch.cat([part_CN.softmax(dim=0) for part_CN in logits_CN.split_with_sizes(sizes)])
