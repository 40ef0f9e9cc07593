"""Score a segmentation with one confusion matrix over the data set.

Rows are true labels and columns predicted labels. The last column counts undecided pixels: those with `IGNORE` in the prediction,
as in seeds. Pixels with the true label `IGNORE` are not scored. The matrix of a data set is the sum of its images' matrices.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from wsss_ray.core.values import LabelArray

    Matrix = NDArray[np.int64]  # (L, L + 1)


def confusion(true_HW: LabelArray, pred_HW: LabelArray, num_labels: int) -> Matrix:
    """Count the pixels of each pair of a true and a predicted label.

    Args:
        true_HW: labels of the mask, with `IGNORE`.
        pred_HW: predicted labels, with `IGNORE` where undecided.
        num_labels: number of labels L, background included.

    Returns:
        Matrix (L, L + 1) of counts.

    Raises:
        ValueError: if the sizes differ, or a label is neither below `num_labels` nor `IGNORE`.

    Example:
        >>> true_HW, pred_HW = np.array([[0, 1, 1]], np.uint8), np.array([[0, 1, 255]], np.uint8)
        >>> confusion(true_HW, pred_HW, 2)
        array([[1, 0, 0],
               [0, 1, 1]])
    """
    if true_HW.shape != pred_HW.shape:
        raise ValueError(f"prediction: size {pred_HW.shape} differs from the mask's {true_HW.shape}. Resize it before scoring.")
    scored_HW = true_HW != IGNORE
    true, pred = (label_HW[scored_HW].astype(np.int64) for label_HW in (true_HW, pred_HW))
    for what, values in (("mask", true), ("prediction", pred)):
        strange = values[(values >= num_labels) & (values != IGNORE)]
        if strange.size:
            allowed = f"0..{num_labels - 1} and {IGNORE}"
            raise ValueError(f"{what}: label {int(strange[0])} is not allowed. Use {allowed}.")
    pred[pred == IGNORE] = num_labels
    cells = np.bincount(true * (num_labels + 1) + pred, minlength=num_labels * (num_labels + 1))
    return cells.astype(np.int64).reshape(num_labels, num_labels + 1)


def sparse(matrix: Matrix) -> tuple[list[int], list[int]]:
    """List the cells of a matrix that are not 0, as the columns of `SCORES` store them.

    Args:
        matrix: confusion matrix (L, L + 1).

    Returns:
        The cells, true * (L + 1) + predicted, in ascending order, and their counts.

    Example:
        >>> sparse(np.array([[1, 0, 0], [0, 5, 2]]))
        ([0, 4, 5], [1, 5, 2])
    """
    flat = matrix.ravel()
    cells = np.flatnonzero(flat)
    return cells.tolist(), flat[cells].tolist()


def dense(cells: Sequence[int], counts: Sequence[int], num_labels: int) -> Matrix:
    """Build a matrix from the cells and counts of `sparse`.

    The counts of a repeated cell add up, so lists of many images can be joined.

    Args:
        cells: cells, true * (L + 1) + predicted.
        counts: count of each cell.
        num_labels: number of labels L, background included.

    Returns:
        Matrix (L, L + 1) of counts.

    Raises:
        ValueError: if a cell is outside the matrix.

    Example:
        >>> dense([0, 4, 4], [1, 5, 2], num_labels=2)
        array([[1, 0, 0],
               [0, 7, 0]])
    """
    flat = np.zeros(num_labels * (num_labels + 1), np.int64)
    index = np.asarray(cells, np.int64)
    if index.size and not (index.min() >= 0 and index.max() < flat.size):
        raise ValueError(f"cells: cell {int(index.max())} does not fit a matrix of {num_labels} labels. Check num_labels.")
    np.add.at(flat, index, np.asarray(counts, np.int64))
    return flat.reshape(num_labels, num_labels + 1)


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1], per label or over all labels. A score is NaN where its denominator is 0.

    An undecided pixel counts as a miss of its true label.

    Attributes:
        iou: TP / (TP + FP + FN) of each label; NaN for a label that is in neither the masks nor the predictions.
        miou: mean of `iou` over the labels where it is not NaN. Labels with IoU 0 count.
        precision: share of correct pixels among those predicted as the label.
        recall: share of correct pixels among those that have the label.
        coverage: share of decided pixels among the scored ones.
        accuracy: share of correct pixels among the scored ones.

    Example:
        >>> scores(np.array([[1, 0, 0], [0, 1, 1]])).to_dict()["iou"]
        [1.0, 0.5]
    """

    iou: tuple[float, ...]
    miou: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    coverage: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None instead of NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def scores(matrix: Matrix) -> Scores:
    """Compute the scores of a confusion matrix.

    Args:
        matrix: matrix (L, L + 1) of counts.

    Returns:
        The scores.

    Example:
        >>> scores(np.array([[1, 0, 0], [0, 1, 1]])).miou
        0.75
    """
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
    """Divide, with NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _plain(value: Any) -> Any:
    """Turn tuples into lists and NaN into None."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if math.isnan(value) else value


def mean_defined(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined; None if none is.

    Example:
        >>> mean_defined([0.5, None, 1.0])
        0.75
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
