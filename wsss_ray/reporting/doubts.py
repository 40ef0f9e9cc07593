"""Find scores and counts of a run that say that something went wrong, although no stage failed. Records are all that is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsss_ray.core.counted import counted
from wsss_ray.reporting.words import percent

Record = Mapping[str, Any]
Named = tuple[str, Record]
"""The name of a stage in a run, and its record."""


class Doubt(NamedTuple):
    """A doubt about a stage.

    Attributes:
        stage: name of the stage.
        text: what is wrong, and what to do.
    """

    stage: str
    text: str


FEW = math.ceil(math.log(1 / 20) / math.log(6 / 7))
"""A class with fewer training images is too small: 20.

If every seventh image of a class shows a view of it (from behind, lying, in part), a training set of n images lacks this view
with the probability (6/7) ** n. With 20 images, this is less than 1 in 20.
"""

_LUCK = 2.0  # standard deviations above chance that count as luck: a classifier that knows nothing exceeds them in 1 of 40 runs
_NO_BETTER = 0.01  # mIoU above the one of calling every pixel background
_NEVER = 0.01  # IoU below which a class counts as never found
_SHRUNK = 0.6  # share of the foreground that relabelling has to keep
_LISTED = 10  # classes in a line


def doubts(stages: Sequence[Named]) -> list[str]:
    """Return a line for each doubt that `find_doubts` finds.

    Args:
        stages: names and records of the finished stages of a run, in the order of its plan.

    Example:
        >>> doubts([(stage.name, record) for stage in plan if (record := store.record(stage)) is not None])
        ['miou: 5 of 6 classes are never found: cat, cow, dog, horse, sheep. Look at ...']
    """
    return [f"{name}: {text}" for name, text in find_doubts(stages)]


def find_doubts(stages: Sequence[Named]) -> list[Doubt]:
    """Find scores that are no better than trivial ones, and whatever else the records show to be wrong.

    These are scores like those of background everywhere or of tags given by chance, classes that are never found or have few
    training images, and relabelling that loses foreground.

    Args:
        stages: names and records of the finished stages of a run, in the order of its plan.

    Returns:
        The doubts, each with what to do; none if nothing is suspicious.

    Example:
        >>> find_doubts([(stage.name, record) for stage in plan if (record := store.record(stage)) is not None])[0].stage
        'miou'
    """
    records = {record["id"]: record for _, record in stages}
    trained = {source for _, record in stages if record["kind"] == "train" for source in _inputs(record, "data")}
    return [Doubt(name, text) for name, record in stages for text in _of(record, records, trained) if text]


def _of(record: Record, records: Mapping[str, Record], trained: set[str]) -> Iterator[str | None]:
    """Yield the doubts about one stage. `trained` has the ids of the ingest stages that trainings read."""
    if record["kind"] == "ingest" and record["id"] in trained:
        yield _few(record)
    if record["kind"] == "classify":
        yield _lucky(record)
    if record["kind"] == "evaluate" and (matrix := _confusion(record)) is not None:
        yield _trivial(matrix, _labels(record, records))
        yield _shrunk(record, records)


def _few(ingest: Record) -> str | None:
    """Say that classes have too few training images."""
    tagged = ingest["metrics"].get("tagged") or ()  # stores of earlier versions do not have it
    few = [f"{name} {count}" for name, count in zip(_classes(ingest), tagged, strict=False) if count < FEW]
    if not few:
        return None
    listed = ", ".join([*few[:_LISTED], *([f"and {len(few) - _LISTED} more"] if len(few) > _LISTED else [])])
    return (
        f"{len(few)} of {counted(len(tagged), 'class')} {'has' if len(few) == 1 else 'have'} fewer than {FEW} images: {listed}. "
        "A view that every seventh image of a class shows may be in none of them. Give more images."
    )


def _lucky(record: Record) -> str | None:
    """Say that the tags of a classifier are no better than chance."""
    metrics = record["metrics"]
    if metrics["map"] is None:
        return None
    luck = metrics["chance"] + _LUCK * metrics["chance_deviation"]
    if metrics["map"] > luck or luck >= 1:  # with very few images, not even perfect tags could be told from luck
        return None
    return (
        f"mAP {metrics['map']:.3f} of the tags is no better than chance ({metrics['chance']:.3f}, and by luck up to {luck:.3f} "
        f"with {counted(metrics['scored'], 'image')}). Maps and seeds mean nothing then. Look at the loss of the classifier; "
        "train it longer or with another learning rate, or give more images."
    )


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
        f"{len(never)} of {counted(classes, 'class')} {verb} never found: {', '.join(never)}. "
        "Look at their maps in the report; give more images of them, or train the classifier longer."
    )


def _shrunk(record: Record, records: Mapping[str, Record]) -> str | None:
    """Say that pseudo-labels of a segmenter have much less foreground than the labels that it learned from."""

    def above(ids: Sequence[str], role: str) -> list[str]:
        return [source for one in ids if one in records for source in _inputs(records[one], role)]

    before = above(above(_inputs(record, "seeds"), "model"), "seeds")
    scored = [one for one in records.values() if one["kind"] == "evaluate" and set(_inputs(one, "seeds")) & set(before)]
    shares = [_foreground(_confusion(one)) for one in (record, *scored)]
    if len(shares) < 2 or shares[0] is None or shares[1] is None or shares[0] >= _SHRUNK * shares[1]:
        return None
    return (
        f"relabelling shrinks the foreground from {percent(shares[1])} to {percent(shares[0])} of the pixels. "
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


def _confusion(record: Record) -> list[list[int]] | None:
    found: list[list[int]] | None = record["metrics"].get("confusion")
    return found or None


def _inputs(record: Record, role: str) -> list[str]:
    """Return the ids of the stages that a stage reads in a role."""
    return [source for name, source in record["inputs"] if name == role]


def _classes(ingest: Record) -> list[str]:
    found: list[str] = ingest["identity"]["component"].get("classes", [])
    return found


def _labels(record: Record, records: Mapping[str, Record]) -> list[str]:
    """Name the labels of an evaluate stage, background first; by numbers if the record of its data is missing."""
    found = [name for source in _inputs(record, "data") if source in records for name in _classes(records[source])]
    return ["background", *(found or [str(label) for label in range(1, len(record["metrics"]["confusion"]))])]
