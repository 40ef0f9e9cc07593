"""Render most sections of the report: scores, trainings, stages, errors and machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.engine import training_log
from wsss_ray.reporting.doubts import find_doubts
from wsss_ray.reporting.headings import FIGURES, stage_words
from wsss_ray.reporting.report import charts
from wsss_ray.reporting.report.markup import DASH, average, is_finite, significant, whole
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.storage.finished import LOG, Finished
from wsss_ray.storage.shards import read_shard, readable_shards
from wsss_ray.storage.store import RunStore

_ERRORS = 100


@dataclass(frozen=True)
class Facts:
    """The facts that the sections show.

    Attributes:
        store: store of the run.
        plan: plan of the run.
        records: records of the finished stages, by stage id.
        damage: why stages with a record are not done, in one line, by stage id.

    Example:
        >>> facts = Facts.read(store, plan)
        >>> [(stage.name, facts.share(stage, "miou")) for stage in facts.scores()]
        [('miou', 0.62)]
        >>> results(facts).title
        'Results'
    """

    store: RunStore
    plan: Plan
    records: Mapping[str, Mapping[str, Any]]
    damage: Mapping[str, str]

    @classmethod
    def read(cls, store: RunStore, plan: Plan) -> Facts:
        """Read the records that the store has now."""
        finished = Finished(store)
        finished.look_at(plan)
        states = {stage.id: finished.state(stage.id) for stage in plan}
        records = {name: state.record for name, state in states.items() if state.record is not None and state.is_done}
        return cls(store, plan, records, {name: state.problem for name, state in states.items() if state.problem is not None})

    @property
    def labels(self) -> tuple[str, ...]:
        """Name the labels, background first; empty if the plan reads no data."""
        return next((("background", *s.component.classes) for s in self.plan if isinstance(s.component, DataSplit)), ())

    def part(self, stage: Stage, key: str) -> Mapping[str, Any]:
        """Return a mapping of a stage's record; empty if there is none.

        Args:
            stage: the stage.
            key: name of the mapping in the record, such as "counts" or "metrics".
        """
        value = self.records.get(stage.id, {}).get(key)
        return value if isinstance(value, Mapping) else {}

    def share(self, stage: Stage, key: str) -> float | None:
        """Return one figure of a score; None if there is none.

        Args:
            stage: evaluate stage.
            key: name of the figure, such as "miou". If it has a value for each label, the mean is returned.
        """
        value = self.part(stage, "metrics").get(key)
        return average(value if isinstance(value, list) else [value])

    def shares(self, stage: Stage, keys: Iterable[str]) -> list[float | None]:
        """Return several figures of a score."""
        return [self.share(stage, key) for key in keys]

    def scores(self, *, seeds: bool | None = None) -> list[Stage]:
        """List the evaluate stages.

        Args:
            seeds: True lists those of seeds, False those of models; None lists all, models first.
        """
        if seeds is None:
            return self.scores(seeds=False) + self.scores(seeds=True)
        return [stage for stage in self.plan if stage.kind == "evaluate" and (stage.optional("seeds") is not None) == seeds]

    def errors(self, stage: Stage) -> int:
        """Count the images on which the stage failed."""
        return int(self.part(stage, "counts").get("errors") or 0)


def warnings(facts: Facts) -> Section:
    """Show what the scores and counts say to be wrong, with what to do. `submit` and `show` print the same."""
    found = find_doubts([(stage.name, facts.records[stage.id]) for stage in facts.plan if stage.id in facts.records])
    return Section("warnings", "Warnings", render("warnings.html", doubts=found))


def results(facts: Facts) -> Section:
    """Show every score of the plan, models first."""
    tags = [stage for stage in facts.plan if stage.kind == "classify"]
    body = render("results.html", facts=facts, stages=facts.scores(), tags=tags, classes=facts.labels[1:])
    return Section("results", "Results", body)


def seed_quality(facts: Facts) -> Section:
    """Draw the scores of all seeds on one scale, so that rules and thresholds can be compared at a glance."""
    strips: list[tuple[str, Markup | None]] = []
    for stage in facts.scores(seeds=True):
        marks = list(zip(FIGURES.values(), facts.shares(stage, FIGURES), strict=True))
        strips.append((stage_words(stage.name), charts.strip(marks) if stage.id in facts.records else None))
    keys = [charts.mark_key(i, name) for i, name in enumerate(FIGURES.values())]
    return Section("seeds", "Seed quality", render("seeds.html", strips=strips, keys=keys))


def training(facts: Facts) -> Section:
    """Draw the loss of every training, finished or not, and its mIoU on validation images if that was measured."""
    trainings = []
    for stage in facts.plan:
        if stage.kind == "train":
            title = stage_words(stage.name) + ("" if stage.id in facts.records else " (not finished)")
            log = training_log.read_log(facts.store, stage.id)
            trainings.append((title, [charts.losses(title, log), charts.quality(title, log)] if log else []))
    return Section("training", "Training", render("training.html", trainings=trainings))


def stages(facts: Facts) -> Section:
    """List each stage with its state, time, work and throughput."""
    longest = max((record.get("seconds") or 0.0 for record in facts.records.values()), default=0.0)
    rows = []
    for stage in facts.plan:
        counts, done = facts.part(stage, "counts"), stage.id in facts.records
        unit = "steps" if "steps" in counts else "images"
        work, seconds = counts.get(unit), facts.records.get(stage.id, {}).get("seconds")
        files = {"record": "record.json"} if done else {}
        if facts.store.exists(training_log.log_path(facts.store, stage.id)):
            files["steps"] = LOG
        rows.append(
            {
                "stage": stage,
                "reads": ", ".join(dict.fromkeys(source.name for _, source in stage.inputs)),
                "done": done,
                "damage": facts.damage.get(stage.id),
                "seconds": seconds,
                "share": (seconds / longest if is_finite(seconds) and longest else 0.0) if done else None,
                "work": f"{whole(work)} {unit}" if isinstance(work, int) else DASH,
                "without": facts.part(stage, "counts").get("without_mask"),
                "pace": f"{significant(work / seconds)} {unit}/s" if isinstance(work, int) and seconds else DASH,
                "errors": facts.errors(stage),
                "files": files,
            }
        )
    return Section("stages", "Stages", render("stages.html", rows=rows))


def damage(facts: Facts, others: Sequence[str]) -> Section:
    """List what is damaged in the store.

    Args:
        facts: facts of the run.
        others: what was found while the page was made, in one line each.
    """
    rows = [(stage_words(stage.name), facts.damage[stage.id]) for stage in facts.plan if stage.id in facts.damage]
    rows += [("", line) for line in dict.fromkeys(others)]
    return Section("damage", "Damage", render("damage.html", rows=rows))


def errors(facts: Facts) -> Section:
    """List the first hundred images that were left out, and why."""
    found: list[tuple[Stage, Mapping[str, Any]]] = []
    for stage in (stage for stage in facts.plan if stage.id not in facts.damage):
        for shard in readable_shards(facts.store, stage, "errors"):
            if len(found) >= _ERRORS:
                break
            found += [(stage, error) for error in read_shard(facts.store, stage, shard, "errors", folder="errors")]
    total = max(sum(map(facts.errors, facts.plan)), len(found))
    return Section("errors", "Errors", render("errors.html", errors=found[:_ERRORS], total=total))


def environment(facts: Facts) -> Section:
    """List machines and versions from the records. Stages with the same ones share a block."""
    machines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for stage in facts.plan:
        if record := facts.records.get(stage.id):
            where = {"git": record.get("git"), **facts.part(stage, "machine"), **facts.part(stage, "versions")}
            pairs = tuple((key, _one_line(value)) for key, value in where.items() if value is not None)
            machines.setdefault(pairs, []).append(stage_words(stage.name))
    return Section("machine", "Machine and versions", render("machine.html", machines=machines))


def _one_line(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
