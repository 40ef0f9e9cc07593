"""Look at a run from Python: its status, scores, seeds, maps, predictions and model. Needs no Ray, and torch only for models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsss_ray.config.planning import open_store
from wsss_ray.inference.attempts import fields_of, known_attempt, known_attempts
from wsss_ray.reporting.history import Attempt, report_path
from wsss_ray.reporting.status import RunStatus, StageStatus, status_of
from wsss_ray.storage.finished import Finished, StageId
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray, Maps
    from wsss_ray.inference.label_maps import LabelMaps
    from wsss_ray.inference.labelled import LabelledImages, Transform
    from wsss_ray.inference.predictor import Predictor


@dataclass(frozen=True)
class Score:
    """A score of seeds or of a model, in [0, 1]. None stands for a score that is not defined.

    Attributes:
        stage: The name of the stage.
        images: The number of scored images.
        miou: The mean of `iou` over the classes where it is defined.
        precision: The mean precision.
        recall: The mean recall.
        coverage: The share of decided pixels; less than 1 for seeds.
        accuracy: The share of correct pixels.
        iou: The intersection over union of each class, background first.

    Example:
        >>> wsss_ray.open_run("photos").scores["miou"].iou["cat"]
        0.58
    """

    stage: str
    images: int
    miou: float | None
    precision: float | None
    recall: float | None
    coverage: float | None
    accuracy: float | None
    iou: dict[str, float | None]

    @classmethod
    def of_metrics(cls, stage: str, metrics: Mapping[str, Any], classes: tuple[str, ...]) -> Score:
        """Make the score of an evaluate stage from the metrics of its record and the names of its classes."""
        names = ("miou", "precision", "recall", "coverage", "accuracy")
        found = {name: metrics.get(name) for name in names}
        iou = dict(zip(("background", *classes), metrics["iou"], strict=True))
        return cls(stage=stage, images=metrics["scored"], iou=iou, **found)


class Run:
    """A run of a store. It may be running at this moment, in this process or in another.

    Without a number of an attempt, stages, scores, seeds and maps are those of the attempt that was submitted last, and `model`
    takes the last attempt that has a whole model.

    Args:
        name: The name of the run.
        store: Folder or URI of the store.
        attempt: The number of an attempt at the run.

    Raises:
        JobError: if there is no such store. The message is one line.
        ValueError: if the store has no such run or attempt.

    Example:
        >>> run = wsss_ray.open_run("photos")
        >>> run.scores["miou"].miou
        0.62
    """

    def __init__(self, name: str, store: str | os.PathLike[str] = "runs", *, attempt: int | None = None) -> None:
        self.name, self.number = name, attempt
        self.store: RunStore = open_store(os.fspath(store), must_exist=True)
        known_attempt(self.store, name, attempt)

    def __repr__(self) -> str:
        number = "" if self.number is None else f", attempt={self.number}"
        return f"Run({self.name!r}, {self.store.uri!r}{number})"

    @property
    def title(self) -> str:
        """Return the name of the run, with the number of the attempt if one was asked for."""
        return self.name if self.number is None else f"{self.name}@{self.number}"

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Return the attempts at the run, the last submitted one first. A changed job or another `until` begins an attempt."""
        return tuple(known_attempts(self.store, self.name))

    @property
    def attempt(self) -> Attempt:
        """Return the attempt that this object shows."""
        return known_attempt(self.store, self.name, self.number)

    @property
    def job(self) -> dict[str, Any]:
        """Return the job of the attempt as a dictionary, with every default, and `${NAME}` where it names a variable."""
        return fields_of(self.attempt)

    def status(self) -> RunStatus:
        """Read the progress of the run from its store: states, rates, time left, failures.

        Example:
            >>> status = run.status()
            >>> status.state, status.done, len(status.stages)
            ('running', 2, 5)
        """
        return status_of(self.store, self.attempt.about)

    @property
    def stages(self) -> dict[str, StageStatus]:
        """Return the status of each stage by name, in the order in which they run."""
        return {stage.name: stage for stage in self.status().stages}

    @property
    def scores(self) -> dict[str, Score]:
        """Return the score of each finished evaluate stage by name.

        Example:
            >>> run.scores["seed_quality"].miou, run.scores["miou"].iou["dog"]
            (0.55, 0.61)
        """
        return scores_of(self.store, self.attempt)

    def seeds(self, stage: str | None = None) -> Iterator[tuple[str, LabelArray]]:
        """Yield the id and the pseudo-labels (H, W) of each training image: 0 background, 1 the first class, 255 undecided.

        Args:
            stage: The name of a seed stage. Default: the last one that is done, whose labels the segmenter learns from.

        Raises:
            ValueError: if there is no such stage, it is not done, or a file is damaged.

        Example:
            >>> for image_id, label_HW in run.seeds():
            ...     print(image_id, (label_HW == 255).mean())
        """
        return self._labels(stage, "seed")

    def predictions(self, stage: str | None = None) -> Iterator[tuple[str, LabelArray]]:
        """Yield the id and the predicted labels (H, W) of each image that the run's model was scored on.

        Args:
            stage: The name of an evaluate stage of a model. Default: the last one that is done.

        Raises:
            ValueError: if there is no such stage, it is not done, or a file is damaged.

        Example:
            >>> image_id, label_HW = next(run.predictions())
        """
        return self._labels(stage, "evaluate")

    def maps(self, stage: str | None = None) -> Iterator[tuple[str, Maps]]:
        """Yield the id and the localization maps of each training image, at the resolution of the network.

        Args:
            stage: The name of a localize stage. Default: the last one that is done.

        Raises:
            ValueError: if there is no such stage, it is not done, or a file is damaged.

        Example:
            >>> image_id, maps = next(run.maps())
            >>> maps.classes, maps.peak_CHW.shape  # of each class that the image is tagged with
            ((3,), (1, 41, 41))
        """
        from wsss_ray.inference.read_maps import read_maps

        return read_maps(self.store, self.attempt, stage)

    def dataset(self, stage: str | None = None, transform: Transform | None = None) -> LabelledImages:
        """Return the training images with their pseudo-labels as a torch `Dataset`, to train a segmenter of one's own.

        Args:
            stage: The name of a seed stage. Default: the last one that is done.
            transform: Changes an image and its labels: `transform(image_CHW, label_HW)`.

        Returns:
            A data set of (image_CHW, label_HW): uint8 RGB, and int64 labels where 255 is undecided.

        Raises:
            ValueError: if there is no such stage, or it is not done.

        Example:
            >>> loader = torch.utils.data.DataLoader(run.dataset(), batch_size=1, shuffle=True)
        """
        from wsss_ray.inference.labelled import LabelledImages

        return LabelledImages(self.store, self._label_maps(stage, "seed"), transform)

    def model(self, name: str | None = None, *, device: str | None = None, crf: bool | None = None) -> Predictor:
        """Load the trained segmenter, as `wsss_ray.load` does.

        Args:
            name: The name of the stage that trained it. Default: the last one.
            device: The device, such as "cuda:1". Default: a GPU if there is one.
            crf: True refines labels with a dense CRF, False does not. Default: as the job's metric does.

        Raises:
            ValueError: if there is no trained segmenter yet, or it does not fit.

        Example:
            >>> label_HW = run.model().predict("album/dog.jpg")
        """
        from wsss_ray.inference.predictor import Predictor
        from wsss_ray.inference.trained import find_trained

        found = find_trained(self.name, self.store.uri, name, attempt=self.number)
        return Predictor(found.with_crf(crf), device=device)

    @property
    def report(self) -> str | None:
        """Return the path of the HTML report; None if it is not written yet."""
        path = report_path(self.store, self.attempt)
        return path if self.store.exists(path) else None

    def _repr_html_(self) -> str:
        """Show the run in a notebook: its report, above it the stages while any is missing."""
        from wsss_ray.reporting.notebook import report_html, status_html

        status, report = self.status(), self.report
        shown = "" if status.state == "done" else status_html(status)
        return shown + (report_html(self.store.read(report), report) if report is not None else "") or status_html(status)

    def _label_maps(self, stage: str | None, kind: str) -> LabelMaps:
        from wsss_ray.inference.label_maps import find_labels

        return find_labels(self.store, self.attempt.about, stage, kinds=(kind,))

    def _labels(self, stage: str | None, kind: str) -> Iterator[tuple[str, LabelArray]]:
        from wsss_ray.inference.label_maps import read_labels

        found = read_labels(self.store, self._label_maps(stage, kind))
        return ((one.image_id, one.label_HW) for one in found if one.label_HW is not None)


def scores_of(store: RunStore, attempt: Attempt) -> dict[str, Score]:
    """Read the score of each finished evaluate stage of an attempt, by name.

    Raises:
        ValueError: if the store has no record of the data that was scored.

    Example:
        >>> scores_of(store, attempts(store, "photos")[0])["miou"].miou
        0.62
    """
    found = {}
    finished = Finished(store)
    for one in attempt.stages:
        record = finished.record(StageId(one["id"])) if one["kind"] == "evaluate" else None
        if record is not None:
            data = store.record_by_id(dict(record["inputs"])["data"])
            if data is None:
                raise ValueError(f"{attempt.title}: the store has no record of the data of {one['name']}; submit the job again")
            found[one["name"]] = Score.of_metrics(one["name"], record["metrics"], tuple(data["identity"]["component"]["classes"]))
    return found
