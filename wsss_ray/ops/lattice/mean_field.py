"""Mean-field inference in a fully connected CRF (Krähenbühl and Koltun, NIPS 2011) on permutohedral lattices.

Algorithm 1 as densecrf runs it, with Potts compatibility, unary energies psi and both kernels k normalised symmetrically:

    Q = softmax(-psi);   as often as asked:   Q = softmax(-psi + sum_k w_k n_k * filter_k(n_k * Q)),   n_k = 1 / sqrt(filter_k(1))

On a CPU compiled loops do it (compiled.py), elsewhere torch.
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
    """Label probabilities of one image for one or several label sets, which share its lattices and change nothing in each other.

    Args:
        image_HWC: RGB 0..255, of any type; the computation takes place on its device.
        energies: one energy_CHW of unary energies per label set, float32 (or float64), finite; C may differ, 0 is allowed.
        iterations: mean-field steps.
        gaussian_sxy: reach of the smoothness kernel, pixels.
        gaussian_weight: its weight; 0 leaves it out.
        bilateral_sxy: reach of the appearance kernel, pixels.
        bilateral_srgb: its reach in colour values.
        bilateral_weight: its weight; 0 leaves it out.

    Returns:
        One prob_CHW per label set, of its energies' shape and type.

    Raises:
        ValueError: if the energies are of another size than the image, or `build_lattice` refuses its colours or the reaches.
    """
    height, width = image_HWC.shape[:2]
    for energy_CHW in energies:
        if energy_CHW.shape[1:] != (height, width):
            raise ValueError(f"unary energies of shape {tuple(energy_CHW.shape)} for an image of {height} x {width}")
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
    """The plain form, in torch, on any device.

    Args:
        kernels: features_ND of the pixels for each Gaussian, and its weight.
        energies: as of `infer`.
        iterations: mean-field steps.
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
    """One Gaussian of the pairwise energy."""

    lattice: TorchLattice
    norm_N1: Tensor
    weight: float

    @classmethod
    def build(cls, features_ND: Tensor, weight: float) -> _Kernel:
        lattice = TorchLattice.build(features_ND)
        mass_N1 = lattice.filter(torch.ones_like(features_ND[:, :1]))
        return cls(lattice, 1 / (mass_N1 + 1e-20).sqrt(), weight)

    def message(self, prob_NC: Tensor) -> Tensor:
        return self.lattice.filter(prob_NC * self.norm_N1) * (self.norm_N1 * self.weight)


def _softmax(logits_CN: Tensor, sizes: list[int]) -> Tensor:
    """Each label set's softmax over its own rows."""
    return torch.cat([part_CN.softmax(dim=0) for part_CN in logits_CN.split_with_sizes(sizes)])
