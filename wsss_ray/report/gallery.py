"""Pictures of single images through the stages: what the model saw, what was made of it, and what a person drew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsss_ray import artifacts
from wsss_ray.contracts import IGNORE, Maps
from wsss_ray.data.source import DataSplit
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.plan import Plan, Stage
from wsss_ray.report import pictures
from wsss_ray.report.markup import Markup, join, number, section, swatch, tag, whole
from wsss_ray.store import RunStore

_MAPS = 6  # of one image and localize stage, at most
_BUDGET = 2_200_000  # characters of all cards together
_ALSO = 0.01  # of an image's pixels: what a label that is no tag must cover to be named


@dataclass
class Row:
    """One image and what there is for it: the maps, and the label maps (None where the stage failed on it)."""

    image_id: str
    shard: int
    tags: tuple[int, ...]
    image_HWC: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8] | None
    maps: list[tuple[Stage, Maps | None]] = field(default_factory=list)
    made: list[tuple[Stage, NDArray[np.uint8] | None]] = field(default_factory=list)

    def score(self) -> float:
        """The mean IoU over this image's label maps; infinite, so that it comes last, where nothing can be scored."""
        known = [iou for _, label_HW in self.made if (iou := image_iou(self.mask_HW, label_HW)) is not None]
        return sum(known) / len(known) if known else math.inf


