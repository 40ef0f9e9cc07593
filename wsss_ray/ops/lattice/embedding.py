"""Find the corners of the permutohedral lattice with compiled loops: embedding, hash table and neighbours (see base.py).

Points are processed in tiles of 64, laid out by coordinate, so that arithmetic runs on many points at once. Only the hash table
is filled point by point. The table uses open addressing; its slots hold 32-bit row numbers, and a row number leads to a key.
Corners are numbered from 1 in the order in which points first touch them, so neighbouring pixels find their rows close together.
Row 0 belongs to no corner.

Shapes: N points, D dimensions, V = D + 1 corners of a simplex, M rows, T points of a tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss_ray.ops.compiled import compiled

Array = NDArray[Any]

_TILE = 64


@compiled
def _elevate(features_ND: Array, scale_V: Array, axis_V: Array, first: int, count: int, elevated_VT: Array) -> None:
    """Map points onto the hyperplane whose coordinates sum to 0. `axis_V` holds 0, 1, 2, ... in the features' type."""
    below_T = elevated_VT[0]
    below_T[:count] = 0
    for axis in range(len(scale_V) - 1, 0, -1):
        scale, steps, own_T = scale_V[axis], axis_V[axis], elevated_VT[axis]
        for t in range(count):
            scaled = features_ND[first + t, axis - 1] * scale
            own_T[t] = below_T[t] - steps * scaled
            below_T[t] += scaled


@compiled
def extent(features_ND: Array, scale_V: Array, axis_V: Array, inverse: Any) -> Array:
    """Find the lowest and the highest rounded coordinate on each axis, in units of V.

    Args:
        features_ND: features of the points, N a multiple of 4.
        scale_V: factors of `base.scales`, in the features' type.
        axis_V: 0, 1, 2, ... in the features' type.
        inverse: 1 / V in the features' type.

    Returns:
        extent_V2: lowest and highest coordinate on each axis.

    Example:
        >>> extent_V2 = V * extent(points_ND, scale_V, axis_V, inverse)
    """
    points, corners = len(features_ND), len(scale_V)
    elevated_VT = np.empty((corners, _TILE), scale_V.dtype)
    low_VT, high_VT = np.full_like(elevated_VT, np.inf), np.full_like(elevated_VT, -np.inf)
    for first in range(0, points, _TILE):
        count = min(_TILE, points - first)
        _elevate(features_ND, scale_V, axis_V, first, count, elevated_VT)
        for v in range(corners):
            elevated_T, low_T, high_T = elevated_VT[v], low_VT[v], high_VT[v]
            for t in range(count):
                rounded, low, high = np.rint(elevated_T[t] * inverse), low_T[t], high_T[t]
                low_T[t] = rounded if rounded < low else low
                high_T[t] = rounded if rounded > high else high
    extent_V2 = np.empty((corners, 2), scale_V.dtype)
    for v in range(corners):
        extent_V2[v, 0], extent_V2[v, 1] = low_VT[v].min(), high_VT[v].max()
    return extent_V2


@compiled
def _find(key: Any, key_M: Array, slots: Array) -> Any:
    """Return the slot that leads to the key's row, or the empty slot for a new key."""
    mask = np.uint64(len(slots) - 1)
    place = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    while True:
        place &= mask
        row = slots[place]
        if row == 0 or key_M[row] == key:
            return place
        place += np.uint64(1)


@compiled
def _grown(key_M: Array, rows: int) -> tuple[Array, Array]:
    """Copy keys and slots to arrays of twice the size."""
    more_M, slots = np.empty(2 * len(key_M), np.int64), np.zeros(2 * len(key_M), np.uint32)
    more_M[:rows] = key_M[:rows]
    for m in range(1, rows):
        slots[_find(more_M[m], more_M, slots)] = m
    return more_M, slots


@compiled
def _enter(key_VT: Array, first: int, count: int, key_M: Array, slots: Array, rows: int, row_NV: Array) -> int:
    # a function of its own: the caller's loop rebinds these arrays, so numba would count references there at every corner
    for t in range(count):
        for v in range(len(key_VT)):
            key = key_VT[v, t]
            slot = _find(key, key_M, slots)
            row = slots[slot]
            if row == 0:
                row = np.uint32(rows)
                slots[slot] = row
                key_M[rows] = key
                rows += 1
            row_NV[first + t, v] = row
    return rows


