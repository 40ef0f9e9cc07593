"""Compare runs: their scores, their scores per class, and the fields in which their jobs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsss_ray.inference.run import Run, Score
from wsss_ray.reporting.history import differences


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. All tuples have one value for each run, in their order.

    Attributes:
        runs: The names of the runs; with the number of the attempt if one was asked for.
        scores: The scores by the name of the stage; None for a run that has no such score.
        fields: The fields in which the jobs differ, by dotted path. The names of the runs are left out.

    Example:
        >>> found = wsss_ray.compare("photos", "photos-theta")
        >>> [score and score.miou for score in found.scores["miou"]], found.fields
        ([0.61, 0.64], {'method.seed_rule.theta': (0.7, 0.5)})
    """

    runs: tuple[str, ...]
    scores: dict[str, tuple[Score | None, ...]]
    fields: dict[str, tuple[Any, ...]]

    def per_class(self, stage: str) -> dict[str, tuple[float | None, ...]]:
        """Return the IoU of each class in the score of a stage; None where a run has none.

        Example:
            >>> found.per_class("miou")["cat"]
            (0.55, 0.6)
        """
        several = self.scores[stage]
        classes = dict.fromkeys(name for score in several if score is not None for name in score.iou)
        return {name: tuple(None if score is None else score.iou.get(name) for score in several) for name in classes}


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs, or attempts at a run.

    Args:
        runs: The runs. They may come from different stores.

    Raises:
        ValueError: if there are fewer than two runs, or a store has no record of the data that was scored.

    Example:
        >>> compare([Run("photos", attempt=1), Run("photos", attempt=2)]).fields
        {'method.seed_rule.theta': (0.7, 0.5)}
    """
    if len(runs) < 2:
        raise ValueError("compare: give at least two runs")
    every = [run.scores for run in runs]
    stages = dict.fromkeys(name for one in every for name in one)
    fields = differences([run.job for run in runs])
    fields.pop("name", None)
    return Comparison(
        runs=tuple(run.title for run in runs),
        scores={name: tuple(one.get(name) for one in every) for name in stages},
        fields=fields,
    )


def run_named(text: str, store: str = "runs") -> Run:
    """Open the run that a command line names: `NAME`, or `NAME@2` for its attempt 2.

    Raises:
        ValueError: if there is no such run or attempt. The message is one line.

    Example:
        >>> run_named("photos@2").attempt.number
        2
    """
    name, at, number = text.partition("@")
    if at and not number.isdigit():
        raise ValueError(f"{text}: write an attempt as {name}@2; `wsss-ray show {name}` lists them")
    return Run(name, store, attempt=int(number) if at else None)
