"""Find scores of a run that say that something went wrong, although no stage failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit

_NO_BETTER = 0.01  # mIoU above the one of calling every pixel background
_NEVER = 0.01  # IoU below which a class counts as never found
_SHRUNK = 0.6  # share of the foreground that relabelling has to keep

Records = Mapping[str, Mapping[str, Any]]
"""Records of finished stages, by stage id."""


def doubts(stages: Sequence[Stage], records: Records) -> list[str]:
    """Return a line for each score that is no better than a trivial one, and for each relabelling that loses foreground.

    Args:
        stages: the plan of the run.
        records: records of its finished stages.

    Returns:
        One line for each doubt, with what to do; none if nothing is suspicious.

    Example:
        >>> doubts(plan.stages, {stage.id: record})
        ['miou: 5 of 6 classes are never found: cat, cow, dog, horse, sheep. Look at ...']
    """
    lines = []
    for stage in stages:
        matrix = _confusion(records.get(stage.id))
        if stage.kind != "evaluate" or matrix is None:
            continue
        labels = _labels(stage)
        lines += [f"{stage.name}: {text}" for text in (_trivial(matrix, labels), _shrunk(stage, stages, records)) if text]
    return lines


def _trivial(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str | None:
    """Say that the predictions are no better than background everywhere, or that they lack classes."""
    count = len(matrix)
    rows = [sum(row) for row in matrix]
    total = sum(rows)
    present = [label for label in range(count) if rows[label]]
    if not total or present in ([], [0]):
        return None
    ious = {label: _iou(matrix, label) for label in present}
    background = rows[0] / total / len(present)
    miou = sum(ious.values()) / len(present)
    if miou <= background + _NO_BETTER:
        return (
            f"mIoU {miou:.3f} is no better than calling every pixel background ({background:.3f}). "
            "Look at the maps and seeds in the report; train longer, give more images, or change the threshold of the seeds."
        )
    never = [labels[label] for label in present if label and ious[label] < _NEVER]
    if not never:
        return None
    classes = len([label for label in present if label])
    verb = "is" if len(never) == 1 else "are"
    return (
        f"{len(never)} of {classes} classes {verb} never found: {', '.join(never)}. "
        "Look at their maps in the report; give more images of them, or train the classifier longer."
    )


def _shrunk(stage: Stage, stages: Sequence[Stage], records: Records) -> str | None:
    """Say that pseudo-labels of a segmenter have much less foreground than the labels that it learned from."""
    labels = stage.optional("seeds")
    training = labels.optional("model") if labels is not None else None
    before = {source.id for source in training.all("seeds")} if training is not None else set()
    scored = [one for one in stages if one.kind == "evaluate" and (seeds := one.optional("seeds")) and seeds.id in before]
    shares = [_foreground(_confusion(records.get(one.id))) for one in (stage, *scored)]
    if len(shares) < 2 or shares[0] is None or shares[1] is None or shares[0] >= _SHRUNK * shares[1]:
        return None
    return (
        f"relabelling shrinks the foreground from {shares[1]:.0%} to {shares[0]:.0%} of the pixels. "
        "Look at both labels in the report; train the segmenter longer, or leave relabelling out by method.relabel: null."
    )


def _iou(matrix: Sequence[Sequence[int]], label: int) -> float:
    both, true, predicted = matrix[label][label], sum(matrix[label]), sum(row[label] for row in matrix)
    return both / max(1, true + predicted - both)


def _foreground(matrix: Sequence[Sequence[int]] | None) -> float | None:
    """Return the share of the pixels that are labelled as an object; column L of the matrix is undecided."""
    if matrix is None or not (total := sum(sum(row) for row in matrix)):
        return None
    return sum(sum(row[1 : len(matrix)]) for row in matrix) / total


def _confusion(record: Mapping[str, Any] | None) -> list[list[int]] | None:
    metrics = record.get("metrics") if record else None
    found = metrics.get("confusion") if isinstance(metrics, Mapping) else None
    return found if isinstance(found, list) and found else None


def _labels(stage: Stage) -> tuple[str, ...]:
    split = stage.input("data").component
    assert isinstance(split, DataSplit)
    return ("background", *split.classes)
