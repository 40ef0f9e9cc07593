"""The settings that `init` can write, from those that score best to those that are made soonest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from wsss_ray.preflight.survey.sizes import JobSizes

_MEASURED = 8.0  # epochs of the classifier on benchmarks/voc_animals, and half as many of the segmenter
_SMALL_SALIENCY = 192  # below it, much is lost: benchmarks/voc_animals/README.md
_FEWEST_SEEN, _FEWEST_SEEN_GPU = 1_000, 5_000  # images that a classifier sees at least, some of them many times
_SMALLEST_SIDE, _FEWEST_CELLS = 128, 12  # pixels, and features along the side of an image


def ladder(usual: JobSizes, num_images: int) -> list[JobSizes]:
    """Return settings in the order of the quality that is expected of them, the best first. Each takes less time than the last.

    Args:
        usual: The settings that suit images and machine if nothing is said about time.
        num_images: The size of the training set.

    Example:
        >>> [one.side for one in ladder(sizes_for(Machine(2, 16e9), [320], 1552), 1552)]
        [256, 192, 192, 192, 192]
    """
    least = min(usual.side, max(_SMALLEST_SIDE, _FEWEST_CELLS * usual.stride))
    fewest = min(usual.epochs, (_FEWEST_SEEN_GPU if usual.gpu else _FEWEST_SEEN) / num_images)
    found = [_of_epochs(usual, max(usual.epochs, _MEASURED)), usual]
    for step in (
        lambda one: one if one.saliency is None else replace(one, saliency=min(one.saliency, _SMALL_SALIENCY)),
        lambda one: one.at_side(max(least, usual.side * 3 // 4 // 32 * 32)),
        lambda one: _shorter(one, max(fewest, usual.epochs / 2)),
        lambda one: one.at_side(max(least, usual.side // 2 // 32 * 32)),
        lambda one: _shorter(one, max(fewest, usual.epochs / 4)),
        lambda one: one if one.networks.clip else replace(one, saliency=None, plain=True),
    ):
        found.append(step(found[-1]))
    return [one for place, one in enumerate(found) if one not in found[:place]]


def longest_that_fits(found: Sequence[JobSizes], seconds_of: Callable[[JobSizes], float], most: float) -> JobSizes | None:
    """Return the first of several settings that takes at most `most` seconds, or None if not even the last does.

    Args:
        found: Settings, as `ladder` returns them. Each takes less time than the one before.
        seconds_of: Predicts the seconds of a job. It is called for few of them, as it tries the job.
        most: Seconds.
    """
    if seconds_of(found[0]) <= most:
        return found[0]
    if len(found) == 1 or seconds_of(found[-1]) > most:
        return None
    too_long, fits = 0, len(found) - 1
    while fits - too_long > 1:
        middle = (too_long + fits) // 2
        if seconds_of(found[middle]) <= most:
            fits = middle
        else:
            too_long = middle
    return found[fits]


def words(sizes: JobSizes) -> str:
    """Describe settings in words."""
    votes = ", votes of SAM's masks" if sizes.networks.sam is not None else ""
    if sizes.networks.clip is not None:
        return f"images of {sizes.side} pixels, maps by CLIP{votes}, {sizes.label_epochs:g} epochs of the segmenter"
    saliency = "no saliency" if sizes.saliency is None else f"saliency at {sizes.saliency} pixels"
    return (
        f"images of {sizes.side} pixels, {saliency}{votes}, {sizes.epochs:g} epochs of the classifier and "
        f"{sizes.label_epochs:g} of the segmenter"
    )


def worse(sizes: JobSizes, best: JobSizes) -> list[str]:
    """Say what settings give up to take less time than others."""
    found = []
    if sizes.side < best.side:
        found.append(f"images of {sizes.side} pixels, not {best.side}: small objects and fine edges are lost")
    trained = [("segmenter", sizes.label_epochs, best.label_epochs)]
    if sizes.networks.clip is None:
        trained.insert(0, ("classifier", sizes.epochs, best.epochs))
    for network, fewer, more in trained:
        if fewer < more:
            found.append(f"fewer epochs of the {network} ({fewer:g}, not {more:g}): it learns less")
    if sizes.saliency is not None and best.saliency is not None and sizes.saliency < best.saliency:
        found.append(f"saliency at {sizes.saliency} pixels, not {best.saliency}: IoU .79 in the place of .80 on photographs")
    if sizes.plain and best.saliency is not None:
        scores = "on benchmarks/voc_animals, mIoU of the seeds .44 in the place of .71, of the model .48 in the place of .58"
        found.append(f"no saliency, and seeds without CRF: {scores}")
    elif sizes.plain:
        found.append("seeds by a threshold alone, and no training on relabelled images: seeds and model are worse")
    return found


def _shorter(sizes: JobSizes, epochs: float) -> JobSizes:
    """Train the classifier shorter, and the segmenter too where that saves much: not on the kept features of a frozen trunk."""
    shorter = _of_epochs(sizes, epochs)
    return shorter if sizes.gpu or sizes.networks.clip is not None else replace(shorter, label_epochs=sizes.label_epochs)


def _of_epochs(sizes: JobSizes, epochs: float) -> JobSizes:
    if epochs == sizes.epochs:
        return sizes
    rounded = float(round(epochs)) if epochs >= 3 else max(0.1, round(epochs, 1))
    return replace(sizes, epochs=rounded, label_epochs=max(1, rounded / 2))
