"""Splat, blur and slice on the permutohedral lattice with compiled loops, and run a mean-field step between slice and splat.

Four columns share one vector register, `_Lanes`. numba leaves vectorisation to LLVM, and LLVM does not vectorise loops of four.
Additions to a lane follow the order of the points or corners, and products are rounded before they are added. Results therefore
depend neither on the machine nor on the other columns.

Arrays: values_NC of the points, values_MC of the corners; row_NV and weight_NV hold the rows and weights of each point's corners;
beside_VM2 holds the rows before and after each row along every direction.

Shapes: N points, V corners of each, M rows of the lattice, C columns of values, W columns padded to a multiple of 4, T points
of a tile, S label sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from wsss_ray.ops.compiled import compiled

Array = NDArray[Any]

LANES = 4
_TILE = 64


class _Lanes(types.Type):  # type: ignore[misc]
    """Type of LANES numbers of one float type in a vector register."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """Model of `_Lanes` in LLVM: a vector."""

    def __init__(self, manager: Any, lanes: Any) -> None:
        item = ir.FloatType() if lanes.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, lanes, ir.VectorType(item, LANES))


register_model(_Lanes)(_LanesModel)


def _shuffled(builder: Any, one: Any, other: Any, *places: int) -> Any:
    """Pick lanes from two vectors; lanes of the second are numbered from LANES."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), places))


