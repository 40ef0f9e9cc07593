"""Render the cards of the gallery: the id and tags of an image, then its pictures.

What was found in the image comes first: saliency and localization maps. Label maps to compare stand beside each other: the mask,
then seeds and predictions in the order in which they were made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wsss_ray.core.values import IGNORE, Maps
from wsss_ray.data.palette import voc_palette
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.reporting.headings import stage_words
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.markup import average
from wsss_ray.reporting.report.page import render
from wsss_ray.reporting.report.pictures import Thumbnail

_MAPS = 6  # shown of one image and localize stage, at most
_ALSO = 0.01  # share of an image's pixels that a label without its tag must cover to be named


class Maker(Protocol):
    """What made a map: a stage, or a stage of one of several runs."""

    @property
    def id(self) -> str:
        """Return the id of the stage."""

    @property
    def kind(self) -> str:
        """Return the kind of the stage."""

    @property
    def name(self) -> str:
        """Return the name of the stage."""


@dataclass
class GalleryImage:
    """One image with its localization maps and label maps. None stands for those that a stage failed to make.

    Attributes:
        image_id: id of the image.
        shard: number of its shard.
        place: its row in the shard.
        tags: tags (0-based) of the image.
        image_HWC: RGB, 0..255.
        mask_HW: human mask; None if there is none.
        maps: localization maps by stage.
        made: label maps by stage: seeds and predictions.
        saliency: saliency maps by stage id, as large as the thumbnail.
        titles: titles of label maps by stage id, where they are not the words for the stage.
    """

    image_id: str
    shard: int
    place: int
    tags: tuple[int, ...]
    image_HWC: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8] | None
    maps: list[tuple[Maker, Maps | None]] = field(default_factory=list)
    made: list[tuple[Maker, NDArray[np.uint8] | None]] = field(default_factory=list)
    saliency: dict[str, NDArray[np.float32] | None] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def score(self) -> float:
        """Return the mean of the mIoU of this image's label maps; infinity, which sorts last, if none can be scored."""
        iou = average(image_iou(self.mask_HW, label_HW) for _, label_HW in self.made)
        return math.inf if iou is None else iou


@dataclass(frozen=True)
class Tile:
    """One picture of a card. `instead` is a text that is shown in its place, at its size."""

    title: str
    picture: Thumbnail
    alt: str = ""
    kind: str | None = None
    instead: str | None = None
    iou: float | None = None
    stage: str | None = None  # id of the stage that made it


def image_iou(mask_HW: NDArray[np.uint8] | None, label_HW: NDArray[np.uint8] | None) -> float | None:
    """Compute the mIoU of one image; None if there is nothing to score."""
    if mask_HW is None or label_HW is None or mask_HW.shape != label_HW.shape:
        return None
    miou = scores(confusion(mask_HW, label_HW, IGNORE)).miou
    return miou if math.isfinite(miou) else None


def card(image: GalleryImage, classes: Sequence[str], key: str, place: int) -> Markup:
    """Render one image.

    Args:
        image: the image with its maps.
        classes: names of the object classes.
        key: id of the image in the page.
        place: position of the image in the data.

    Example:
        >>> image = GalleryImage("cat-1", 0, 0, (0,), image_HWC, mask_HW=None)
        >>> html = card(image, ["cat"], key="ingest-0123456789abcdef.0", place=0)
    """
    colors = voc_palette().tolist()
    return render(
        "card.html",
        key=key,
        place=place,
        image_id=image.image_id,
        labels=json.dumps([k + 1 for k in image.tags]),
        score=image.score(),
        tags=[(colors[k + 1], class_name(classes, k + 1)) for k in image.tags],
        found=[(colors[label], class_name(classes, label)) for label in _untagged(image)],
        rows=[list(_found(image, classes)), list(_labels(image, classes))],
    )


def _found(image: GalleryImage, classes: Sequence[str]) -> Iterator[Tile]:
    """Yield the photograph, saliency and localization maps."""
    photo = pictures.photo(image.image_HWC)
    yield Tile("Image", photo, alt=f"Image {image.image_id}", kind="photo")
    height, width = image.image_HWC.shape[:2]
    for saliency_HW in image.saliency.values():
        if saliency_HW is None:
            yield Tile("Saliency", photo, instead="failed")
        else:
            picture = pictures.heat(image.image_HWC, saliency_HW)
            yield Tile("Saliency", picture, alt=f"Saliency of {image.image_id}", kind="saliency")
    for stage, maps in image.maps:
        words = stage_words(stage.name)
        if maps is None:
            yield Tile(words, photo, instead="failed")
            continue
        peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        for k, peak_HW in list(zip(maps.classes, peak_CHW, strict=True))[:_MAPS]:
            name = class_name(classes, k + 1)
            title = f"{words}: {name}" if len(image.maps) > 1 else name
            yield Tile(title, pictures.heat(image.image_HWC, peak_HW), alt=f"{words} of {name}", kind="map")
        if len(maps.classes) > _MAPS:
            yield Tile(words, photo, instead=f"and {len(maps.classes) - _MAPS} more tags")


def _labels(image: GalleryImage, classes: Sequence[str]) -> Iterator[Tile]:
    """Yield the human mask, and the label maps that are compared with it."""
    photo = pictures.photo(image.image_HWC)
    if image.mask_HW is not None:
        yield Tile("Mask", pictures.labels(image.mask_HW), alt="Mask drawn by a person", kind="labels mask")
    several_models = sum(stage.kind == "evaluate" for stage, _ in image.made) > 1
    for stage, label_HW in image.made:
        words = stage_words(stage.name)
        if label_HW is None:
            yield Tile(words, photo, instead="failed", stage=stage.id)
            continue
        title = "Prediction" if stage.kind == "evaluate" else words
        alt = f"{title} with {', '.join(class_name(classes, k) for k in _shares(label_HW) if k != IGNORE)}"
        title = f"{title}, {words}" if stage.kind == "evaluate" and several_models else title
        title = image.titles.get(stage.id, title)
        iou = image_iou(image.mask_HW, label_HW)
        yield Tile(title, pictures.labels(label_HW), alt=alt, kind="labels", iou=iou, stage=stage.id)


def class_name(classes: Sequence[str], label: int) -> str:
    """Return the name of a label; 0 is background."""
    if label == 0:
        return "background"
    return classes[label - 1] if label <= len(classes) else f"label {label}"


def _untagged(image: GalleryImage) -> list[int]:
    """List the labels that some stage gave to enough pixels although the image does not have their tag."""
    shares: dict[int, float] = {}
    for _, label_HW in image.made:
        for label, share in _shares(label_HW).items() if label_HW is not None else ():
            shares[label] = max(share, shares.get(label, 0.0))
    tagged = {0, IGNORE, *(k + 1 for k in image.tags)}
    return sorted(label for label, share in shares.items() if share >= _ALSO and label not in tagged)


def _shares(label_HW: NDArray[np.uint8]) -> dict[int, float]:
    values, counts = np.unique(label_HW, return_counts=True)
    return {int(k): float(n) / label_HW.size for k, n in zip(values, counts, strict=True)}
