"""Functions for people who use what a run made, from Python. `wsss_ray` re-exports them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsss_ray.config.planning import open_store
from wsss_ray.inference import cleanup
from wsss_ray.inference.cleanup import Unused
from wsss_ray.inference.compare import Comparison, run_named
from wsss_ray.inference.compare import compare as compare_runs
from wsss_ray.inference.run import Run
from wsss_ray.inference.trained import Trained, find_trained

if TYPE_CHECKING:
    from wsss_ray.inference.predictor import Predictor
    from wsss_ray.inference.scoring import Evaluation

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""An image, a folder or a pattern, or several of them."""


def open_run(name: str, store: str | os.PathLike[str] = "runs", *, attempt: int | None = None) -> Run:
    """Open a run of a store. It may be running at this moment, in another process.

    Args:
        name: The name of the run.
        store: Folder or URI of the run store.
        attempt: The number of an attempt at the run, as `wsss-ray show` lists them. Default: the one that was submitted last.

    Raises:
        ValueError: if there is no such store, run or attempt. The message is one line.

    Example:
        >>> run = wsss_ray.open_run("photos")
        >>> run.status().state, list(run.scores)
        ('running', ['seed_quality'])
    """
    return Run(name, store, attempt=attempt)


def load(
    run: str | Run,
    store: str | os.PathLike[str] = "runs",
    device: str | None = None,
    *,
    model: str | None = None,
    crf: bool | None = None,
) -> Predictor:
    """Load a trained segmenter as a torch module with `classes`, `predict(image)` and `forward(image_BCHW)`.

    Of several attempts at a run, the last one that has a whole model is taken.

    Args:
        run: A run, its name, the id of a train stage, or the path of an exported folder. The path must contain a slash.
        store: Folder or URI of the run store. The training data need not be present.
        device: Device of the model, such as "cuda:1". Default: a GPU if there is one.
        model: Name of the stage that trained the segmenter. Default: the last one of the run.
        crf: True refines labels with a dense CRF, False does not. Default: as the job's metric does.

    Raises:
        ValueError: if the run, the model or a file is missing or does not fit. The message is one line.

    Example:
        >>> model = wsss_ray.load("photos")
        >>> label_HW = model.predict("album/holiday.jpg")
    """
    from wsss_ray.inference.predictor import Predictor

    return Predictor(_trained(run, store, model).with_crf(crf), device=device)


def evaluate(
    run: str | Run,
    images: Paths,
    masks: str | os.PathLike[str],
    store: str | os.PathLike[str] = "runs",
    device: str | None = None,
    *,
    model: str | None = None,
    crf: bool | None = None,
) -> Evaluation:
    """Score a trained segmenter on images with masks that the run has never seen.

    Args:
        run: A run, its name, the id of a train stage, or the path of an exported folder.
        images: An image, a folder or a pattern, or a list of them.
        masks: The folder of the masks: PNGs with the names of the images, 0 background, 1 the first class, 255 not scored.
        store: Folder or URI of the run store.
        device: Device of the model, such as "cuda:1". Default: a GPU if there is one.
        model: Name of the stage that trained the segmenter. Default: the last one of the run.
        crf: True refines labels with a dense CRF, False does not. Default: as the job's metric does.

    Returns:
        The score with the IoU of each class, the confusion matrix, and the images that could not be scored.

    Raises:
        ValueError: if the model or a mask is missing, or no image could be scored. The message is one line.

    Example:
        >>> found = wsss_ray.evaluate("photos", "test/images", "test/masks")
        >>> found.miou, found.score.iou["cat"]
        (0.58, 0.49)
    """
    from wsss_ray.inference.scoring import score_images

    several = [images] if isinstance(images, str | os.PathLike) else images
    trained = _trained(run, store, model).with_crf(crf)
    return score_images(trained, [os.fspath(image) for image in several], Path(masks), device=device)


def compare(*runs: str | Run, store: str | os.PathLike[str] = "runs") -> Comparison:
    """Compare the scores of runs, those of each class, and the fields in which their jobs differ.

    Args:
        runs: At least two runs or their names; "photos@2" is attempt 2 at a run.
        store: Folder or URI of the store of those that are named.

    Raises:
        ValueError: if there is no such run, or there is only one. The message is one line.

    Example:
        >>> found = wsss_ray.compare("photos@1", "photos@2")
        >>> found.fields, [score and score.miou for score in found.scores["miou"]]
        ({'method.seed_rule.theta': (0.7, 0.5)}, [0.61, 0.64])
    """
    return compare_runs([run_named(run, os.fspath(store)) if isinstance(run, str) else run for run in runs])


def remove(run: str | Run, store: str | os.PathLike[str] = "runs", *, attempt: int | None = None) -> None:
    """Remove a run, or a sweep with its trials, without asking. Its stages stay, because others may share them; see `free`.

    Args:
        run: A run, or the name of a run or sweep.
        store: Folder or URI of the run store.
        attempt: Remove only this attempt at the run.

    Raises:
        ValueError: if there is no such run or attempt, a process is running it, or it is a link. The message is one line.

    Example:
        >>> wsss_ray.remove("photos")
        >>> wsss_ray.free(wsss_ray.unused())
    """
    name = run if isinstance(run, str) else run.name
    there = open_store(os.fspath(store), must_exist=True) if isinstance(run, str) else run.store
    found = cleanup.removal(there, name)
    if attempt is not None:
        cleanup.remove_attempt(there, name, attempt)
    else:
        cleanup.remove(there, found)


def unused(store: str | os.PathLike[str] = "runs") -> Unused:
    """Find the stages that no run refers to, and that nobody is making at this moment.

    Args:
        store: Folder or URI of the run store.

    Returns:
        `stages` with their bytes, `num_bytes` of all, and `strangers` that are no stages.

    Example:
        >>> wsss_ray.unused().num_bytes
        1048576
    """
    return cleanup.unused(open_store(os.fspath(store), must_exist=True))


def free(found: Unused, store: str | os.PathLike[str] = "runs") -> Unused:
    """Delete stages that `unused` has found, without asking. Those that a run refers to by now are kept.

    Args:
        found: What `unused` has found.
        store: Folder or URI of the run store.

    Returns:
        What was deleted.

    Example:
        >>> wsss_ray.free(wsss_ray.unused()).num_bytes
        1048576
    """
    return cleanup.free(open_store(os.fspath(store), must_exist=True), found)


def _trained(run: str | Run, store: str | os.PathLike[str], model: str | None) -> Trained:
    if isinstance(run, str):
        return find_trained(run, os.fspath(store), model)
    return find_trained(run.name, run.store.uri, model, attempt=run.number)