def _spread(context: Any, builder: Any, number: Any, kind: Any, lanes: Any) -> Any:
    """Copy a number to every lane."""
    number = context.cast(builder, number, kind, lanes.dtype)
    vector = context.get_value_type(lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return _shuffled(builder, one, one, *[0] * LANES)


def _address(context: Any, builder: Any, signature: Any, args: Any, vector: Any) -> Any:
    """Compute the address of a place in an array, as a pointer to a vector."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    place = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer())


def _zeros_like(_: Any, array: Any) -> Any:
    return _Lanes(array.dtype)(array), lambda context, builder, signature, args: ir.Constant(
        context.get_value_type(signature.return_type), None
    )


def _load(_: Any, array: Any, place: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature, args, context.get_value_type(signature.return_type))
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return _Lanes(array.dtype)(array, place), code


def _store(_: Any, array: Any, place: Any, lanes: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature, args, context.get_value_type(lanes))
        builder.store(args[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, place, lanes), code


def _plus(_: Any, lanes: Any, weight: Any, others: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weights = _spread(context, builder, args[1], weight, lanes)
        return builder.fadd(args[0], builder.fmul(weights, args[2]))

    return lanes(lanes, weight, others), code


def _turned(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c, d = args
        low_ab, high_ab = _shuffled(builder, a, b, 0, 4, 1, 5), _shuffled(builder, a, b, 2, 6, 3, 7)
        low_cd, high_cd = _shuffled(builder, c, d, 0, 4, 1, 5), _shuffled(builder, c, d, 2, 6, 3, 7)
        pairs = ((low_ab, low_cd), (high_ab, high_cd))
        rows = [_shuffled(builder, *pair, *half) for pair in pairs for half in ((0, 1, 4, 5), (2, 3, 6, 7))]
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(a, 4)(a, b, c, d), code


zeros_like: Callable[[Array], Any] = intrinsic(_zeros_like)  # zeros of the array's type
load: Callable[[Array, Any], Any] = intrinsic(_load)  # from a flat index into a contiguous array, without a bounds check
store: Callable[[Array, Any, Any], None] = intrinsic(_store)
plus: Callable[[Any, Any, Any], Any] = intrinsic(_plus)  # lanes + weight * others
turned: Callable[[Any, Any, Any, Any], Any] = intrinsic(_turned)  # transpose four by four


@compiled
def splat(values_NC: Array, row_NV: Array, weight_NV: Array, into_MC: Array) -> None:
    """Add the weighted values of the points to their corners, in `into_MC`."""
    columns = values_NC.shape[1]
    whole = columns - columns % LANES
    for i in range(len(values_NC)):
        for v in range(row_NV.shape[1]):
            weight, at = weight_NV[i, v], np.intp(row_NV[i, v]) * columns
            for c in range(0, whole, LANES):
                store(into_MC, at + c, plus(load(into_MC, at + c), weight, load(values_NC, i * columns + c)))
            for c in range(whole, columns):
                into_MC[row_NV[i, v], c] += into_MC.dtype.type(weight) * values_NC[i, c]


@compiled
def gather(values_MC: Array, row_NV: Array, weight_NV: Array, scale: float, filtered_NC: Array) -> None:
    """Slice: write the weighted sum of each point's corners, times `scale`, to `filtered_NC`."""
    columns, of = values_MC.shape[1], values_MC.dtype.type
    whole = columns - columns % LANES
    for i in range(len(filtered_NC)):
        for c in range(0, whole, LANES):
            lanes = zeros_like(values_MC)
            for v in range(row_NV.shape[1]):
                lanes = plus(lanes, weight_NV[i, v], load(values_MC, np.intp(row_NV[i, v]) * columns + c))
            store(filtered_NC, i * columns + c, plus(zeros_like(values_MC), scale, lanes))
        for c in range(whole, columns):
            number = of(0)
            for v in range(row_NV.shape[1]):
                number += of(weight_NV[i, v]) * values_MC[row_NV[i, v], c]
            filtered_NC[i, c] = of(0) + of(scale) * number


@compiled
def _blur_along(from_MC: Array, beside_M2: Array, to_MC: Array) -> None:
    """Blur along one direction: add half of the rows before and after."""
    columns, half = from_MC.shape[1], from_MC.dtype.type(0.5)
    whole = columns - columns % LANES
    for m in range(len(from_MC)):
        at, before, after = m * columns, np.intp(beside_M2[m, 0]) * columns, np.intp(beside_M2[m, 1]) * columns
        for c in range(0, whole, LANES):
            lanes = plus(load(from_MC, at + c), half, load(from_MC, after + c))
            store(to_MC, at + c, plus(lanes, half, load(from_MC, before + c)))
        for c in range(whole, columns):
            number = from_MC[m, c] + half * from_MC[beside_M2[m, 1], c]
            to_MC[m, c] = number + half * from_MC[beside_M2[m, 0], c]


@compiled
def blur(values_MC: Array, beside_VM2: Array, spare_MC: Array, reverse: bool) -> None:
    """Blur in place along all directions, with `reverse` in the opposite order. `spare_MC` is overwritten."""
    directions = len(beside_VM2)
    from_MC, to_MC = values_MC, spare_MC
    for v in range(directions):
        _blur_along(from_MC, beside_VM2[directions - 1 - v if reverse else v], to_MC)
        from_MC, to_MC = to_MC, from_MC
    if directions % 2 == 1:
        values_MC[:] = spare_MC


@compiled
def join(
    row_NV: Array, weight_NV: Array, factor_N: Array, first_row: int, first: int, to_row_NV: Array, to_weight_NV: Array
) -> None:
    """Copy the corners of one lattice to the columns from `first` on: rows plus `first_row`, weights times `factor_N`."""
    for i in range(len(row_NV)):
        for v in range(row_NV.shape[1]):
            to_row_NV[i, first + v] = row_NV[i, v] + np.uint32(first_row)
            to_weight_NV[i, first + v] = weight_NV[i, v] * factor_N[i]


@compiled
def _exp(x: Any) -> Any:
    """Compute e^x of a float32 x <= 0 to a relative 1e-7, not below e^-87: Cephes' polynomial, as libm has no vector form."""
    x = np.float32(-87) if x < np.float32(-87) else x
    shifted = x * np.float32(1.44269504) + np.float32(12582912)  # 1.5 * 2^23: the lowest bits then hold the rounded number
    whole = shifted - np.float32(12582912)
    x = (x - whole * np.float32(0.693359375)) - whole * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    y = (y * (x * x) + x) + np.float32(1)
    return y * np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def _slice_tile(values_MW: Array, row_NV: Array, weight_NV: Array, first: int, count: int, tile_WT: Array) -> None:
    """Slice `count` points from `first` on into a tile."""
    width = values_MW.shape[1]
    for c in range(0, width, LANES):
        for t in range(0, count, LANES):
            i, none = first + t, zeros_like(values_MW)
            p, q, r, s = none, none, none, none
            for v in range(row_NV.shape[1]):
                p = plus(p, weight_NV[i, v], load(values_MW, np.intp(row_NV[i, v]) * width + c))
                q = plus(q, weight_NV[i + 1, v], load(values_MW, np.intp(row_NV[i + 1, v]) * width + c))
                r = plus(r, weight_NV[i + 2, v], load(values_MW, np.intp(row_NV[i + 2, v]) * width + c))
                s = plus(s, weight_NV[i + 3, v], load(values_MW, np.intp(row_NV[i + 3, v]) * width + c))
            for k, lanes in enumerate(turned(p, q, r, s)):
                store(tile_WT, (c + k) * _TILE + t, lanes)


@compiled
def _splat_tile(tile_WT: Array, row_NV: Array, weight_NV: Array, first: int, count: int, into_MW: Array) -> None:
    """Splat a tile of `count` points from `first` on."""
    width = into_MW.shape[1]
    for c in range(0, width, LANES):
        for t in range(0, count, LANES):
            at = c * _TILE + t
            four = turned(
                load(tile_WT, at), load(tile_WT, at + _TILE), load(tile_WT, at + 2 * _TILE), load(tile_WT, at + 3 * _TILE)
            )
            for k, lanes in enumerate(four):
                for v in range(row_NV.shape[1]):
                    to = np.intp(row_NV[first + t + k, v]) * width + c
                    store(into_MW, to, plus(load(into_MW, to), weight_NV[first + t + k, v], lanes))


@compiled
def _softmax_tile(tile_WT: Array, energy_CN: Array, start_S: Array, first: int, count: int, top_T: Array, sum_T: Array) -> None:
    """Replace the messages in a tile by probabilities: the softmax of message minus energy over each label set."""
    for s in range(len(start_S) - 1):
        top_T[:], sum_T[:] = -np.inf, 0
        for c in range(start_S[s], start_S[s + 1]):
            own_T, energy_T = tile_WT[c], energy_CN[c, first : first + count]
            for t in range(count):
                logit, top = own_T[t] - energy_T[t], top_T[t]
                own_T[t] = logit
                top_T[t] = logit if logit > top else top
        for c in range(start_S[s], start_S[s + 1]):
            own_T = tile_WT[c]
            for t in range(count):
                share = _exp(own_T[t] - top_T[t])
                own_T[t] = share
                sum_T[t] += share
        for c in range(start_S[s], start_S[s + 1]):
            own_T = tile_WT[c]
            for t in range(count):
                own_T[t] /= sum_T[t]


@compiled
def mean_field(
    values_MW: Array, energy_CN: Array, start_S: Array, row_NV: Array, weight_NV: Array, into_MW: Array, prob_CN: Array
) -> None:
    """Pass over the points once: slice their messages, compute their probabilities and splat these.

    Args:
        values_MW: blurred values of the corners; empty in the first pass, which has no messages.
        energy_CN: unary energies, float32.
        start_S: first column of each label set, then C; int64.
        row_NV: rows of all kernels. N is rounded up to a multiple of 4; added points have the weight 0.
        weight_NV: weights of all kernels. A weight counts twice, so its square contains all factors of a message.
        into_MW: zeros, to which the probabilities are added; empty in the last pass.
        prob_CN: probabilities, overwritten in the last pass; empty in the others.
    """
    points = energy_CN.shape[1]
    tile_WT = np.zeros((max(values_MW.shape[1], into_MW.shape[1], len(energy_CN)), _TILE), np.float32)
    top_T, sum_T = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for first in range(0, points, _TILE):
        count = min(_TILE, points - first)
        padded = count + -count % LANES
        tile_WT[:] = 0
        _slice_tile(values_MW, row_NV, weight_NV, first, padded, tile_WT)
        _softmax_tile(tile_WT, energy_CN, start_S, first, count, top_T, sum_T)
        _splat_tile(tile_WT, row_NV, weight_NV, first, padded, into_MW)
        for c in range(len(prob_CN)):
            prob_CN[c, first : first + count] = tile_WT[c, :count]
