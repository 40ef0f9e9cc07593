"""Images that are held out to score on, where there are masks and nobody has said which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wsss_ray.core.component import digest
from wsss_ray.preflight.survey.listing import ListedImage

EVERY = 5
LEAST, MOST = 10, 2000
"""Masks that it takes to hold some out, and most images that are."""


def held_out(pictures: Sequence[ListedImage], twins: Mapping[str, str]) -> set[str]:
    """The ids of about every fifth image with a mask, alike for all classes; none where there are fewer than ten masks.

    `twins` says of a path with the same bytes as others which stands for them: what is held out is not trained on by another
    name. The choice rests on ids and tags only, so that it is the same every time.
    """
    masked = sorted(
        (picture for picture in pictures if picture.mask is not None and picture.path not in twins),
        key=lambda picture: (sorted(picture.tags), digest(picture.image_id)),
    )
    if len(masked) < LEAST:
        return set()
    return {picture.image_id for picture in masked[EVERY // 2 :: max(EVERY, math.ceil(len(masked) / MOST))]}
