"""Compare the labels in a sample of masks with the classes and with the tags of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import normalise_mask, read_header
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE
from wsss_ray.preflight.survey.listing import ListedImage

_BEARABLE = 0.05  # the max_bad_fraction of the job, as an image fails if its mask cannot be used
_ANY = 255  # accepts every label that 8 bits hold


@dataclass
class MaskLook:
    """The content of a sample of masks.

    Attributes:
        found: The number of all masks.
        looked: The number of masks that were decoded.
        labels: The number of masks that hold each label.
        unusable: Reasons by path, for masks that cannot be used.
        beyond_tags: Ids of images whose mask shows a class that is not among the tags.
        absent_tags: Ids of images whose mask lacks a class that is among the tags.
    """

    found: int
    looked: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    unusable: dict[str, str] = field(default_factory=dict)
    beyond_tags: list[str] = field(default_factory=list)
    absent_tags: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Return True if enough of the masks are valid to score with them."""
        return self.looked > 0 and len(self.unusable) <= _BEARABLE * self.looked and bool(set(self.labels) - {0, IGNORE})

    def why_not(self, classes: Sequence[str]) -> str:
        """Say in one line what is wrong with masks that are not usable."""
        if self.unusable:
            path, reason = next(iter(self.unusable.items()))
            return f"{len(self.unusable)} of {self.looked} sampled masks cannot be used, such as {path}: {reason}"
        held = ", ".join(map(str, sorted(self.labels))) or "nothing"
        wanted = ", ".join(f"{label} for {name}" for label, name in list(enumerate(classes, start=1))[:3])
        return f"the sampled masks hold only {held}; use 0 for background, {wanted}, ..., and 255 for pixels to ignore"


def look_at_masks(pictures: Sequence[ListedImage], classes: Sequence[str]) -> MaskLook:
    """Decode a sample of the masks.

    Args:
        pictures: The images, with or without masks.
        classes: The names of the labels 1, 2, ...
    """
    with_masks = [picture for picture in pictures if picture.mask is not None]
    look = MaskLook(len(with_masks))
    for picture in evenly_spaced(with_masks, SAMPLE):
        assert picture.mask is not None
        try:
            with open(picture.path, "rb") as file:
                header = read_header(file)
        except (OSError, ValueError):
            continue  # `look_at` reports the image
        look.looked += 1
        height, width = header.upright
        try:
            png = normalise_mask(Path(picture.mask).read_bytes(), height=height, width=width, num_labels=_ANY)
        except (OSError, ValueError) as error:
            look.unusable[picture.mask] = " ".join(str(error).split())
            continue
        labels = {int(label) for label in np.unique(decode_gray(png))}
        look.labels.update(labels)
        objects = labels - {0, IGNORE}
        if objects and max(objects) > len(classes):
            look.unusable[picture.mask] = f"it holds the label {max(objects)}, and there are {len(classes)} classes"
            continue
        named = {classes[label - 1] for label in objects}
        if named - set(picture.tags):
            look.beyond_tags.append(picture.image_id)
        if set(picture.tags) - named:
            look.absent_tags.append(picture.image_id)
    return look
