"""Compare runs: their scores, their scores per class, and the fields in which their jobs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wsss_ray.inference.label_maps import LabelMaps, Part, find_labels
from wsss_ray.inference.run import Run, Score
from wsss_ray.reporting.history import differences

if TYPE_CHECKING:
    from wsss_ray.reporting.report.comparison import ComparedSplit

_PARTS: dict[Part, str] = {"val": "Validation images", "train": "Training images"}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. All tuples have one value for each run, in their order.

    Attributes:
        runs: The names of the runs; with the number of the attempt if one was asked for.
        scores: The scores by the name of the stage; None for a run that has no such score.
        fields: The fields in which the jobs differ, by dotted path. The names of the runs are left out.
        opened: The runs themselves.

    Example:
        >>> found = wsss_ray.compare("photos", "photos-theta")
        >>> [score and score.miou for score in found.scores["miou"]], found.fields
        ([0.61, 0.64], {'method.seed_rule.theta': (0.7, 0.5)})
    """

    runs: tuple[str, ...]
    scores: dict[str, tuple[Score | None, ...]]
    fields: dict[str, tuple[Any, ...]]
    opened: tuple[Run, ...] = field(default=(), repr=False, compare=False)

    def per_class(self, stage: str) -> dict[str, tuple[float | None, ...]]:
        """Return the IoU of each class in the score of a stage; None where a run has none.

        Example:
            >>> found.per_class("miou")["cat"]
            (0.55, 0.6)
        """
        several = self.scores[stage]
        classes = dict.fromkeys(name for score in several if score is not None for name in score.iou)
        return {name: tuple(None if score is None else score.iou.get(name) for score in several) for name in classes}

    def report(self, images: int = 20) -> bytes:
        """Build a page that shows the runs side by side: scores, differences, and the same images with the label maps of each.

        A run's last predictions of the validation images are shown, and its last pseudo-labels of the training images.

        Args:
            images: The number of images to show of each split, at most.

        Returns:
            The page as UTF-8 HTML. It is one file that loads nothing.

        Raises:
            DamagedFile: if a file of a store is damaged.

        Example:
            >>> Path("compare.html").write_bytes(wsss_ray.compare("photos@1", "photos@2").report())
        """
        from wsss_ray.reporting.report.comparison import ComparedRuns, build_comparison

        found = ComparedRuns(
            runs=self.runs,
            scores={name: [None if one is None else asdict(one) for one in several] for name, several in self.scores.items()},
            classes={name: self.per_class(name) for name in self.scores},
            fields=self.fields,
            splits=[split for part in _PARTS if (split := self._split(part)) is not None],
        )
        return build_comparison(found, gallery=images)

    def _split(self, part: Part) -> ComparedSplit | None:
        """Find the last label maps of each run in a part of the data; None if no run has any."""
        from wsss_ray.reporting.report.comparison import ComparedSplit, MadeBy

        found = [_last_labels(run, part) for run in self.opened]
        known = [(run, maps) for run, maps in zip(self.opened, found, strict=True) if maps is not None]
        if not known:
            return None
        run, maps = known[0]
        record = run.store.record(maps.data) or {}
        made = [
            None
            if one is None
            else MadeBy(one.id, "seed" if one.schema == "seeds" else "evaluate", one.stage, run.store, one.data)
            for run, one in zip(self.opened, found, strict=True)
        ]
        tagged = record.get("metrics", {}).get("tagged") or [1] * len(maps.classes)
        return ComparedSplit(_PARTS[part], maps.classes, tagged, made)


def _last_labels(run: Run, part: Part) -> LabelMaps | None:
    try:
        return find_labels(run.store, run.attempt.about, part=part)
    except ValueError:  # it has none yet
        return None


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
        opened=tuple(runs),
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
