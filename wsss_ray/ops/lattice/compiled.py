"""The permutohedral lattice in compiled loops (see base.py), and mean-field inference on several of them: the form for CPUs.

One thread works; others may do the same beside it, as the interpreter lock is released.

Shapes: N points, V corners of each, M rows of a lattice, C columns of values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsss_ray.ops.lattice import embedding, loops
from wsss_ray.ops.lattice.base import Lattice, packing, padded, rounded, scales

Array = NDArray[Any]

_COLUMNS = 12  # at a time, so that most of the lattices' rows stay in the second cache; 4 to 36 differ by a fifth


@dataclass(frozen=True, eq=False)
class CompiledLattice(Lattice):
    """The lattice as each point's rows and weights, and each row's neighbours; points are padded to a multiple of 4."""

    points: int
    row_NV: Array
    weight_NV: Array
    beside_VM2: Array

    @property
    def scale(self) -> float:
        """What sliced values are multiplied with."""
        return 1 / (1 + math.ldexp(1, 1 - self.row_NV.shape[1]))

    @classmethod
    def build(cls, features_ND: Tensor) -> CompiledLattice:
        """Build the lattice; see `build_lattice`."""
        points_ND = padded(features_ND.detach()).contiguous().numpy()
        kind, corners = points_ND.dtype, points_ND.shape[1] + 1
        scale_V, axis_V = np.array(scales(corners, features_ND.dtype), kind), np.arange(corners).astype(kind)
        inverse = kind.type(rounded(1 / corners, features_ND.dtype))
        extent_V2 = corners * embedding.extent(points_ND, scale_V, axis_V, inverse).astype(np.float64)
        if not math.isfinite(points_ND.sum()):
            extent_V2[:] = math.nan  # the loop's comparisons pass over one
        low_V, stride_V = (np.array(numbers, np.int64) for numbers in packing(*extent_V2.T.tolist()))
        row_NV, weight_NV, key_M, slots = embedding.embed(points_ND, scale_V, axis_V, inverse, low_V, stride_V)
        weight_NV[len(features_ND) :] = 0
        beside_VM2 = embedding.neighbours(key_M, slots, corners * stride_V - stride_V.sum())
        return cls(len(features_ND), row_NV, weight_NV, beside_VM2)

    def filter(self, values_NC: Tensor, *, reverse: bool = False) -> Tensor:
        """See `Lattice.filter`."""
        if values_NC.ndim != 2 or len(values_NC) != self.points:
            raise ValueError(f"values of shape {tuple(values_NC.shape)} for a lattice of {self.points} points")
        given_NC = values_NC.detach().contiguous().numpy()
        values_MC = np.zeros((self.beside_VM2.shape[1], values_NC.shape[1]), given_NC.dtype)
        filtered_NC = np.empty_like(given_NC)
        loops.splat(given_NC, self.row_NV, self.weight_NV, values_MC)
        loops.blur(values_MC, self.beside_VM2, np.empty_like(values_MC), reverse)
        loops.gather(values_MC, self.row_NV, self.weight_NV, self.scale, filtered_NC)
        return torch.from_numpy(filtered_NC)


def mean_field(kernels: Sequence[tuple[CompiledLattice, float]], energies: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """Label probabilities after some mean-field steps; see mean_field.py, whose `mean_field` it equals but for rounding.

    A step is one blur of each kernel's rows and one pass over the pixels, which reads the messages of all kernels from the
    blurred rows and adds the new probabilities to those of the next step, so that each pixel's rows and weights are read once.

    Args:
        kernels: lattices of the same pixels, made of float32, and their weights.
        energies: one energy_CHW of at least one pixel per label set, float32, on the CPU.
        iterations: how many.
    """
    first_K = np.cumsum([0, *(lattice.beside_VM2.shape[1] for lattice, _ in kernels)])
    row_NV, weight_NV = _together(kernels, first_K)
    nothing = np.empty((0, 0), np.float32)
    probs: list[Tensor] = []
    for several in _blocks(energies):
        energy_CN = torch.cat([energy_CHW.detach().flatten(1) for energy_CHW in several]).numpy()
        start_S = np.cumsum([0, *map(len, several)])
        width = len(energy_CN) + -len(energy_CN) % loops.LANES
        read_MW, added_MW = nothing, np.zeros((first_K[-1], width), np.float32)
        spare_MW = np.empty_like(added_MW)
        for _ in range(iterations):
            loops.mean_field(read_MW, energy_CN, start_S, row_NV, weight_NV, added_MW, nothing)
            for (lattice, _), first, end in zip(kernels, first_K[:-1], first_K[1:], strict=True):
                loops.blur(added_MW[first:end], lattice.beside_VM2, spare_MW[first:end], False)
            spare_MW[:] = 0
            read_MW, added_MW, spare_MW = added_MW, spare_MW, added_MW
        prob_CN = np.empty_like(energy_CN)
        loops.mean_field(read_MW, energy_CN, start_S, row_NV, weight_NV, nothing, prob_CN)
        parts = np.split(prob_CN, start_S[1:-1])
        probs += [torch.from_numpy(part).reshape(energy.shape) for part, energy in zip(parts, several, strict=True)]
    return probs


def _together(kernels: Sequence[tuple[CompiledLattice, float]], first_K: Array) -> tuple[Array, Array]:
    """Rows and weights of all kernels side by side; a weight's square holds the norms, the scale and the kernel's weight."""
    points = len(kernels[0][0].row_NV) if kernels else 0
    corners = sum(lattice.row_NV.shape[1] for lattice, _ in kernels)
    row_NV, weight_NV = np.empty((points, corners), np.uint32), np.empty((points, corners), np.float32)
    done = 0
    for (lattice, weight), first in zip(kernels, first_K[:-1], strict=True):
        mass_N = lattice.filter(torch.ones(lattice.points, 1))[:, 0]
        factor_N = math.sqrt(weight * lattice.scale) / (mass_N + 1e-20).sqrt()
        factor_N = functional.pad(factor_N, (0, points - lattice.points))
        loops.join(lattice.row_NV, lattice.weight_NV, factor_N.numpy(), first, done, row_NV, weight_NV)
        done += lattice.row_NV.shape[1]
    return row_NV, weight_NV


def _blocks(energies: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """As many label sets at a time as have _COLUMNS labels, or one with more."""
    block: list[Tensor] = []
    for energy_CHW in energies:
        if block and sum(map(len, block)) + len(energy_CHW) > _COLUMNS:
            yield block
            block = []
        block.append(energy_CHW)
    if block:
        yield block
