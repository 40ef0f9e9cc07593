"""Turn the pixels of a mask into polygons along the edges of the pixels, without loss.

A polygon of COCO's format has no holes. So each hole is joined to the outline round it by a cut of no width, which is drawn there
and back: programs that fill by the even-odd rule or by winding numbers leave the hole empty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed line, with the mask on its right hand if y points down. The last corner is not the first."""

_Pair = tuple[int, int]
_Edges = dict[_Pair, dict[_Pair, _Pair]]
"""Where an edge starts (x, y) -> its direction (x, y) -> the pixel on its right hand (row, column)."""


def outlines(inside_HW: NDArray[np.bool_]) -> list[Ring]:
    """Return one polygon for every connected piece of a mask. Pixels that touch only at a corner are two pieces.

    Args:
        inside_HW: The mask, (H, W).

    Returns:
        The corners of each polygon, as (x, y) in pixels: the upper left pixel is the square from (0, 0) to (1, 1).

    Example:
        >>> outlines(np.array([[True, True]]))
        [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    pieces_HW, count = ndimage.label(inside_HW)
    rings: list[list[Ring]] = [[] for _ in range(count)]
    for ring, (y, x) in _rings(inside_HW):
        rings[pieces_HW[y, x] - 1].append(ring)
    return [_joined(of_piece) for of_piece in rings]


def _rings(inside_HW: NDArray[np.bool_]) -> Iterator[tuple[Ring, _Pair]]:
    """Follow the edges between mask and background. Yield each closed line with a pixel (row, column) on its right hand."""
    padded = np.pad(inside_HW, 1)
    pixel = padded[1:-1, 1:-1]
    # a pixel's edges, clockwise: where its neighbour lies, where the edge starts, and its direction (x, y)
    sides: list[tuple[NDArray[np.bool_], _Pair, _Pair]] = [
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ]
    edges: _Edges = {}
    for neighbour, (dx, dy), direction in sides:
        for y, x in np.argwhere(pixel & ~neighbour).tolist():
            edges.setdefault((x + dx, y + dy), {})[direction] = (y, x)
    for start in sorted(edges, key=lambda corner: corner[::-1]):
        while start in edges:  # two lines may meet in a corner
            yield _ring(edges, start)


def _ring(edges: _Edges, start: _Pair) -> tuple[Ring, _Pair]:
    """Take the edges of one closed line out of `edges`. Return its corners, and a pixel on its right hand."""
    at, way, ring, seen = start, (0, 0), Ring(), (0, 0)
    while at in edges and (not ring or at != start or _turn(way) in edges[at]):
        here = edges[at]
        turn = _turn(way) if _turn(way) in here else next(iter(here))  # right first: the piece stays the same
        seen = here.pop(turn)
        if not here:
            del edges[at]
        if turn != way:
            ring.append(at)
        way, at = turn, (at[0] + turn[0], at[1] + turn[1])
    return ring, seen


def _turn(way: _Pair) -> _Pair:
    """Return the direction to the right of a direction (x, y), if y points down."""
    return -way[1], way[0]


def _joined(rings: list[Ring]) -> Ring:
    """Join the holes of a piece to its outline, from left to right, each by a level cut to the line on its left."""
    rings = sorted(rings, key=min)  # the outline reaches farthest to the left
    whole = rings[0]
    for hole in rings[1:]:
        first = hole.index(min(hole))
        x, y = hole[first]
        lines = enumerate(zip(whole, [*whole[1:], whole[0]], strict=True))
        upright = ((place, one, two) for place, (one, two) in lines if one[0] == two[0] < x)
        left, place = max((one[0], place) for place, one, two in upright if min(one[1], two[1]) <= y <= max(one[1], two[1]))
        cut = (left, y)
        whole = [*whole[: place + 1], cut, *hole[first:], *hole[: first + 1], cut, *whole[place + 1 :]]
    return whole
