"""Hold out a validation set, if there are masks and the user has not named one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wsss_ray.core.component import digest
from wsss_ray.preflight.survey.listing import ListedImage

EVERY = 5
"""One of so many images with a mask is held out."""

LEAST, MOST = 10, 2000
"""No image is held out if fewer than `LEAST` have masks. At most `MOST` images are."""


def held_out(pictures: Sequence[ListedImage], twins: Mapping[str, str]) -> set[str]:
    """Choose about every fifth image with a mask, evenly over the classes; none if there are fewer than ten masks.

    The choice depends only on ids and tags, so it is the same every time.

    Args:
        pictures: The images.
        twins: For each copy, the path of the file that stands for all copies. Only that one can be held out.

    Returns:
        The ids of the chosen images.
    """
    masked = sorted(
        (picture for picture in pictures if picture.masked and picture.path not in twins),
        key=lambda picture: (sorted(picture.tags), digest(picture.image_id)),
    )
    if len(masked) < LEAST:
        return set()
    return {picture.image_id for picture in masked[EVERY // 2 :: max(EVERY, math.ceil(len(masked) / MOST))]}