def images(store: RunStore, plan: Plan, count: int) -> Markup:
    """The gallery of every split that a stage of the plan reads as its data."""
    used = {data.id for stage in plan if (data := stage.optional("data"))}
    splits = [(stage, stage.component) for stage in plan if stage.id in used and isinstance(stage.component, DataSplit)]
    parts = [part for data, split in splits if (part := _split(store, plan, data, split, count, _BUDGET // len(splits)))]
    if not parts:
        return section("images", "Images", tag("p", "None yet.", class_="note"))
    return section("images", "Images", _legend(splits[0][1].classes), *parts)


def image_iou(mask_HW: NDArray[np.uint8] | None, label_HW: NDArray[np.uint8] | None) -> float | None:
    """The mIoU of one image as `ops.confusion` has it; None where there is nothing to score."""
    if mask_HW is None or label_HW is None or mask_HW.shape != label_HW.shape:
        return None
    miou = scores(confusion(mask_HW, label_HW, IGNORE)).miou
    return miou if math.isfinite(miou) else None


def _split(store: RunStore, plan: Plan, data: Stage, split: DataSplit, count: int, budget: int) -> Markup | None:
    rows, pool = _sample(store, data, count)
    if not rows:
        return None
    readers = [stage for stage in plan if stage.optional("data") == data and stage.kind in ("localize", "seed", "evaluate")]
    readers = [stage for stage in readers if stage.kind != "evaluate" or stage.optional("model")]
    absent = [stage.name for stage in readers if not _collect(store, stage, rows)]
    cards: list[Markup] = []
    for row in sorted(rows.values(), key=Row.score):
        card = _card(row, split.classes)
        budget -= len(card)
        if budget < 0 and cards:
            break
        cards.append(card)
    scored = any(row.score() < math.inf for row in rows.values())
    about = f"{whole(len(cards))} of {whole(split.num_images)} images, evenly spaced among the first {whole(pool)}"
    about += ", lowest IoU first." if scored else "."
    about += f" Nothing yet from: {', '.join(absent)}." if absent else ""
    few = all(not row.maps and len(row.made) < 2 for row in rows.values())
    body = tag("div", *cards, class_="pairs" if few else None)
    return join([tag("h3", data.name), tag("p", about, class_="note"), body])


def _sample(store: RunStore, data: Stage, count: int) -> tuple[dict[str, Row], int]:
    """`count` images of the first shards that hold as many, and how many those shards hold."""
    pool: list[tuple[int, int]] = []
    shards: dict[int, list[dict[str, object]]] = {}
    for shard in store.shards(data) if count > 0 else ():
        shards[shard] = store.read_shard(data, shard, "images", ["image_id", "tags", "image", "mask"])
        pool += [(shard, i) for i in range(len(shards[shard]))]
        if len(pool) >= count:
            break
    taken = pool if len(pool) <= count else [pool[i * len(pool) // count] for i in range(count)]
    rows = (_row(shard, shards[shard][i]) for shard, i in taken)
    return {row.image_id: row for row in rows}, len(pool)


def _row(shard: int, given: dict[str, object]) -> Row:
    image, mask, tags = given["image"], given["mask"], given["tags"]
    assert isinstance(image, bytes)
    assert isinstance(tags, list)
    mask_HW = artifacts.decode_gray(mask) if isinstance(mask, bytes) else None
    return Row(str(given["image_id"]), shard, tuple(tags), artifacts.decode_rgb(image), mask_HW)


def _collect(store: RunStore, stage: Stage, rows: dict[str, Row]) -> bool:
    """Add what a stage made to the rows. False if it has made nothing for any of them."""
    schema, column = {"localize": ("maps", "peak"), "seed": ("seeds", "seed"), "evaluate": ("scores", "prediction")}[stage.kind]
    columns = None if schema == "maps" else ["image_id", column]
    found = False
    for shard in sorted({row.shard for row in rows.values()} & set(store.shards(stage))):
        for given in store.read_shard(stage, shard, schema, columns):
            row = rows.get(given["image_id"])
            if row is None:
                continue
            found, data = True, given[column]
            if schema == "maps":
                row.maps.append((stage, artifacts.decode_maps(given) if data is not None else None))
            else:
                row.made.append((stage, artifacts.decode_gray(data) if data is not None else None))
    return found


def _card(row: Row, classes: Sequence[str]) -> Markup:
    """One image: its id and tags, then its pictures in the order in which they were made."""
    photo = pictures.photo(row.image_HWC)
    several = len(row.maps) > 1
    tiles = [_tile(photo, "image", alt=f"Image {row.image_id}")]
    for stage, maps in row.maps:
        if maps is None:
            tiles.append(_blank(photo, stage.name))
            continue
        height, width = row.image_HWC.shape[:2]
        peak_CHW = resize_maps(maps.peak_CHW, height, width, maps.rows, maps.columns)
        for k, peak_HW in list(zip(maps.classes, peak_CHW, strict=True))[:_MAPS]:
            title = f"{stage.name}: {_name(classes, k + 1)}" if several else _name(classes, k + 1)
            tiles.append(_tile(pictures.heat(row.image_HWC, peak_HW), title, alt=f"{stage.name} of {_name(classes, k + 1)}"))
        if len(maps.classes) > _MAPS:
            tiles.append(_blank(photo, stage.name, f"and {len(maps.classes) - _MAPS} more tags"))
    for stage, label_HW in row.made:
        if label_HW is None:
            tiles.append(_blank(photo, stage.name))
        else:
            title = "prediction" if stage.kind == "evaluate" else stage.name
            alt = f"{title} with {', '.join(_name(classes, k) for k in _shares(label_HW) if k != IGNORE)}"
            several_models = sum(other.kind == "evaluate" for other, _ in row.made) > 1
            title = f"{title}, {stage.name}" if stage.kind == "evaluate" and several_models else title
            tiles.append(_tile(pictures.labels(label_HW), title, alt=alt, iou=image_iou(row.mask_HW, label_HW)))
    if row.mask_HW is not None:
        tiles.append(_tile(pictures.labels(row.mask_HW), "mask", alt="Mask drawn by a person"))
    head = tag("h4", row.image_id, tag("span", *_chips(row, classes), class_="chips"))
    return tag("article", head, tag("div", *tiles, class_="tiles"), class_="card")


def _chips(row: Row, classes: Sequence[str]) -> Iterator[Markup]:
    """The tags, then the labels that were found although they are none."""
    colors = pictures.palette()
    for k in row.tags:
        yield tag("span", swatch(colors[k + 1]), _name(classes, k + 1))
    shares: dict[int, float] = {}
    for _, label_HW in row.made:
        for k, share in _shares(label_HW).items() if label_HW is not None else ():
            shares[k] = max(share, shares.get(k, 0.0))
    extra = sorted(k for k, share in shares.items() if share >= _ALSO and k not in (0, IGNORE) and k - 1 not in row.tags)
    for k in extra:
        yield tag("span", swatch(colors[k]), f"{_name(classes, k)} (not a tag)", class_="also")


def _shares(label_HW: NDArray[np.uint8]) -> dict[int, float]:
    values, counts = np.unique(label_HW, return_counts=True)
    return {int(k): float(n) / label_HW.size for k, n in zip(values, counts, strict=True)}


def _tile(picture: pictures.Picture, title: str, *, alt: str, iou: float | None = None) -> Markup:
    image = tag("img", src=picture.uri, width=str(picture.width), height=str(picture.height), alt=alt)
    score = tag("b", number(iou)) if iou is not None else None
    return tag("figure", image, tag("figcaption", tag("span", title), score), style=f"width:{picture.width}px")


def _blank(like: pictures.Picture, title: str, text: str = "failed") -> Markup:
    style = f"width:{like.width}px;aspect-ratio:{like.width}/{like.height}"
    return tag("figure", tag("div", text, class_="blank", style=style), tag("figcaption", title), style=f"width:{like.width}px")


def _legend(classes: Sequence[str]) -> Markup:
    colors = pictures.palette(len(classes) + 1)
    items = [tag("li", swatch(color), name) for color, name in zip(colors, ("background", *classes), strict=True)]
    items.append(tag("li", tag("i", class_="swatch hatch", aria_hidden="true"), "undecided or not scored"))
    ramp = tag("i", class_="ramp", style=f"background:{pictures.heat_gradient()}", aria_hidden="true")
    items.append(tag("li", "localization map: 0 ", ramp, " 1"))
    note = "Numbers are the IoU of one image: the mean over the labels in mask or label map. Undecided pixels count as missed."
    return join([tag("ul", *items, class_="legend"), tag("p", note, class_="note")])


def _name(classes: Sequence[str], label: int) -> str:
    if label == 0:
        return "background"
    return classes[label - 1] if label <= len(classes) else f"label {label}"