@compiled
def _simplex(
    elevated_VT: Array, count: int, inverse: Any, low_V: Array, stride_V: Array, offset_VT: Array, place_VT: Array, key_T: Array
) -> None:
    """Find, for elevated points, the offsets from the corner of remainder 0, their places in descending order, and its key."""
    corners, of = len(elevated_VT), elevated_VT.dtype.type
    count_T = np.zeros(_TILE, np.int32)
    for v in range(corners):
        elevated_T, offset_T = elevated_VT[v], offset_VT[v]
        for t in range(count):
            rounded = np.rint(elevated_T[t] * inverse)
            offset_T[t] = elevated_T[t] - rounded * of(corners)
            count_T[t] += np.int32(rounded)
    for v in range(corners):
        place_T = place_VT[v]
        for t in range(count):
            place_T[t] = count_T[t] + np.int32(v)
    for v in range(corners):
        for other in range(v + 1, corners):
            offset_T, others_T, place_T, others_place_T = offset_VT[v], offset_VT[other], place_VT[v], place_VT[other]
            for t in range(count):
                smaller = np.int32(offset_T[t] < others_T[t])
                place_T[t] += smaller
                others_place_T[t] -= smaller
    key_T[:count] = 0
    wide = np.int32(corners)
    for v in range(corners):
        elevated_T, offset_T, place_T, low, stride = elevated_VT[v], offset_VT[v], place_VT[v], low_V[v], stride_V[v]
        for t in range(count):
            shift = wide * (np.int32(place_T[t] < np.int32(0)) - np.int32(place_T[t] >= wide))  # back onto the plane
            place_T[t] += shift
            base = np.int32(np.rint(elevated_T[t] * inverse)) * wide + shift
            offset_T[t] = (elevated_T[t] - of(base)) * inverse
            key_T[t] += (base - low) * stride


@compiled
def embed(
    features_ND: Array, scale_V: Array, axis_V: Array, inverse: Any, low_V: Array, stride_V: Array
) -> tuple[Array, Array, Array, Array]:
    """Embed points: find the rows and barycentric weights of the corners of each point.

    Args:
        features_ND: features of the points, N a multiple of 4.
        scale_V: factors of `base.scales`, in the features' type.
        axis_V: 0, 1, 2, ... in the features' type.
        inverse: 1 / V in the features' type.
        low_V: lowest value of each coordinate in a key, int64 (see `base.packing`).
        stride_V: stride of each coordinate in a key, int64.

    Returns:
        row_NV and weight_NV of the points, key_M of the rows, and the slots of the hash table.

    Example:
        >>> row_NV, weight_NV, key_M, slots = embed(points_ND, scale_V, axis_V, inverse, low_V, stride_V)
    """
    points, corners, of = len(features_ND), len(scale_V), scale_V.dtype.type
    row_NV, weight_NV = np.empty((points, corners), np.uint32), np.empty((points, corners), scale_V.dtype)
    elevated_VT, place_VT = np.empty((corners, _TILE), scale_V.dtype), np.empty((corners, _TILE), np.int32)
    offset_VT, falling_VT = np.empty_like(elevated_VT), np.empty_like(elevated_VT)
    key_T, key_VT = np.empty(_TILE, np.int64), np.empty((corners, _TILE), np.int64)
    key_M, slots, rows = np.full(1024, -1, np.int64), np.zeros(1024, np.uint32), 1
    sum_of_strides = stride_V.sum()
    for first in range(0, points, _TILE):
        count = min(_TILE, points - first)
        _elevate(features_ND, scale_V, axis_V, first, count, elevated_VT)
        _simplex(elevated_VT, count, inverse, low_V, stride_V, offset_VT, place_VT, key_T)
        for k in range(corners):  # the corner of remainder k is +k everywhere, and -V at the k lowest
            last, from_last = np.int32(corners - 1 - k), np.int32(corners - k)
            falling_T, keys_T = falling_VT[k], key_VT[k]
            for t in range(count):
                falling_T[t] = 0
                keys_T[t] = key_T[t] + k * sum_of_strides
            for v in range(corners):
                offset_T, place_T, back = offset_VT[v], place_VT[v], corners * stride_V[v]
                for t in range(count):
                    own, held = offset_T[t], falling_T[t]
                    falling_T[t] = own if place_T[t] == last else held
                for t in range(count):
                    keys_T[t] -= back & -np.int64(place_T[t] >= from_last)
        for k in range(corners):
            own_T, before_T = falling_VT[k], falling_VT[k - 1]
            whole = of(1 if k == 0 else 0)
            for t in range(count):
                weight_NV[first + t, k] = own_T[t] + (whole - before_T[t])
        while 2 * (rows + count * corners) > len(slots):
            key_M, slots = _grown(key_M, rows)
        rows = _enter(key_VT, first, count, key_M, slots, rows, row_NV)
    return row_NV, weight_NV, key_M[:rows].copy(), slots


@compiled
def neighbours(key_M: Array, slots: Array, step_V: Array) -> Array:
    """Find the rows before and after each row along every direction.

    Args:
        key_M: keys of the rows, as `embed` returns them.
        slots: slots of the hash table, as `embed` returns them.
        step_V: step of the key along each direction.

    Returns:
        beside_VM2: the rows before and after, 0 where no point uses that corner.

    Example:
        >>> beside_VM2 = neighbours(key_M, slots, corners * stride_V - stride_V.sum())
    """
    beside_VM2 = np.zeros((len(step_V), len(key_M), 2), np.uint32)
    for v in range(len(step_V)):
        step, beside_M2 = step_V[v], beside_VM2[v]
        for m in range(1, len(key_M)):
            after = slots[_find(key_M[m] + step, key_M, slots)]
            if after != 0:
                beside_M2[m, 1], beside_M2[after, 0] = after, m
    return beside_VM2
