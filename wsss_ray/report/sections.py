"""The tables of the report: scores, classes, stages, errors, and where it ran. Each is a function of what the store holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_ray.data.source import DataSplit
from wsss_ray.ops.confusion import scores
from wsss_ray.plan import Plan, Stage
from wsss_ray.report import charts, pictures
from wsss_ray.report.markup import DASH, Child, Markup, bar, duration, join, number, section, swatch, table, tag, whole
from wsss_ray.store import RunStore

_ERRORS = 100
_MARKS = (("mIoU", "miou"), ("precision", "precision"), ("recall", "recall"), ("coverage", "coverage"))


@dataclass(frozen=True)
class Facts:
    """A plan and the records of its stages that are done, by stage id."""

    store: RunStore
    plan: Plan
    records: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, store: RunStore, plan: Plan) -> Facts:
        """The records as they are now."""
        found = {stage.id: store.record(stage) for stage in plan}
        return cls(store, plan, {name: record for name, record in found.items() if record is not None})

    def part(self, stage: Stage, key: str) -> Mapping[str, Any]:
        """A mapping in a stage's record; empty where there is none."""
        value = self.records.get(stage.id, {}).get(key)
        return value if isinstance(value, Mapping) else {}

    def share(self, stage: Stage, key: str) -> float | None:
        """One of a score's figures; the mean over the labels where it has one for each."""
        value = self.part(stage, "metrics").get(key)
        known = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int | float) and math.isfinite(v)]
        return sum(known) / len(known) if known else None

    def scores(self, *, seeds: bool | None = None) -> list[Stage]:
        """The evaluate stages; of seeds, of models, or both."""
        return [s for s in self.plan if s.kind == "evaluate" and seeds in (None, s.optional("seeds") is not None)]

    def errors(self, stage: Stage) -> int:
        """Images on which the stage failed."""
        return int(self.part(stage, "counts").get("errors") or 0)


def results(facts: Facts) -> Markup:
    """Every score of the plan, models first."""
    stages = facts.scores(seeds=False) + facts.scores(seeds=True)
    if not stages:
        return section("results", "Results", tag("p", "This plan scores nothing.", class_="note"))

    def row(stage: Stage) -> list[Child]:
        scored = (stage.optional("seeds") or stage.optional("model") or stage).name
        name = join([stage.name, tag("small", f"{'seeds' if stage.optional('seeds') else 'model'}: {scored}")])
        if stage.id not in facts.records:
            return [name, DASH, _missing(), DASH, DASH, DASH, DASH]
        shares = [number(facts.share(stage, key)) for key in ("precision", "recall", "coverage", "accuracy")]
        return [name, whole(facts.part(stage, "metrics").get("scored")), bar(facts.share(stage, "miou")), *shares]

    head = ("score", "images", "mIoU", "precision", "recall", "coverage", "pixel accuracy")
    return section("results", "Results", table("Scores", head, map(row, stages), numeric=range(1, 7)))


def seed_quality(facts: Facts) -> Markup | None:
    """Every scored seed stage on one scale, so that rules and thresholds compare at a glance."""
    stages = facts.scores(seeds=True)
    if not stages:
        return None
    rows = []
    for stage in stages:
        marks = [(name, facts.share(stage, key)) for name, key in _MARKS]
        drawn = charts.strip(marks) if stage.id in facts.records else _missing()
        rows.append(tag("div", tag("span", stage.name), tag("div", drawn), class_="strip-row"))
    keys = tag("ul", *(charts.mark_key(i, name) for i, (name, _) in enumerate(_MARKS)), class_="keys")
    ends = tag("div", *(tag("span", text) for text in ("0", "0.5", "1")), class_="scale")
    scale = tag("div", tag("span"), ends, class_="strip-row", aria_hidden="true")
    return section("seeds", "Seed quality", keys, tag("div", *rows, scale, class_="strips"))


def classes(facts: Facts) -> Markup | None:
    """The IoU of each class in every score; precision, recall and confusions of each score below, folded."""
    stages = facts.scores(seeds=False) + facts.scores(seeds=True)
    names = next((("background", *s.component.classes) for s in facts.plan if isinstance(s.component, DataSplit)), None)
    if not stages or names is None:
        return None
    ious = [facts.part(stage, "metrics").get("iou") or [] for stage in stages]
    colors = pictures.palette(len(names))
    rows: list[list[Child]] = []
    for k, name in enumerate(names):
        rows.append([_label(colors[k], name), *(bar(iou[k] if k < len(iou) else None) for iou in ious)])
    rows.append(["mean", *(bar(facts.share(stage, "miou")) for stage in stages)])
    head = ["class", *(f"{s.name} (missing)" if s.id not in facts.records else s.name for s in stages)]
    folded = [_confusions(stage, names, facts.part(stage, "metrics").get("confusion")) for stage in stages]
    body = table("IoU of each class", head, rows, numeric=range(1, len(head)))
    return section("classes", "IoU of each class", tag("div", body, class_="sum"), *folded)


