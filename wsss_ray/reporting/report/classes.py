"""The figures of each class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.ops.confusion import scores
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.markup import DASH, Child, Markup, bar, join, number, section, swatch, table, tag, whole
from wsss_ray.reporting.report.sections import Facts
from wsss_ray.storage.shards import list_shards, open_shard

_LABELS = 32  # of a matrix, at most: those that are mistaken most
_SHARDS = 1000  # of scores that images are counted in, at most: 100,000 images take a second
_READERS = 8


def classes(facts: Facts) -> Markup | None:
    """The IoU of each class in every score; precision, recall and confusions of each score below, folded."""
    stages = facts.scores(seeds=False) + facts.scores(seeds=True)
    names = next((("background", *s.component.classes) for s in facts.plan if isinstance(s.component, DataSplit)), None)
    if not stages or names is None:
        return None
    ious = [facts.part(stage, "metrics").get("iou") or [] for stage in stages]
    counted = {data.id: data for stage in stages if (data := stage.optional("data")) and stage.id in facts.records}
    counts = [(data, _images(facts, [s for s in stages if s.optional("data") == data], len(names))) for data in counted.values()]
    known = [(data.name, count) for data, count in counts if count is not None]
    colors = pictures.palette(len(names))
    rows: list[list[Child]] = []
    for k, name in enumerate(names):
        having = [whole(int(count[k])) for _, count in known]
        rows.append([_label(colors[k], name), *(bar(iou[k] if k < len(iou) else None) for iou in ious), *having])
    rows.append(["mean", *(bar(facts.share(stage, "miou")) for stage in stages), *("" for _ in known)])
    head = ["class", *(f"{s.name} (missing)" if s.id not in facts.records else s.name for s in stages)]
    head += [f"masks of {name} with it" for name, _ in known]
    note = tag("p", "The last columns count the images whose mask has the class.", class_="note") if known else None
    folded = [_confusions(stage, names, facts.part(stage, "metrics").get("confusion")) for stage in stages]
    body = table("IoU of each class", head, rows, numeric=range(1, len(head)))
    return section("classes", "IoU of each class", note, tag("div", body, class_="sum"), *folded)


def _images(facts: Facts, stages: Sequence[Stage], labels: int) -> NDArray[np.int64] | None:
    """In how many masks each label is, from the scores of one of the stages; None in a run too large to look through."""
    stage = next((s for s in stages if s.id in facts.records), None)
    shards = list_shards(facts.store, stage) if stage is not None else []
    if stage is None or not 0 < len(shards) <= _SHARDS:
        return None
    made = stage

    def count(shard: int) -> NDArray[np.int64]:
        file = open_shard(facts.store, made, shard, "scores")
        try:
            cells = file.read(columns=["cells"])["cells"].to_pylist()  # to_numpy would import pandas
        finally:
            file.close()
        there = [np.unique(np.asarray(row, np.int64) // (labels + 1)) for row in cells if row]
        return np.bincount(np.concatenate([np.empty(0, np.int64), *there]), minlength=labels).astype(np.int64)

    with ThreadPoolExecutor(_READERS) as pool:
        return np.asarray(sum(pool.map(count, shards)), np.int64)


def _confusions(stage: Stage, names: Sequence[str], confusion: Sequence[Sequence[int]] | None) -> Markup | None:
    """Of every label the share of pixels, precision and recall; the matrix."""
    matrix = np.array(confusion or [], dtype=np.int64)
    if matrix.shape != (len(names), len(names) + 1):
        return None
    figures, colors = scores(matrix), pictures.palette(len(names))
    pixels = matrix.sum(axis=1)
    missed = matrix.copy()
    np.fill_diagonal(missed, 0)
    given = (*names, "undecided")
    rows: list[list[Child]] = []
    for k, line in enumerate(missed):
        worst = int(line.argmax())
        taken = f"{given[worst]} ({number(line[worst] / pixels[k])})" if line[worst] else DASH
        ratios = (pixels[k] / max(1, pixels.sum()), figures.precision[k], figures.recall[k])
        rows.append([_label(colors[k], names[k]), *map(number, ratios), taken])
    head = ("class", "share of pixels", "precision", "recall", "most often taken for (share of the class)")
    body = table(f"Precision and recall of {stage.name}", head, rows, numeric=(1, 2, 3))
    summary = tag("summary", f"Precision, recall and confusions of {stage.name}")
    return tag("details", summary, _matrix(stage, matrix, names), body)


def _matrix(stage: Stage, matrix: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """What share of the pixels of each class (rows) was given each label (columns), in per cent."""
    missed = matrix.sum(axis=1) - np.diagonal(matrix)
    shown = sorted(np.argsort(-missed, kind="stable")[:_LABELS].tolist())
    colors = pictures.palette(len(names))
    columns = [(k, names[k], swatch(colors[k])) for k in shown]
    columns.append((len(names), "undecided", tag("i", class_="swatch hatch", aria_hidden="true")))
    head = [tag("td", tag("small", "true"))]
    head += [tag("th", tag("span", name, mark), scope="col", class_="up") for _, name, mark in columns]
    body = []
    for k in shown:
        total = max(1, int(matrix[k].sum()))
        cells = [_cell(int(matrix[k, other]) / total, own=k == other) for other, _, _ in columns]
        body.append(tag("tr", tag("th", _label(colors[k], names[k]), scope="row"), *cells))
    some = f"; the {_LABELS} labels that miss most pixels" if len(shown) < len(names) else ""
    caption = tag("caption", f"Per cent of each class's pixels (row) to which {stage.name} gives a label (column){some}.")
    listed = tag("table", caption, tag("thead", tag("tr", *head)), tag("tbody", *body), class_="matrix")
    return tag("div", listed, class_="scroll", tabindex="0", role="region", aria_label=f"Confusions of {stage.name}")


def _cell(share: float, *, own: bool) -> Markup:
    text = f"{100 * share:.0f}" if share >= 0.005 else ""
    return tag("td", text, class_="own" if own else None, style=f"--v:{100 * share:.0f}%" if text else None)


def _label(color: Sequence[int], name: str) -> Markup:
    return join([swatch(color), name])


