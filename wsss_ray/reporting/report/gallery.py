"""Render the gallery: single images, what each stage made of them, and their human masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from wsss_ray.core.errors import REPAIR, DamagedFile
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data import codecs
from wsss_ray.data.palette import voc_palette
from wsss_ray.data.source import DataSplit
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.reporting.headings import stage_words
from wsss_ray.reporting.report import embedded, pictures, thresholds
from wsss_ray.reporting.report.cards import GalleryImage, Maker, card
from wsss_ray.reporting.report.choice import Place, choose
from wsss_ray.reporting.report.markup import whole
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.reporting.report.thresholds import Rule
from wsss_ray.storage.shards import read_rows, readable_shards, shard_path
from wsss_ray.storage.store import Identified, RunStore

_BUDGET = 2_200_000  # characters of all cards and maps together; more only for a gallery of many images
_IMAGE = 110_000  # characters of one card with its maps in a gallery of many images


class Gallery:
    """The gallery of every split that a stage of the plan reads as its data.

    `images` is what the script needs to draw seeds; `section` fills it.

    Args:
        store: store of the run.
        plan: plan of the run.
        rules: seed rules whose seeds the page can draw at other thresholds.
        count: number of images of each split, at most.

    Example:
        >>> gallery = Gallery(store, plan, rules=[], count=20)
        >>> gallery.section().title
        'Images'
    """

    def __init__(self, store: RunStore, plan: Plan, rules: Sequence[Rule], count: int) -> None:
        self.store, self.plan, self.rules, self.count = store, plan, rules, count
        self.images: dict[str, Any] = {}

    def section(self) -> Section:
        """Render the pictures, their legend and the controls."""
        used = {data.id for stage in self.plan if (data := stage.optional("data"))}
        splits = [(s, s.component) for s in self.plan if s.id in used and isinstance(s.component, DataSplit)]
        budget = max(_BUDGET, self.count * _IMAGE) // max(1, len(splits))
        parts = [part for data, split in splits if (part := self._split(data, split, budget))]
        labels = ("background", *splits[0][1].classes) if splits else ()
        body = render(
            "images.html",
            splits=parts,
            labels=labels,
            colors=voc_palette()[: len(labels)].tolist(),
            heat=pictures.heat_gradient(),
            dial=bool(self.images),
        )
        return Section("images", "Images", body)

    def _split(self, data: Stage, split: DataSplit, budget: int) -> dict[str, Any] | None:
        readers = [s for s in self.plan if s.optional("data") == data and s.kind in ("localize", "seed", "evaluate")]
        scored = [stage for stage in readers if stage.kind == "evaluate"]
        chosen = choose(self.store, data, scored, self.count, split.tagged or (1,) * len(split.classes))
        rows = read_images(self.store, data, chosen.places)
        if not rows:
            return None
        readers = [stage for stage in readers if stage.kind != "evaluate" or stage.optional("model")]
        absent = [stage_words(stage.name) for stage in readers if not add_outputs(self.store, stage, rows)]
        rules = [rule for rule in self.rules if rule.stage.input("data") == data and rule.recipe is not None]
        for stage in {s.id: s for reader in readers if (s := reader.optional("saliency"))}.values():
            _collect_saliency(self.store, stage, rows)
        places = {image_id: place for place, image_id in enumerate(rows)}
        cards: dict[str, Markup] = {}
        without = 0
        for row in sorted(rows.values(), key=lambda row: ((row.shard, row.place) not in chosen.needed, row.score())):
            key = f"{data.id}.{places[row.image_id]}"
            made = card(row, split.classes, key, places[row.image_id])
            budget -= len(made)
            if budget < 0 and cards:
                break
            cards[row.image_id] = made
            found = self._embed(row, rules)
            without += found is None and any(maps is not None and maps.classes for _, maps in row.maps)
            if found is not None:
                self.images[key] = found
                budget -= sum(len(part["peak"]) + len(part["mean"] or "") for part in found["maps"].values())
        about = f"{whole(len(cards))} of {whole(split.num_images)} images"
        about += ", lowest IoU first" if any(row.score() < math.inf for row in rows.values()) else ""
        about += "." if len(cards) == split.num_images else f": {chosen.words}."
        about += f" Not done yet: {', '.join(absent)}." if absent else ""
        if rules and without:
            about += f" The slider leaves out {whole(without)}, because their maps are too large or saliency is missing."
        few = all(not row.maps and len(row.made) < 2 for row in rows.values())
        ordered = [cards[row.image_id] for row in sorted(rows.values(), key=GalleryImage.score) if row.image_id in cards]
        return {"name": data.name, "about": about, "cards": ordered, "few": few}

    def _embed(self, row: GalleryImage, rules: Sequence[Rule]) -> dict[str, Any] | None:
        """Pack what the page needs to make the seeds of this image; None if no rule has maps for it."""
        width, height = pictures.small_size(*row.image_HWC.shape[:2])
        maps, cues = {stage.id: found for stage, found in row.maps}, {}
        packed = {}
        for rule in rules:
            source = rule.stage.input("maps").id
            found = maps.get(source)
            if found is None or not found.classes:
                continue
            recipes = [r.recipe for r in rules if r.stage.input("maps").id == source]
            fitting = embedded.maps_json(found, mean=any(recipe is not None and recipe.reads_mean for recipe in recipes))
            if fitting is None:
                continue
            saliency = rule.stage.optional("saliency")
            peak_CHW = resize_maps(found.peak_CHW, height, width, found.rows, found.columns)
            cue_HW = rule.cues(peak_CHW, row.saliency.get(saliency.id) if saliency else None)
            if cue_HW is not None:
                packed[source], cues[rule.stage.id] = fitting, embedded.runs(cue_HW)
        if not cues:
            return None
        mask = embedded.runs(pictures.shrink_labels(row.mask_HW)) if row.mask_HW is not None else None
        return {"width": width, "height": height, "mask": mask, "maps": packed, "cues": cues}


def read_images(store: RunStore, data: Identified, taken: Sequence[Place]) -> dict[str, GalleryImage]:
    """Read the images at these places, by id. No other rows are read."""
    rows: dict[str, GalleryImage] = {}
    for shard in sorted({shard for shard, _ in taken}):
        places = [place for other, place in taken if other == shard]
        found = read_rows(store, data, shard, "images", places, ["image_id", "tags", "image", "mask"])
        for place, given in zip(places, found, strict=True):
            mask_HW = codecs.decode_gray(given["mask"]) if given["mask"] is not None else None
            image_HWC = codecs.decode_rgb(given["image"])
            rows[given["image_id"]] = GalleryImage(given["image_id"], shard, place, tuple(given["tags"]), image_HWC, mask_HW)
    return rows


def add_outputs(store: RunStore, stage: Maker, rows: dict[str, GalleryImage]) -> bool:
    """Add the outputs of a stage to the images. Return False if it has none for any of them."""
    schema, column = {"localize": ("maps", "peak"), "seed": ("seeds", "seed"), "evaluate": ("scores", "prediction")}[stage.kind]
    columns = None if schema == "maps" else ["image_id", column]
    found = False
    for given, row in _aligned(store, stage, schema, columns, rows):
        found, data = True, given[column]
        if schema == "maps":
            row.maps.append((stage, codecs.decode_maps(given) if data is not None else None))
        else:
            row.made.append((stage, codecs.decode_gray(data) if data is not None else None))
    return found


def _collect_saliency(store: RunStore, stage: Stage, rows: dict[str, GalleryImage]) -> None:
    for given, row in _aligned(store, stage, "saliency", None, rows):
        row.saliency[stage.id] = thresholds.small_saliency(given["saliency"])


def _aligned(
    store: RunStore, stage: Identified, schema: str, columns: list[str] | None, rows: dict[str, GalleryImage]
) -> list[tuple[dict[str, Any], GalleryImage]]:
    """Pair the rows of a stage with the images. The shards of all stages are aligned, so the places are the same."""
    pairs = []
    for shard in sorted({row.shard for row in rows.values()} & set(readable_shards(store, stage))):
        here = [row for row in rows.values() if row.shard == shard]
        for given, row in zip(read_rows(store, stage, shard, schema, [row.place for row in here], columns), here, strict=True):
            if given["image_id"] != row.image_id:
                raise DamagedFile(f"{shard_path(store, stage, shard)}: holds other images than its data. {REPAIR}")
            pairs.append((given, row))
    return pairs