def _confusions(stage: Stage, names: Sequence[str], confusion: Sequence[Sequence[int]] | None) -> Markup | None:
    """Of every label the share of pixels, precision, recall, and what the largest part of what was missed was taken for."""
    matrix = np.array(confusion or [], dtype=np.int64)
    if matrix.shape != (len(names), len(names) + 1):
        return None
    figures, colors = scores(matrix), pictures.palette(len(names))
    pixels = matrix.sum(axis=1)
    given = (*names, "undecided")
    rows: list[list[Child]] = []
    for k, missed in enumerate(matrix):
        missed[k] = 0
        worst = int(missed.argmax())
        taken = f"{given[worst]} ({number(missed[worst] / pixels[k])})" if missed[worst] else DASH
        ratios = (pixels[k] / max(1, pixels.sum()), figures.precision[k], figures.recall[k])
        rows.append([_label(colors[k], names[k]), *map(number, ratios), taken])
    head = ("class", "share of pixels", "precision", "recall", "most often taken for (share of the class)")
    body = table(f"Confusions of {stage.name}", head, rows, numeric=(1, 2, 3))
    return tag("details", tag("summary", f"Precision, recall and confusions of {stage.name}"), body)


def stages(facts: Facts) -> Markup:
    """What the plan consists of and how far it is."""

    def row(stage: Stage) -> list[Child]:
        counts, done = facts.part(stage, "counts"), stage.id in facts.records
        reads = ", ".join(dict.fromkeys(source.name for _, source in stage.inputs))
        count = f"{whole(counts['steps'])} steps" if "steps" in counts else f"{whole(counts.get('images'))} images"
        errors = facts.errors(stage)
        return [
            join([stage.name, tag("small", f"reads {reads}" if reads else None)]),
            join([stage.kind, tag("small", stage.component.kind())]),
            tag("span", "done", class_="state") if done else _missing(),
            duration(facts.records[stage.id].get("seconds")) if done else DASH,
            count if done and ("steps" in counts or "images" in counts) else DASH,
            tag("a", whole(errors), href="#errors") if errors else ("0" if done else DASH),
            tag("code", stage.id),
        ]

    head = ("stage", "kind", "state", "time", "work", "errors", "id")
    return section("stages", "Stages", table("Stages", head, map(row, facts.plan), numeric=(3, 4, 5)))


def errors(facts: Facts) -> Markup | None:
    """The images that were left out, and why; the first hundred."""
    total, rows = sum(map(facts.errors, facts.plan)), list[list[Child]]()
    for stage in facts.plan:
        for shard in facts.store.shards(stage, "errors"):
            if len(rows) >= _ERRORS:
                break
            for error in facts.store.read_shard(stage, shard, "errors", folder="errors"):
                where = tag("small", error["path"]) if error["path"] else None
                rows.append([join([error["image_id"], where]), stage.name, error["reason"]])
    if not rows:
        return None
    rows, total = rows[:_ERRORS], max(total, len(rows))
    note = tag("p", f"The first {_ERRORS} of {whole(total)}.", class_="note") if total > len(rows) else None
    return section("errors", "Errors", note, table("Errors", ("image", "stage", "reason"), rows))


def environment(facts: Facts) -> Markup | None:
    """Machines and versions from the records; stages that share them share a block."""
    groups: dict[str, list[str]] = {}
    for stage in facts.plan:
        if record := facts.records.get(stage.id):
            where = {"git": record.get("git"), **facts.part(stage, "machine"), **facts.part(stage, "versions")}
            groups.setdefault(json.dumps(where, default=str), []).append(stage.name)
    if not groups:
        return None
    blocks = []
    for where_json, names in groups.items():
        pairs = [
            tag("div", tag("dt", key), tag("dd", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
            for key, value in json.loads(where_json).items()
            if value is not None
        ]
        whose = "All finished stages" if len(groups) == 1 else ", ".join(names)
        blocks.append(join([tag("h3", whose), tag("dl", *pairs)]))
    return section("machine", "Machine and versions", *blocks)


def _label(color: Sequence[int], name: str) -> Markup:
    return join([swatch(color), name])


def _missing() -> Markup:
    return tag("span", "missing", class_="state missing")
