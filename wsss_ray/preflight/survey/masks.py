"""Compare the labels in a sample of masks with the classes and with the tags of the images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import read_header
from wsss_ray.data.label_maps import mask_of
from wsss_ray.data.source import Raw, Source
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE, Look
from wsss_ray.preflight.survey.listing import FolderListing, ListedImage

_BEARABLE = 0.05  # the max_bad_fraction of the job, as an image fails if its mask cannot be used
_ANY = tuple(map(str, range(254)))  # classes for every label that 8 bits hold


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


def look_at_masks(listing: FolderListing, *, most: int = SAMPLE) -> MaskLook:
    """Decode or draw a sample of at most `most` masks of a listing, as ingest would."""
    source, classes = listing.source(), listing.classes
    with_masks = [picture for picture in listing.pictures if picture.masked]
    look = MaskLook(len(with_masks))
    for picture in evenly_spaced(with_masks, most):
        try:
            raw = _raw(source, picture)
            height, width = read_header(io.BytesIO(raw.image)).upright
        except (OSError, ValueError):
            continue  # `look_at` reports the image
        look.looked += 1
        where = picture.mask or picture.path
        try:
            png = mask_of(raw, height=height, width=width, source=source, classes=_ANY)
        except (OSError, ValueError) as error:
            look.unusable[where] = " ".join(str(error).split())
            continue
        labels = {int(label) for label in np.unique(decode_gray(png or b""))}
        look.labels.update(labels)
        objects = labels - {0, IGNORE}
        if objects and max(objects) > len(classes):
            mend = "save 255 for classes that no tag names, or set data.masks, and data.classes to all classes in their order"
            look.unusable[where] = f"it holds the label {max(objects)}, and there are {len(classes)} classes; {mend}"
            continue
        named = {classes[label - 1] for label in objects}
        if named - set(picture.tags):
            look.beyond_tags.append(picture.image_id)
        if set(picture.tags) - named:
            look.absent_tags.append(picture.image_id)
    return look


@dataclass(frozen=True)
class TurnedMasks:
    """Images that EXIF turns and that have masks.

    Attributes:
        count: The number of these images.
        upright: How many of a sample have a mask of the size of the upright image, and not of the stored pixels.
        stored: How many of the sample have it the other way round. The size of the others fits both.
    """

    count: int = 0
    upright: int = 0
    stored: int = 0

    @property
    def masks_on(self) -> Literal["upright", "stored"]:
        """Return the value of `data.masks_on` that fits."""
        return "stored" if self.stored > self.upright else "upright"


def turned_masks(listing: FolderListing, looks: Mapping[str, Look]) -> TurnedMasks:
    """Compare the sizes of masks with those of their images, where EXIF turns the image."""
    source = listing.source()
    turned = [picture for picture in listing.pictures if picture.masked and looks[picture.path].turned]
    votes: Counter[str] = Counter()
    for picture in evenly_spaced(turned, SAMPLE):
        try:
            raw = _raw(source, picture)
            image, mask = read_header(io.BytesIO(raw.image)), read_header(io.BytesIO(raw.mask or b""))
        except (OSError, ValueError):
            continue
        sizes = [(mask.height, mask.width) == size for size in (image.upright, (image.height, image.width))]
        if sizes[0] != sizes[1]:
            votes["upright" if sizes[0] else "stored"] += 1
    return TurnedMasks(len(turned), votes["upright"], votes["stored"])


def _raw(source: Source, picture: ListedImage) -> Raw:
    if picture.item is not None:
        return source.load(picture.item)
    assert picture.mask is not None
    return Raw(Path(picture.path).read_bytes(), Path(picture.mask).read_bytes())
