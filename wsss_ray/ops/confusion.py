"""The score of a segmentation: one confusion matrix over the data set, and what is read off it.

Rows are true labels, columns predicted ones, and the last column counts pixels left undecided (`IGNORE` in the prediction, as
seeds have it). Pixels whose true label is `IGNORE` are not scored. Matrices of images add up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.contracts import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsss_ray.core.contracts import LabelArray

    Matrix = NDArray[np.int64]  # (L, L + 1)


def confusion(true_HW: LabelArray, pred_HW: LabelArray, num_labels: int) -> Matrix:
    """Pixels of each (true, predicted) pair, (L, L + 1).

    Raises:
        ValueError: if the sizes differ, or a label is neither below `num_labels` nor `IGNORE`.
    """
    if true_HW.shape != pred_HW.shape:
        raise ValueError(f"prediction of {pred_HW.shape} for a mask of {true_HW.shape}; resize it before scoring")
    scored_HW = true_HW != IGNORE
    true, pred = (label_HW[scored_HW].astype(np.int64) for label_HW in (true_HW, pred_HW))
    for what, values in (("mask", true), ("prediction", pred)):
        strange = values[(values >= num_labels) & (values != IGNORE)]
        if strange.size:
            raise ValueError(f"{what} holds the label {int(strange[0])}, allowed: 0..{num_labels - 1} and {IGNORE}")
    pred[pred == IGNORE] = num_labels
    cells = np.bincount(true * (num_labels + 1) + pred, minlength=num_labels * (num_labels + 1))
    return cells.astype(np.int64).reshape(num_labels, num_labels + 1)


def sparse(matrix: Matrix) -> tuple[list[int], list[int]]:
    """The cells (true * (L + 1) + predicted) that are not 0, in rising order, and their counts: the columns of `SCORES`."""
    flat = matrix.ravel()
    cells = np.flatnonzero(flat)
    return cells.tolist(), flat[cells].tolist()


def dense(cells: Sequence[int], counts: Sequence[int], num_labels: int) -> Matrix:
    """The inverse of `sparse`; a cell that is given twice is added up, so that the rows of many images may be joined.

    Raises:
        ValueError: on a cell outside the matrix.
    """
    flat = np.zeros(num_labels * (num_labels + 1), np.int64)
    index = np.asarray(cells, np.int64)
    if index.size and not (index.min() >= 0 and index.max() < flat.size):
        raise ValueError(f"cell {int(index.max())} does not fit a matrix of {num_labels} labels")
    np.add.at(flat, index, np.asarray(counts, np.int64))
    return flat.reshape(num_labels, num_labels + 1)


@dataclass(frozen=True)
class Scores:
    """Figures in [0, 1], per label or over all; NaN where a denominator is 0. An undecided pixel misses its true label.

    `iou` is TP / (TP + FP + FN), NaN for a label in neither truth nor prediction; `miou` is its mean over the other labels,
    those with IoU 0 included. `precision` is over the pixels predicted as a label, `recall` over those that truly are.
    `coverage` is the share of scored pixels that are decided, `accuracy` the share that are right.
    """

    iou: tuple[float, ...]
    miou: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    coverage: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None in place of NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def scores(matrix: Matrix) -> Scores:
    """The figures of a confusion matrix (L, L + 1)."""
    hit = np.diagonal(matrix).astype(np.float64)
    true = matrix.sum(axis=1, dtype=np.float64)
    pred = matrix[:, :-1].sum(axis=0, dtype=np.float64)
    total = float(true.sum())
    iou = _ratio(hit, true + pred - hit)
    known = iou[~np.isnan(iou)]
    return Scores(
        iou=tuple(iou.tolist()),
        miou=float(known.mean()) if known.size else math.nan,
        precision=tuple(_ratio(hit, pred).tolist()),
        recall=tuple(_ratio(hit, true).tolist()),
        coverage=float(pred.sum()) / total if total else math.nan,
        accuracy=float(hit.sum()) / total if total else math.nan,
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if math.isnan(value) else value
