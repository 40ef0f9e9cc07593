"""The labels in masks against the classes and the tags of their images, by a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsss_ray.core.contracts import IGNORE
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import normalise_mask, read_header
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE
from wsss_ray.preflight.survey.listing import ListedImage

_BEARABLE = 0.05  # the max_bad_fraction of the job: an image whose mask cannot be used is one that fails
_ANY = 255  # labels: all that 8 bits hold


@dataclass
class MaskLook:
    """What a sample of masks holds: masks by label, those that cannot be used by the reason, those at odds with the tags.

    `found` are all masks, `looked` those that were decoded.
    """

    found: int
    looked: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    unusable: dict[str, str] = field(default_factory=dict)
    beyond_tags: list[str] = field(default_factory=list)
    absent_tags: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether enough of them are masks of these classes to score with."""
        return self.looked > 0 and len(self.unusable) <= _BEARABLE * self.looked and bool(set(self.labels) - {0, IGNORE})

    def why_not(self, classes: Sequence[str]) -> str:
        """What is wrong with masks that are not usable, and the mend."""
        if self.unusable:
            path, reason = next(iter(self.unusable.items()))
            return f"{len(self.unusable)} of {self.looked} sampled masks cannot be used, such as {path}: {reason}"
        held = ", ".join(map(str, sorted(self.labels))) or "nothing"
        wanted = ", ".join(f"{label} {name}" for label, name in list(enumerate(classes, start=1))[:3])
        return f"the sampled masks hold only {held}; wanted are 0 background, {wanted}, ..., and 255 where it is not scored"


def look_at_masks(pictures: Sequence[ListedImage], classes: Sequence[str]) -> MaskLook:
    """Decode a sample of the masks."""
    with_masks = [picture for picture in pictures if picture.mask is not None]
    look = MaskLook(len(with_masks))
    for picture in evenly_spaced(with_masks, SAMPLE):
        assert picture.mask is not None
        try:
            with open(picture.path, "rb") as file:
                header = read_header(file)
        except (OSError, ValueError):
            continue  # the image's own matter
        look.looked += 1
        height, width = (header.width, header.height) if header.turned else (header.height, header.width)
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
