"""Let the segments of an image vote on its labels: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import ExtraArray, LabelArray

Voters = Literal["objects", "labels"]

_LABELS = IGNORE + 1


def vote(label_HW: LabelArray, layers: Iterable[ExtraArray], *, share: float, covers: float | None, voters: Voters) -> LabelArray:
    """Give each segment the label that covers most of it, if it covers enough.

    A segment is assigned to the label with the most pixels in it. It takes this label if the label has more than `share` of the
    segment, or if the segment has at least `covers` of all pixels of the label, which must be an object. Where several segments
    take labels, the one of which its label has the larger share decides.

    Args:
        label_HW: labels with `IGNORE`, whose pixels count in the size of a segment and for no label.
        layers: segments as numbers (H, W), 0 for none. Those of one layer do not overlap, those of two layers may.
        share: share of a segment that its label must exceed.
        covers: share of the label's pixels that must lie in the segment; None leaves this rule out.
        voters: "objects": background does not vote; a pixel whose segments take no label becomes background, unless it is
            undecided. "labels": background votes too, and a pixel whose segments take no label keeps its own.

    Returns:
        Labels (H, W). A pixel without a segment keeps its label.

    Example:
        >>> label, segment = np.array([[0, 3, 3, 3, 0, 3]], np.uint8), np.array([[1, 1, 1, 1, 2, 2]], np.uint16)
        >>> vote(label, [segment], share=0.5, covers=None, voters="objects")
        array([[3, 3, 3, 3, 0, 0]], dtype=uint8)
    """
    first = 1 if voters == "objects" else 0
    of_label = np.bincount(label_HW.ravel(), minlength=_LABELS)
    found_HW: LabelArray = label_HW.copy()
    best_HW = np.zeros(label_HW.shape)
    for layer_HW in layers:
        number_HW = layer_HW.astype(np.int64)
        segments = int(number_HW.max(initial=0)) + 1
        count_SL = np.bincount((number_HW * _LABELS + label_HW).ravel(), minlength=segments * _LABELS).reshape(segments, _LABELS)
        size_S = count_SL.sum(axis=1)
        label_S = count_SL[:, first:IGNORE].argmax(axis=1) + first
        own_S = np.take_along_axis(count_SL, label_S[:, None], axis=1)[:, 0]
        share_S = own_S / size_S.clip(min=1)
        takes_S = share_S > share
        if covers is not None:
            takes_S |= (own_S >= covers * of_label[label_S]) & (own_S > 0) & (label_S > 0)
        takes_S[0] = False
        if voters == "objects":
            found_HW[(number_HW > 0) & (best_HW == 0) & (label_HW != IGNORE)] = 0
        wins_HW = takes_S[number_HW] & (share_S[number_HW] > best_HW)
        found_HW[wins_HW] = label_S[number_HW][wins_HW]
        best_HW[wins_HW] = share_S[number_HW][wins_HW]
    return found_HW


def layered(masks: Iterable[NDArray[np.bool_]]) -> list[ExtraArray]:
    """Number masks that may overlap as segments of layers, in each of which they do not. Each mask goes to the first free layer.

    Example:
        >>> [layer.tolist() for layer in layered([np.array([[True, False]]), np.array([[True, True]])])]
        [[[1, 0]], [[1, 1]]]
    """
    found: list[ExtraArray] = []
    for mask_HW in masks:
        free = next((layer_HW for layer_HW in found if not layer_HW[mask_HW].any()), None)
        if free is None:
            free = np.zeros(mask_HW.shape, np.uint16)
            found.append(free)
        free[mask_HW] = free.max() + 1
    return found


def largest_apart(box_N4: NDArray[np.float64], score_N: NDArray[np.float64], most: float) -> list[int]:
    """Return the numbers of boxes by falling score, without those whose IoU with one before them exceeds `most`.

    Args:
        box_N4: left, top, right and bottom of each box.
        score_N: score of each box.
        most: largest IoU of two boxes that stay.

    Example:
        >>> boxes = np.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [6.0, 0.0, 9.0, 4.0]])
        >>> largest_apart(boxes, np.array([0.8, 0.9, 0.7]), 0.7)
        [1, 2]
    """
    area_N = (box_N4[:, 2] - box_N4[:, 0]) * (box_N4[:, 3] - box_N4[:, 1])
    kept: list[int] = []
    for number in np.argsort(-score_N, kind="stable").tolist():
        others = box_N4[kept]
        low, high = np.maximum(others[:, :2], box_N4[number, :2]), np.minimum(others[:, 2:], box_N4[number, 2:])
        both = (high - low).clip(min=0).prod(axis=1)
        if (both <= most * (area_N[kept] + area_N[number] - both).clip(min=1e-12)).all():
            kept.append(number)
    return kept
