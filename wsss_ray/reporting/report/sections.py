"""Most sections of the report: scores, trainings, stages, errors, logs, machines. Each is a function of what the store holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wsss_ray.core.plan import Plan, Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.reporting.report import charts
from wsss_ray.reporting.report.markup import DASH, is_finite, whole
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore

_ERRORS = 100
_LOGS = 60
MARKS = {"miou": "mIoU", "precision": "precision", "recall": "recall", "coverage": "coverage"}
"""Figures of seeds that are drawn, and their names."""


@dataclass(frozen=True)
class Facts:
    """A plan and the records of its stages that are done, by stage id."""

    store: RunStore
    plan: Plan
    records: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, store: RunStore, plan: Plan) -> Facts:
        """Read the records as they are now."""
        found = {stage.id: store.record(stage) for stage in plan}
        return cls(store, plan, {name: record for name, record in found.items() if record is not None})

    @property
    def labels(self) -> tuple[str, ...]:
        """Name the labels, background first; empty if the plan reads no data."""
        return next((("background", *s.component.classes) for s in self.plan if isinstance(s.component, DataSplit)), ())

    def part(self, stage: Stage, key: str) -> Mapping[str, Any]:
        """Return a mapping in a stage's record; empty where there is none."""
        value = self.records.get(stage.id, {}).get(key)
        return value if isinstance(value, Mapping) else {}

    def share(self, stage: Stage, key: str) -> float | None:
        """Return one of a score's figures; the mean over the labels where it has one for each."""
        value = self.part(stage, "metrics").get(key)
        known = [v for v in (value if isinstance(value, list) else [value]) if is_finite(v)]
        return sum(known) / len(known) if known else None

    def shares(self, stage: Stage, keys: Iterable[str]) -> list[float | None]:
        """Return several of a score's figures."""
        return [self.share(stage, key) for key in keys]

    def scores(self, *, seeds: bool | None = None) -> list[Stage]:
        """List the evaluate stages: of seeds, of models, or both."""
        return [s for s in self.plan if s.kind == "evaluate" and seeds in (None, s.optional("seeds") is not None)]

    def errors(self, stage: Stage) -> int:
        """Count the images on which the stage failed."""
        return int(self.part(stage, "counts").get("errors") or 0)


def results(facts: Facts) -> Section:
    """Show every score of the plan, models first."""
    return Section(
        "results", "Results", render("results.html", facts=facts, stages=facts.scores(seeds=False) + facts.scores(seeds=True))
    )


def seed_quality(facts: Facts) -> Section:
    """Draw every scored seed stage on one scale, so that rules and thresholds compare at a glance."""
    strips: list[tuple[str, Markup | None]] = []
    for stage in facts.scores(seeds=True):
        marks = list(zip(MARKS.values(), facts.shares(stage, MARKS), strict=True))
        strips.append((stage.name, charts.strip(marks) if stage.id in facts.records else None))
    keys = [charts.mark_key(i, name) for i, name in enumerate(MARKS.values())]
    return Section("seeds", "Seed quality", render("seeds.html", strips=strips, keys=keys))


def training(facts: Facts) -> Section:
    """Draw the loss of every train stage, also of one that still runs, and its quality where that was measured."""
    trainings = []
    for stage in facts.plan:
        if stage.kind == "train":
            path = facts.store.stage_path(stage, "metrics.jsonl")
            title = stage.name if stage.id in facts.records else f"{stage.name} (not finished)"
            log = charts.read_log(facts.store.read(path)) if facts.store.exists(path) else []
            trainings.append((title, [charts.losses(title, log), charts.quality(title, log)] if log else []))
    return Section("training", "Training", render("training.html", trainings=trainings))


def stages(facts: Facts) -> Section:
    """Show each stage: its state, its time, its work and its speed."""
    longest = max((record.get("seconds") or 0.0 for record in facts.records.values()), default=0.0)
    rows = []
    for stage in facts.plan:
        counts, done = facts.part(stage, "counts"), stage.id in facts.records
        unit = "steps" if "steps" in counts else "images"
        work, seconds = counts.get(unit), facts.records.get(stage.id, {}).get("seconds")
        files = {"record": "record.json"} if done else {}
        if facts.store.exists(facts.store.stage_path(stage, "metrics.jsonl")):
            files["steps"] = "metrics.jsonl"
        rows.append(
            {
                "stage": stage,
                "reads": ", ".join(dict.fromkeys(source.name for _, source in stage.inputs)),
                "done": done,
                "seconds": seconds,
                "share": (seconds / longest if is_finite(seconds) and longest else 0.0) if done else None,
                "work": f"{whole(work)} {unit}" if isinstance(work, int) else DASH,
                "pace": f"{_pace(work / seconds)} {unit}/s" if isinstance(work, int) and seconds else DASH,
                "errors": facts.errors(stage),
                "files": files,
            }
        )
    return Section("stages", "Stages", render("stages.html", rows=rows))


def logs(facts: Facts, run: str) -> Section:
    """Link the logs that lie beside the report."""
    names = [name for name in facts.store.names(facts.store.run_path(run, "logs")) if "\n" not in name]
    return Section("logs", "Logs", render("logs.html", names=names, most=_LOGS))


def errors(facts: Facts) -> Section:
    """Show the images that were left out, and why; the first hundred."""
    found: list[tuple[Stage, Mapping[str, Any]]] = []
    for stage in facts.plan:
        for shard in list_shards(facts.store, stage, "errors"):
            if len(found) >= _ERRORS:
                break
            found += [(stage, error) for error in read_shard(facts.store, stage, shard, "errors", folder="errors")]
    total = max(sum(map(facts.errors, facts.plan)), len(found))
    return Section("errors", "Errors", render("errors.html", errors=found[:_ERRORS], total=total))


def environment(facts: Facts) -> Section:
    """Show machines and versions from the records; stages that share them share a block."""
    machines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for stage in facts.plan:
        if record := facts.records.get(stage.id):
            where = {"git": record.get("git"), **facts.part(stage, "machine"), **facts.part(stage, "versions")}
            pairs = tuple((key, _in_words(value)) for key, value in where.items() if value is not None)
            machines.setdefault(pairs, []).append(stage.name)
    return Section("machine", "Machine and versions", render("machine.html", machines=machines))


def _in_words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _pace(value: float) -> str:
    """Write three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
