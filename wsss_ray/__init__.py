"""Weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster.

The functions here do what the commands of `wsss-ray` do, by the same code:

    plan, submit, resume     lay out a job, and run what is missing
    submit_sweep             run the trials of a sweep
    open_run, open_sweep     look at what was made: status, scores, seeds, maps, predictions, data set, model, report
    load, evaluate           use a trained model, and score it on images with masks

Importing this package imports neither Ray nor torch; each function imports what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss_ray.config.document import JobError as JobError
    from wsss_ray.config.planning import PlannedJob
    from wsss_ray.core.graph import Until
    from wsss_ray.core.version import __version__ as __version__
    from wsss_ray.engine.records import StageError as StageError
    from wsss_ray.inference.predictor import Predictor
    from wsss_ray.inference.run import Run as Run
    from wsss_ray.inference.scoring import Evaluation
    from wsss_ray.inference.sweep import Sweep as Sweep

    Job = str | os.PathLike[str] | Mapping[str, Any]
    Overrides = Mapping[str, Any] | Sequence[str]
    Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
else:
    _LATER = {
        "__version__": "wsss_ray.core.version",
        "JobError": "wsss_ray.config.document",
        "StageError": "wsss_ray.engine.records",
        "Run": "wsss_ray.inference.run",
        "Sweep": "wsss_ray.inference.sweep",
    }

    def __getattr__(name: str) -> Any:
        """Return a class of the package, or `__version__`. Importing them above would take a tenth of a second."""
        if name in _LATER:
            from importlib import import_module

            return getattr(import_module(_LATER[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "JobError",
    "Run",
    "StageError",
    "Sweep",
    "__version__",
    "evaluate",
    "load",
    "open_run",
    "open_sweep",
    "plan",
    "resume",
    "submit",
    "submit_sweep",
]


def plan(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
) -> PlannedJob:
    """Lay out the stages of a job, done and missing. Start nothing.

    Args:
        job: The path of a job file, or its content as a dictionary.
        set: Fields to set, by dotted path, such as {"run.seed": 1}; or texts as `--set` takes them.
        until: Stop after the last stage of this kind: "localize", "seed" or "train".
        store: Folder or URI of the run store. Default: the job's `run.store`.

    Returns:
        The planned job: `stages` with their states, `data` in words, `job`, `plan`, `store`.

    Raises:
        JobError: if the job, its data or the store is not valid. The message has one line per mistake.

    Example:
        >>> planned = wsss_ray.plan("job.yaml", set={"method.seed_rule.theta": 0.4})
        >>> [stage.name for stage in planned.stages if stage.state == "missing"]
        ['seeds', 'segmenter', 'miou']
    """
    from wsss_ray.config.planning import plan_job

    return plan_job(job, set, store=store, until=until)


def submit(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> Run:
    """Run every stage of a job that is not done yet, and wait for the end. Submit again to resume.

    A notebook shows a bar for each stage, a terminal too, and a log a few lines.

    Args:
        job: The path of a job file, or its content as a dictionary.
        set: Fields to set, by dotted path, such as {"run.seed": 1}; or texts as `--set` takes them.
        until: Stop after the last stage of this kind: "localize", "seed" or "train".
        store: Folder or URI of the run store. Default: the job's `run.store`.
        address: A running Ray cluster that this process drives: "auto" or "HOST:PORT". Default: Ray starts on this machine.

    Returns:
        The run.

    Raises:
        JobError: if the job, its data or the store is not valid. The message has one line per mistake.
        StageError: if a stage fails. What was done is kept.

    Example:
        >>> run = wsss_ray.submit("job.yaml", set={"run.seed": 1})
        >>> run.scores["miou"].miou
        0.62
    """
    from wsss_ray.runners.python import submit as submit_job

    return submit_job(job, set, until=until, store=store, address=address)


def submit_sweep(
    job: Job,
    *,
    set: Overrides | None = None,
    until: Until | None = None,
    store: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> Sweep:
    """Run the trials of a job's sweep that have not ended, and wait for the end. The arguments are those of `submit`.

    Returns:
        The sweep, with a row for each trial. A trial that failed is a row too.

    Raises:
        JobError: if the job, a trial or the store is not valid. The message has one line per mistake.
        StageError: if the sweep itself fails.

    Example:
        >>> sweep = wsss_ray.submit_sweep("jobs/sweeps/demo_theta.yaml", until="seed")
        >>> sweep.rows[0].name, sweep.best.scores["seed_quality"].miou
        ('theta 0.3', 0.55)
    """
    from wsss_ray.runners.python import submit_sweep as submit_job

    return submit_job(job, set, until=until, store=store, address=address)


def resume(
    run: str,
    store: str | os.PathLike[str] = "runs",
    *,
    until: Until | None = None,
    whole: bool = False,
    address: str | None = None,
) -> Run:
    """Continue a run with the job that its store keeps, and wait for the end.

    Args:
        run: The name of the run.
        store: Folder or URI of the run store.
        until: Stop after the last stage of this kind. Default: as the run was submitted last.
        whole: True runs the whole plan, also if the run was submitted with `until`.
        address: A running Ray cluster that this process drives. See `submit`.

    Raises:
        JobError: if the job is no longer valid, or its data is gone.
        StageError: if a stage fails. What was done is kept.
        ValueError: if the store has no such run.

    Example:
        >>> wsss_ray.submit("job.yaml", until="seed")
        >>> wsss_ray.resume("photos", whole=True).status().state
        'done'
    """
    from wsss_ray.runners.python import resume as resume_run

    return resume_run(run, store, until=until, whole=whole, address=address)


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
    from wsss_ray.inference.run import Run

    return Run(name, store, attempt=attempt)


def open_sweep(name: str, store: str | os.PathLike[str] = "runs") -> Sweep:
    """Open a sweep of a store. The arguments are those of `open_run`.

    Raises:
        ValueError: if there is no such store or sweep, or no trial has ended yet. The message is one line.

    Example:
        >>> wsss_ray.open_sweep("photos-theta").rows[0].name
        'theta 0.3'
    """
    from wsss_ray.inference.sweep import open_sweep as open_there

    return open_there(name, store)


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
    from wsss_ray.inference.trained import find_trained

    name, place = (run, os.fspath(store)) if isinstance(run, str) else (run.name, run.store.uri)
    return Predictor(find_trained(name, place, model).with_crf(crf), device=device)


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
    from pathlib import Path

    from wsss_ray.inference.scoring import score_images
    from wsss_ray.inference.trained import find_trained

    name, place = (run, os.fspath(store)) if isinstance(run, str) else (run.name, run.store.uri)
    several = [images] if isinstance(images, str | os.PathLike) else images
    trained = find_trained(name, place, model).with_crf(crf)
    return score_images(trained, [os.fspath(image) for image in several], Path(masks), device=device)
