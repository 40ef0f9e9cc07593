"""Turn masks upright, and number their labels as the job does."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray, encode_labels
from wsss_ray.data.images import normalise_mask, read_header
from wsss_ray.data.source import Raw, Source
from wsss_ray.data.strips import turned


def mask_of(raw: Raw, *, height: int, width: int, source: Source, classes: Sequence[str]) -> bytes | None:
    """Return the mask of an image as an 8-bit PNG of labels, upright and numbered by `classes`; None if it has none.

    Args:
        raw: The files of the image.
        height: Height of the upright image.
        width: Width of the upright image.
        source: The source of the files.
        classes: The classes of the job, in label order.

    Raises:
        ValueError: if the mask cannot be used.
    """
    if raw.no_mask is not None:
        raise ValueError(raw.no_mask)
    if raw.mask is None:
        return None
    orientation = read_header(io.BytesIO(raw.image)).orientation if source.masks_on == "stored" else 1
    if orientation >= 5:
        height, width = width, height
    names = classes if raw.labels is None else raw.labels
    mask = normalise_mask(raw.mask, height=height, width=width, num_labels=len(names) + 1)
    if orientation != 1:
        mask = turn_mask(mask, orientation)
    return mask if tuple(names) == tuple(classes) else renumber(mask, names, classes, ignore=source.others == "ignore")


def turn_mask(mask: bytes, orientation: int) -> bytes:
    """Turn a mask, a PNG of labels drawn on the stored pixels, upright by the EXIF `orientation` of its image."""
    return encode_labels(turned(decode_gray(mask), orientation))


def renumber(mask: bytes, names: Sequence[str], classes: Sequence[str], *, ignore: bool) -> bytes:
    """Number the labels of a mask anew: label n, the n-th of `names`, becomes the place of that name in `classes`.

    Args:
        mask: A PNG of labels.
        names: The names of the labels 1, 2, ... in the mask.
        classes: The names of the labels 1, 2, ... afterwards.
        ignore: True makes all other labels 255, False makes them background.

    Example:
        >>> decode_gray(renumber(encode_labels(np.array([[0, 1, 2, 255]], np.uint8)), ["cat", "dog"], ["dog"], ignore=False))
        array([[  0,   0,   1, 255]], dtype=uint8)
    """
    table = np.full(256, IGNORE if ignore else 0, np.uint8)
    table[[0, IGNORE]] = 0, IGNORE
    for label, name in enumerate(names, start=1):
        if name in classes:
            table[label] = 1 + list(classes).index(name)
    return encode_labels(table[decode_gray(mask)])
