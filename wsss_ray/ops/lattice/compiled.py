"""Implement the permutohedral lattice (see base.py) and mean-field inference on CPUs with compiled loops.

A call uses one thread and releases the interpreter lock, so other threads can work at the same time.

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

_COLUMNS = 12  # columns at a time: most rows of the lattices then stay in the L2 cache; times for 4 to 36 differ by a fifth


@dataclass(frozen=True, eq=False)
class CompiledLattice(Lattice):
    """Lattice as arrays: rows and weights of each point, and neighbours of each row. Points are padded to a multiple of 4."""

    points: int
    row_NV: Array
    weight_NV: Array
    beside_VM2: Array

    @property
    def scale(self) -> float:
        """Return the factor of sliced values, 1 / (1 + 2^-D)."""
        return 1 / (1 + math.ldexp(1, 1 - self.row_NV.shape[1]))

    @classmethod
    def build(cls, features_ND: Tensor) -> CompiledLattice:
        """Build the lattice. See `build_lattice`."""
        points_ND = padded(features_ND.detach()).contiguous().numpy()
        kind, corners = points_ND.dtype, points_ND.shape[1] + 1
        scale_V, axis_V = np.array(scales(corners, features_ND.dtype), kind), np.arange(corners).astype(kind)
        inverse = kind.type(rounded(1 / corners, features_ND.dtype))
        extent_V2 = corners * embedding.extent(points_ND, scale_V, axis_V, inverse).astype(np.float64)
        if not math.isfinite(points_ND.sum()):
            extent_V2[:] = math.nan  # comparisons in the loop ignore a NaN
        low_V, stride_V = (np.array(numbers, np.int64) for numbers in packing(*extent_V2.T.tolist()))
        row_NV, weight_NV, key_M, slots = embedding.embed(points_ND, scale_V, axis_V, inverse, low_V, stride_V)
        weight_NV[len(features_ND) :] = 0
        beside_VM2 = embedding.neighbours(key_M, slots, corners * stride_V - stride_V.sum())
        return cls(len(features_ND), row_NV, weight_NV, beside_VM2)

    def filter(self, values_NC: Tensor, *, reverse: bool = False) -> Tensor:
        """Filter every column. See `Lattice.filter`.

        Raises:
            ValueError: if `values_NC` does not have one row per point.
        """
        if values_NC.ndim != 2 or len(values_NC) != self.points:
            shape = tuple(values_NC.shape)
            raise ValueError(f"values_NC: shape {shape} does not fit a lattice of {self.points} points. Give one row per point.")
        given_NC = values_NC.detach().contiguous().numpy()
        values_MC = np.zeros((self.beside_VM2.shape[1], values_NC.shape[1]), given_NC.dtype)
        filtered_NC = np.empty_like(given_NC)
        loops.splat(given_NC, self.row_NV, self.weight_NV, values_MC)
        loops.blur(values_MC, self.beside_VM2, np.empty_like(values_MC), reverse)
        loops.gather(values_MC, self.row_NV, self.weight_NV, self.scale, filtered_NC)
        return torch.from_numpy(filtered_NC)


def mean_field(kernels: Sequence[tuple[CompiledLattice, float]], energies: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """Compute label probabilities with mean-field inference. `mean_field` in mean_field.py gives the same up to rounding.

    A step blurs the rows of each kernel once and passes over the pixels once. The pass reads the messages of all kernels from the
    blurred rows and adds the new probabilities to the rows of the next step. It thus reads the rows and weights of a pixel once.

    Args:
        kernels: lattices of the same pixels, built from float32, and their weights.
        energies: one energy_CHW per label set, float32, on the CPU, with at least one pixel.
        iterations: number of mean-field steps.

    Returns:
        One prob_CHW per label set, float32.

    Example:
        >>> lattice = CompiledLattice.build(spatial_features(4, 5, sxy=3.0))
        >>> [prob.shape for prob in mean_field([(lattice, 3.0)], [torch.rand(2, 4, 5)], iterations=5)]
        [torch.Size([2, 4, 5])]
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
    """Put rows and weights of all kernels side by side. A squared weight holds the norms, the scale and the kernel's weight."""
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
    """Group label sets so that a group has at most _COLUMNS labels; a larger set forms a group of its own."""
    block: list[Tensor] = []
    for energy_CHW in energies:
        if block and sum(map(len, block)) + len(energy_CHW) > _COLUMNS:
            yield block
            block = []
        block.append(energy_CHW)
    if block:
        yield block
