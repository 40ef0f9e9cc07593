"""Build the report of a run: read its records, logs and a few shards, and write them into one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import yaml
from markupsafe import Markup

from wsss_ray.core.errors import DamagedFile, in_one_line
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.reporting.headings import FIGURES
from wsss_ray.reporting.report import pictures, sections
from wsss_ray.reporting.report.classes import classes
from wsss_ray.reporting.report.dial import threshold
from wsss_ray.reporting.report.embedded import rule_json
from wsss_ray.reporting.report.gallery import Gallery
from wsss_ray.reporting.report.logs import logs
from wsss_ray.reporting.report.markup import DASH, duration, number, whole
from wsss_ray.reporting.report.page import Figure, PageHeader, Section, job, page
from wsss_ray.reporting.report.refined import Refined, refined
from wsss_ray.reporting.report.sections import Facts
from wsss_ray.reporting.report.thresholds import Curve, Rule, curve
from wsss_ray.storage.store import RunStore

T = TypeVar("T")

_SCRIPTS = ("seeds.js", "canvas.js", "theta.js", "gallery.js", "viewer.js")


def build(store: RunStore, run: str, plan: Plan, job_yaml: str, *, gallery: int = 20, damage: list[str] | None = None) -> bytes:
    """Build the report of a run, finished or not. What cannot be read of a damaged store is left out, and named.

    Args:
        store: store of the run.
        run: name of the run.
        plan: stages of the run.
        job_yaml: text of the job file.
        gallery: number of images to show of each split.
        damage: gets a line for everything that is damaged.

    Returns:
        The page as UTF-8 HTML. The same store gives the same bytes.

    Example:
        >>> page = build(store, "demo", plan, job_yaml)  # doctest: +SKIP
    """
    facts, lines = Facts.read(store, plan), list[str]()

    def tried(part: Callable[[], T], otherwise: T) -> T:
        try:
            return part()
        except Exception as error:  # noqa: BLE001  a report is written of any store, and says what is damaged
            lines.append(str(error) if isinstance(error, DamagedFile) else in_one_line(error))
            return otherwise

    none = Section("", "", Markup())
    found = [(rule, tried(partial(_curve, store, rule), None)) for stage in plan if (rule := Rule.of(stage))]
    found = [(rule, curve) for rule, curve in found if rule.recipe or curve]
    rules, curves = [rule for rule, _ in found], [curve for _, curve in found]
    after = [tried(partial(_refined, store, rule, one), None) for rule, one in found]
    shown = Gallery(store, plan, rules, gallery)
    images = tried(shown.section, none)
    parts = [
        tried(lambda: sections.warnings(facts), none),
        sections.results(facts),
        sections.seed_quality(facts),
        threshold(rules, curves, after, [_stored(facts, rule) for rule in rules], embedded=bool(shown.images)),
        images,
        tried(lambda: classes(facts), none),
        tried(lambda: sections.training(facts), none),
        sections.stages(facts),
        tried(lambda: sections.errors(facts), none),
        tried(lambda: logs(store, plan, run), none),
        sections.environment(facts),
        job(job_yaml),
    ]
    parts.insert(0, sections.damage(facts, lines))
    if damage is not None:
        damage += dict.fromkeys([*facts.damage.values(), *lines])
    data = {
        "rules": [rule_json(rule, curve) for rule, curve in zip(rules, curves, strict=True)],
        "images": shown.images,
        "classes": facts.labels,
        "colors": pictures.label_colors().tolist() if shown.images else [],
        "hatch": pictures.HATCH,
    }
    method = method_name(job_yaml)
    ended = max((str(record.get("finished") or "") for record in facts.records.values()), default="")
    header = PageHeader(run, {"method": method} if method else {}, "last stage finished", ended, _figures(facts))
    return page(header, parts, _SCRIPTS, data)


def _curve(store: RunStore, rule: Rule) -> Curve | None:
    split = rule.stage.input("data").component
    return curve(store, rule, len(split.classes) + 1, split.num_images) if isinstance(split, DataSplit) else None


def _refined(store: RunStore, rule: Rule, before: Curve | None) -> Refined | None:
    split = rule.stage.input("data").component
    return refined(store, rule, before, len(split.classes) + 1) if isinstance(split, DataSplit) else None


def _stored(facts: Facts, rule: Rule) -> Mapping[str, float | None] | None:
    """Return the scores of a rule's stored seeds; None if they have none."""
    stage = next((s for s in facts.scores(seeds=True) if s.optional("seeds") == rule.stage and s.id in facts.records), None)
    return {name: facts.share(stage, name) for name in FIGURES} if stage else None


def method_name(job_yaml: str) -> str | None:
    """Return the name of the method in a job file, given as `method: NAME` or `method: {name: NAME}`; None if there is none."""
    try:
        job = yaml.safe_load(job_yaml)
    except yaml.YAMLError:
        return None
    method = job.get("method") if isinstance(job, dict) else None
    name = method.get("name") if isinstance(method, dict) else method
    return name if isinstance(name, str) else None


def _figures(facts: Facts) -> list[Figure]:
    """List the main figures: scores, progress, time and errors."""
    seconds = [record.get("seconds") or 0.0 for record in facts.records.values()]
    failed = sum(map(facts.errors, facts.plan))
    return [
        *_headline(facts, "mIoU of the model", facts.scores(seeds=False), best=False),
        *_headline(facts, "mIoU of the seeds", facts.scores(seeds=True), best=True),
        Figure("stages done", f"{len(seconds)} of {len(facts.plan.stages)}"),
        Figure("time of all stages", duration(sum(seconds)) if seconds else DASH),
        Figure("errors", whole(failed), href="#errors" if failed else None),
    ]


def _headline(facts: Facts, title: str, stages: list[Stage], *, best: bool) -> list[Figure]:
    """Show the best of several scores, or the last: the score of the final model comes last in a plan. Empty without scores."""
    values = [facts.share(stage, "miou") for stage in stages]
    if not best or len(stages) < 2:
        return [Figure(title, number(value)) for value in values[-1:]]
    return [Figure(f"{title}, best of {len(stages)}", number(max((v for v in values if v is not None), default=None)))]
