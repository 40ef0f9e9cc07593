"""The tables of the report: scores, stages, errors, logs, and where it ran. Each is a function of what the store holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from wsss_ray.core.plan import Plan, Stage
from wsss_ray.reporting.report import charts
from wsss_ray.reporting.report.markup import DASH, Child, Markup, bar, duration, join, number, section, table, tag, whole
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore

_ERRORS = 100
_LOGS = 60
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


def stages(facts: Facts) -> Markup:
    """What the plan consists of, how far it is, how long it took and how fast it was."""
    longest = max((record.get("seconds") or 0.0 for record in facts.records.values()), default=0.0)

    def row(stage: Stage) -> list[Child]:
        counts, done = facts.part(stage, "counts"), stage.id in facts.records
        reads = ", ".join(dict.fromkeys(source.name for _, source in stage.inputs))
        work, unit = (counts.get("steps"), "steps") if "steps" in counts else (counts.get("images"), "images")
        seconds = facts.records.get(stage.id, {}).get("seconds")
        share = 100 * seconds / longest if isinstance(seconds, int | float) and longest else 0.0
        pace = f"{_pace(work / seconds)} {unit}/s" if isinstance(work, int) and seconds else DASH
        errors = facts.errors(stage)
        files = [tag("a", "record", href=f"../../stages/{stage.id}/record.json")] if done else []
        if facts.store.exists(facts.store.stage_path(stage, "metrics.jsonl")):
            files.append(tag("a", "steps", href=f"../../stages/{stage.id}/metrics.jsonl"))
        return [
            join([stage.name, tag("small", f"reads {reads}" if reads else None)]),
            join([stage.kind, tag("small", stage.component.kind())]),
            tag("span", "done", class_="state") if done else _missing(),
            tag("span", duration(seconds), class_="bar", style=f"--v:{share:.1f}%") if done else DASH,
            f"{whole(work)} {unit}" if done and isinstance(work, int) else DASH,
            pace if done else DASH,
            tag("a", whole(errors), href="#errors") if errors else ("0" if done else DASH),
            join([tag("code", stage.id), tag("small", join(files, ", "))]),
        ]

    head = ("stage", "kind", "state", "time", "work", "throughput", "errors", "id and files")
    return section("stages", "Stages", table("Stages", head, map(row, facts.plan), numeric=(3, 4, 5, 6)))


def logs(facts: Facts, run: str) -> Markup | None:
    """The logs that lie beside the report."""
    names = [name for name in facts.store.names(facts.store.run_path(run, "logs")) if "\n" not in name]
    if not names:
        return None
    items = [tag("li", tag("a", name, href=f"logs/{quote(name)}")) for name in names[:_LOGS]]
    more = tag("p", f"The first {_LOGS} of {whole(len(names))}.", class_="note") if len(names) > _LOGS else None
    note = tag("p", "Beside this file in the store, in the folder logs.", class_="note")
    return section("logs", "Logs", note, tag("ul", *items, class_="files"), more)


def errors(facts: Facts) -> Markup | None:
    """The images that were left out, and why; the first hundred."""
    total, rows = sum(map(facts.errors, facts.plan)), list[list[Child]]()
    for stage in facts.plan:
        for shard in list_shards(facts.store, stage, "errors"):
            if len(rows) >= _ERRORS:
                break
            for error in read_shard(facts.store, stage, shard, "errors", folder="errors"):
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


def _pace(value: float) -> str:
    """Three digits that matter, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _missing() -> Markup:
    return tag("span", "missing", class_="state missing")
