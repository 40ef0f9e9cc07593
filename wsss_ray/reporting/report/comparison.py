"""Build a page that shows runs side by side: their scores, the fields in which their jobs differ, and the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wsss_ray.data.palette import voc_palette
from wsss_ray.reporting.headings import FIGURES, stage_words
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.cards import GalleryImage, card
from wsss_ray.reporting.report.choice import choose
from wsss_ray.reporting.report.gallery import add_outputs, read_images
from wsss_ray.reporting.report.markup import number, shorten, whole
from wsss_ray.reporting.report.page import Figure, PageHeader, Section, page, render
from wsss_ray.storage.store import Identified, RunStore

_SCRIPTS = ("seeds.js", "canvas.js", "gallery.js", "viewer.js")
_BUDGET = 1_600_000  # characters of the cards of one split


@dataclass(frozen=True)
class MadeBy:
    """The last stage of a run that has label maps of a split.

    Attributes:
        id: id of the stage.
        kind: seed or evaluate.
        name: name of the stage.
        store: store of the run.
        data: ingest stage of its images.
    """

    id: str
    kind: str
    name: str
    store: RunStore
    data: Identified


@dataclass(frozen=True)
class ComparedSplit:
    """A split whose images are shown.

    Attributes:
        name: name of the split in words.
        classes: names of its classes.
        tagged: number of its images with each class.
        made: who made the label maps of each run; None for a run that has none.
    """

    name: str
    classes: Sequence[str]
    tagged: Sequence[int]
    made: Sequence[MadeBy | None]


@dataclass(frozen=True)
class ComparedRuns:
    """What a page shows of several runs. All sequences have one value for each run, None where it has none.

    Attributes:
        runs: names of the runs.
        scores: values of `FIGURES` by stage.
        classes: IoU by stage and class.
        fields: values by field, for the fields in which the jobs differ.
        splits: splits whose images are shown.
    """

    runs: Sequence[str]
    scores: Mapping[str, Sequence[Mapping[str, float | None] | None]]
    classes: Mapping[str, Mapping[str, Sequence[float | None]]]
    fields: Mapping[str, Sequence[Any]]
    splits: Sequence[ComparedSplit]


def build_comparison(found: ComparedRuns, *, gallery: int = 20) -> bytes:
    """Build the page.

    Args:
        found: the runs.
        gallery: number of images to show of each split.

    Returns:
        The page as UTF-8 HTML, which loads nothing. The same runs give the same bytes.

    Raises:
        DamagedFile: if a file of a store is damaged.

    Example:
        >>> html = build_comparison(found)  # doctest: +SKIP
    """
    shown = [part for split in found.splits if (part := _split(found.runs, split, gallery)) is not None]
    classes = next((("background", *split.classes) for split in found.splits), ())
    images = render(
        "images.html",
        splits=shown,
        labels=classes,
        colors=voc_palette()[: len(classes)].tolist(),
        heat=None,
        dial=False,
    )
    differing = {field: [shorten(str(value), 60) for value in values] for field, values in found.fields.items()}
    parts = [
        Section("results", "Scores", render("compare_scores.html", found=found, figures=FIGURES)),
        Section("jobs", "Differences of the jobs", render("compare_jobs.html", runs=found.runs, fields=differing)),
        Section("images", "Images", images),
        Section("classes", "IoU of each class", render("compare_classes.html", found=found)),
    ]
    header = PageHeader(", ".join(found.runs), {"runs": whole(len(found.runs))}, "", "", _figures(found))
    data = {"rules": [], "images": {}, "classes": classes, "colors": [], "hatch": pictures.HATCH}
    return page(header, parts, _SCRIPTS, data)


def _figures(found: ComparedRuns) -> list[Figure]:
    """List the mIoU of each run in the last score that any has: that of the final model."""
    if not found.scores:
        return []
    stage, several = list(found.scores.items())[-1]
    values = [score.get("miou") if score is not None else None for score in several]
    return [Figure(run, number(value), stage_words(stage)) for run, value in zip(found.runs, values, strict=True)]


def _split(runs: Sequence[str], split: ComparedSplit, gallery: int) -> dict[str, Any] | None:
    """Render the cards of a split: the images of the first run that has label maps of it, with those of every run."""
    first = next((one for one in split.made if one is not None), None)
    if first is None:
        return None
    same = [one for one in split.made if one is not None and one.data.id == first.data.id]
    scored = [one for one in same if one.kind == "evaluate" and one.store.uri == first.store.uri]
    chosen = choose(first.store, first.data, scored, gallery, split.tagged)
    rows = read_images(first.store, first.data, chosen.places)
    titles: dict[str, str] = {}
    for run, one in zip(runs, split.made, strict=True):
        if one in same and one is not None:
            titles[one.id] = f"{titles[one.id]}, {run}" if one.id in titles else run
    for one in {one.id: one for one in same}.values():
        titles[one.id] += ": prediction" if one.kind == "evaluate" else f": {stage_words(one.name)}"
        add_outputs(one.store, one, rows)
    for row in rows.values():
        row.titles |= titles
    ordered = sorted(rows.values(), key=GalleryImage.score)
    places = {image_id: place for place, image_id in enumerate(rows)}
    cards: list[Markup] = []
    left = _BUDGET
    for row in ordered:
        made = card(row, split.classes, f"{first.data.id}.{places[row.image_id]}", places[row.image_id])
        left -= len(made)
        if left < 0 and cards:
            break
        cards.append(made)
    about = f"{whole(len(cards))} images: {chosen.words}."
    without = [run for run, one in zip(runs, split.made, strict=True) if one is None]
    others = [run for run, one in zip(runs, split.made, strict=True) if one is not None and one not in same]
    about += f" No label maps yet: {', '.join(without)}." if without else ""
    about += f" Other data, so not shown: {', '.join(others)}." if others else ""
    return {"name": split.name, "about": about, "cards": cards, "few": len(same) < 2}
