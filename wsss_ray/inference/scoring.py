"""Score a trained segmenter on images with masks that the run has never seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.errors import in_one_line, is_machine_failure
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import normalise_mask
from wsss_ray.inference.inputs import Found, list_images
from wsss_ray.inference.run import Score
from wsss_ray.inference.trained import Trained
from wsss_ray.ops.confusion import confusion, mean_defined, scores

if TYPE_CHECKING:
    from wsss_ray.inference.predictor import Predictor
    from wsss_ray.ops.confusion import Matrix

Step = Callable[[int, int], None]
"""Told after each image: how many images are done, and how many there are."""


@dataclass(frozen=True)
class Evaluation:
    """The score of a model on images with masks.

    Attributes:
        model: The model, as messages name it.
        score: The score.
        confusion: Counts of pixels (L, L + 1): rows are true labels, columns predicted ones.
        failed: Path and reason of each image that could not be scored.

    Example:
        >>> wsss_ray.evaluate("photos", "test/images", "test/masks").score.miou
        0.58
    """

    model: str
    score: Score
    confusion: Matrix
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def miou(self) -> float | None:
        """Return the mIoU in [0, 1]; None if no label is scored."""
        return self.score.miou


def score_images(
    trained: Trained, images: Sequence[str], masks: Path, *, device: str | None = None, step: Step | None = None
) -> Evaluation:
    """Predict images and compare the labels with their masks.

    The mask of an image is the PNG in `masks` with the image's path below the folder that all images have in common. Its values
    are 0 for background, 1 for the first class, and 255 for pixels that are not scored; a palette of VOC is understood.

    Args:
        trained: The model.
        images: Image files, folders and patterns. Images below `masks` are left out.
        masks: The folder of the masks.
        device: The device, such as "cuda:1". Default: a GPU if there is one.
        step: Told after each image.

    Raises:
        ValueError: if no image is found, a mask is missing, or no image could be scored. The message is one line.
        OSError: if a folder cannot be read.

    Example:
        >>> score_images(find_trained("photos"), ["test/images"], Path("test/masks")).miou
        0.58
    """
    if not masks.is_dir():
        raise ValueError(f"--masks {masks}: is no folder; give the folder of the masks")
    listing = list_images(images, out=masks)
    missing = [found for found in listing.images if not _mask(masks, found).is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        what = f"there is no {missing[0].name}.png for {missing[0].path}{others}"
        raise ValueError(f"--masks {masks}: {what}; give every image a mask")
    from wsss_ray.inference.predictor import Predictor

    predictor = Predictor(trained, device=device)
    labels = len(predictor.classes)
    matrix, failed, scored = np.zeros((labels, labels + 1), np.int64), list(listing.refused), 0
    for place, found in enumerate(listing.images, start=1):
        try:
            matrix += _matrix(predictor, found, masks)
            scored += 1
        except Exception as error:
            if is_machine_failure(error):
                raise
            plain = isinstance(error, ValueError | OSError)
            failed.append((found.path, " ".join(str(error).split()) if plain else in_one_line(error)))
        if step is not None:
            step(place, len(listing.images))
    if not scored:
        path, reason = failed[0]
        raise ValueError(f"no image could be scored; {path}: {reason}")
    return Evaluation(trained.title, _score(matrix, scored, trained.classes), matrix, tuple(failed))


def _matrix(predictor: Predictor, found: Found, masks: Path) -> Matrix:
    image_HWC = predictor.pixels(found.path)
    height, width = image_HWC.shape[:2]
    labels, path = len(predictor.classes), _mask(masks, found)
    try:
        mask = normalise_mask(path.read_bytes(), height=height, width=width, num_labels=labels)
    except ValueError as error:
        raise ValueError(f"mask {path}: {error}") from error
    return confusion(decode_gray(mask), predictor.predict_pixels(image_HWC), labels)


def _mask(masks: Path, found: Found) -> Path:
    return masks / f"{found.name}.png"


def _score(matrix: Matrix, images: int, classes: tuple[str, ...]) -> Score:
    found = scores(matrix).to_dict()
    for name in ("precision", "recall"):
        found[name] = mean_defined(found[name])
    return Score.of_metrics("evaluate", found | {"scored": images}, classes)
