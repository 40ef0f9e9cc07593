"""One image of the gallery: its id and tags, then its pictures in the order in which they were made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsss_ray.core.contracts import IGNORE, Maps
from wsss_ray.core.plan import Stage
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.markup import Markup, number, swatch, tag

_MAPS = 6  # of one image and localize stage, at most
_ALSO = 0.01  # of an image's pixels: what a label that is no tag must cover to be named


@dataclass
class Row:
    """One image and what there is for it: the maps, and the label maps (None where the stage failed on it)."""

    image_id: str
    shard: int
    place: int  # in its shard
    tags: tuple[int, ...]
    image_HWC: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8] | None
    maps: list[tuple[Stage, Maps | None]] = field(default_factory=list)
    made: list[tuple[Stage, NDArray[np.uint8] | None]] = field(default_factory=list)
    saliency: dict[str, NDArray[np.float32] | None] = field(default_factory=dict)  # by stage id, as large as the thumbnail

    def score(self) -> float:
        """The mean IoU over this image's label maps; infinite, so that it comes last, where nothing can be scored."""
        known = [iou for _, label_HW in self.made if (iou := image_iou(self.mask_HW, label_HW)) is not None]
        return sum(known) / len(known) if known else math.inf


def image_iou(mask_HW: NDArray[np.uint8] | None, label_HW: NDArray[np.uint8] | None) -> float | None:
    """The mIoU of one image as `ops.confusion` has it; None where there is nothing to score."""
    if mask_HW is None or label_HW is None or mask_HW.shape != label_HW.shape:
        return None
    miou = scores(confusion(mask_HW, label_HW, IGNORE)).miou
    return miou if math.isfinite(miou) else None


def card(row: Row, classes: Sequence[str], key: str, place: int) -> Markup:
    """The image as markup. `key` is its id in the page, `place` its rank in the data."""
    photo = pictures.photo(row.image_HWC)
    several = len(row.maps) > 1
    tiles = [_tile(photo, "image", alt=f"Image {row.image_id}", kind="photo")]
    for stage, maps in row.maps:
        if maps is None:
            tiles.append(_blank(photo, stage.name))
            continue
        height, width = row.image_HWC.shape[:2]
        peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        for k, peak_HW in list(zip(maps.classes, peak_CHW, strict=True))[:_MAPS]:
            title = f"{stage.name}: {class_name(classes, k + 1)}" if several else class_name(classes, k + 1)
            alt = f"{stage.name} of {class_name(classes, k + 1)}"
            tiles.append(_tile(pictures.heat(row.image_HWC, peak_HW), title, alt=alt, kind="map"))
        if len(maps.classes) > _MAPS:
            tiles.append(_blank(photo, stage.name, f"and {len(maps.classes) - _MAPS} more tags"))
    for stage, label_HW in row.made:
        if label_HW is None:
            tiles.append(_blank(photo, stage.name, stage=stage.id))
        else:
            title = "prediction" if stage.kind == "evaluate" else stage.name
            alt = f"{title} with {', '.join(class_name(classes, k) for k in _shares(label_HW) if k != IGNORE)}"
            several_models = sum(other.kind == "evaluate" for other, _ in row.made) > 1
            title = f"{title}, {stage.name}" if stage.kind == "evaluate" and several_models else title
            iou = image_iou(row.mask_HW, label_HW)
            tiles.append(_tile(pictures.labels(label_HW), title, alt=alt, kind="labels", iou=iou, stage=stage.id))
    if row.mask_HW is not None:
        tiles.append(_tile(pictures.labels(row.mask_HW), "mask", alt="Mask drawn by a person", kind="labels"))
    head = tag("h4", row.image_id, tag("span", *_chips(row, classes), class_="chips"))
    score = row.score()
    return tag(
        "article", head, tag("div", *tiles, class_="tiles"), class_="card", id=key, data_place=str(place),
        data_labels=json.dumps([k + 1 for k in row.tags]), data_iou=f"{score:.6f}" if math.isfinite(score) else None,
    )  # fmt: skip


def class_name(classes: Sequence[str], label: int) -> str:
    """A label in words."""
    if label == 0:
        return "background"
    return classes[label - 1] if label <= len(classes) else f"label {label}"


def _chips(row: Row, classes: Sequence[str]) -> Iterator[Markup]:
    """The tags, then the labels that were found although they are none."""
    colors = pictures.palette()
    for k in row.tags:
        yield tag("span", swatch(colors[k + 1]), class_name(classes, k + 1))
    shares: dict[int, float] = {}
    for _, label_HW in row.made:
        for k, share in _shares(label_HW).items() if label_HW is not None else ():
            shares[k] = max(share, shares.get(k, 0.0))
    extra = sorted(k for k, share in shares.items() if share >= _ALSO and k not in (0, IGNORE) and k - 1 not in row.tags)
    for k in extra:
        yield tag("span", swatch(colors[k]), f"{class_name(classes, k)} (not a tag)", class_="also")


def _shares(label_HW: NDArray[np.uint8]) -> dict[int, float]:
    values, counts = np.unique(label_HW, return_counts=True)
    return {int(k): float(n) / label_HW.size for k, n in zip(values, counts, strict=True)}


def _tile(
    picture: pictures.Picture, title: str, *, alt: str, kind: str, iou: float | None = None, stage: str | None = None
) -> Markup:
    image = tag("img", src=picture.uri, width=str(picture.width), height=str(picture.height), alt=alt, decoding="async")
    return tag(
        "figure", tag("div", image, class_="pic"), tag("figcaption", tag("span", title), _score(iou)), class_=kind,
        style=f"width:{picture.width}px", data_stage=stage, data_iou=f"{iou:.6f}" if iou is not None else None,
    )  # fmt: skip


def _score(iou: float | None) -> Markup | None:
    return tag("b", number(iou)) if iou is not None else None


def _blank(like: pictures.Picture, title: str, text: str = "failed", stage: str | None = None) -> Markup:
    style = f"width:{like.width}px;aspect-ratio:{like.width}/{like.height}"
    blank = tag("div", text, class_="blank", style=style)
    return tag("figure", blank, tag("figcaption", title), style=f"width:{like.width}px", data_stage=stage)
