"""The page: reads a run's records, logs and a few shards, and lays them out in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from wsss_ray.core.plan import Plan, Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.reporting.report import charts, pictures, sections
from wsss_ray.reporting.report.classes import classes
from wsss_ray.reporting.report.dial import threshold
from wsss_ray.reporting.report.embedded import rule_json
from wsss_ray.reporting.report.gallery import Gallery
from wsss_ray.reporting.report.markup import DASH, Markup, duration, join, number, section, tag, whole
from wsss_ray.reporting.report.page import render
from wsss_ray.reporting.report.sections import Facts
from wsss_ray.reporting.report.thresholds import FIGURES, Curve, Rule, curve
from wsss_ray.storage.store import RunStore

_NAVIGATION = {
    "results": "Results",
    "seeds": "Seeds",
    "threshold": "Threshold",
    "images": "Images",
    "classes": "Classes",
    "training": "Training",
    "stages": "Stages",
    "errors": "Errors",
    "logs": "Logs",
    "machine": "Machine",
    "job": "Job",
}
_SCRIPTS = ("seeds.js", "canvas.js", "theta.js", "gallery.js", "viewer.js")


def build(store: RunStore, run: str, plan: Plan, job_yaml: str, *, gallery: int = 20) -> bytes:
    """The report of a run as UTF-8 HTML, as far as the run has come. `gallery`: images shown of each split.

    The same store gives the same bytes. Raises ValueError on shards of another schema version.
    """
    facts = Facts.read(store, plan)
    found = [(rule, _curve(store, rule)) for stage in plan if (rule := Rule.of(stage))]
    found = [(rule, curve) for rule, curve in found if rule.recipe or curve]
    rules, curves = [rule for rule, _ in found], [curve for _, curve in found]
    shown = Gallery(store, plan, rules, gallery)
    images = shown.section()
    parts = {
        "results": sections.results(facts),
        "seeds": sections.seed_quality(facts),
        "threshold": threshold(rules, curves, [_stored(facts, rule) for rule in rules], embedded=bool(shown.images)),
        "images": images,
        "classes": classes(facts),
        "training": _training(facts),
        "stages": sections.stages(facts),
        "errors": sections.errors(facts),
        "logs": sections.logs(facts, run),
        "machine": sections.environment(facts),
        "job": section("job", "Job", tag("pre", tag("code", job_yaml), tabindex="0", role="region", aria_label="Job file")),
    }
    links = [tag("a", _NAVIGATION[name], href=f"#{name}") for name, part in parts.items() if part]
    data = {
        "rules": [rule_json(rule, curve) for rule, curve in zip(rules, curves, strict=True)],
        "images": shown.images,
        "classes": list(_classes(plan)),
        "colors": pictures.palette().tolist() if shown.images else [],
        "hatch": pictures.HATCH,
    }
    header = _header(facts, run, method_name(job_yaml))
    return render(title=run, header=header, links=links, body=join(parts.values()), scripts=_SCRIPTS, data=data)


def _classes(plan: Plan) -> Sequence[str]:
    """The names of the labels, background first."""
    return next((("background", *s.component.classes) for s in plan if isinstance(s.component, DataSplit)), ())


def _curve(store: RunStore, rule: Rule) -> Curve | None:
    split = rule.stage.input("data").component
    return curve(store, rule, len(split.classes) + 1, split.num_images) if isinstance(split, DataSplit) else None


def _stored(facts: Facts, rule: Rule) -> Mapping[str, float | None] | None:
    """The figures of a rule's seeds as they were scored, if they were."""
    stage = next((s for s in facts.scores(seeds=True) if s.optional("seeds") == rule.stage and s.id in facts.records), None)
    return {name: facts.share(stage, name) for name in FIGURES} if stage else None


def method_name(job_yaml: str) -> str | None:
    """The method that a job file names, as `method: ficklenet` or `method: {name: ficklenet}`."""
    try:
        job = yaml.safe_load(job_yaml)
    except yaml.YAMLError:
        return None
    method = job.get("method") if isinstance(job, dict) else None
    name = method.get("name") if isinstance(method, dict) else method
    return name if isinstance(name, str) else None


def _header(facts: Facts, run: str, method: str | None) -> Markup:
    """What one wants to know first: how good, how far, how long, and whether something went wrong."""
    records = [facts.records[stage.id] for stage in facts.plan if stage.id in facts.records]
    done, planned = len(records), len(facts.plan.stages)
    seconds = sum(record.get("seconds") or 0.0 for record in records)
    failed = sum(map(facts.errors, facts.plan))
    finished = max((str(record["finished"]) for record in records if record.get("finished")), default="")
    tiles = [
        _headline(facts, "mIoU of the model", facts.scores(seeds=False), best=False),
        _headline(facts, "mIoU of the seeds", facts.scores(seeds=True), best=True),
        _figure("stages done", f"{done} of {planned}"),
        _figure("time of all stages", duration(seconds) if records else DASH),
        _figure("errors", whole(failed), "#errors" if failed else None),
    ]
    about = [tag("span", "method ", tag("b", method)) if method else None]
    if finished:
        about.append(tag("span", "last stage finished ", tag("time", finished[:19].replace("T", " "), datetime=finished)))
    return join([tag("h1", run), tag("p", *about, class_="about"), tag("dl", *tiles, class_="figures")])


def _headline(facts: Facts, title: str, stages: list[Stage], *, best: bool) -> Markup | None:
    """The last of several scores, which a plan puts last on purpose, or the best of several equals."""
    values = [facts.share(stage, "miou") for stage in stages]
    known = [value for value in values if value is not None]
    if not best or len(stages) < 2:
        return _figure(title, number(values[-1])) if stages else None
    return _figure(f"{title}, best of {len(stages)}", number(max(known, default=None)))


def _figure(title: str, value: str, href: str | None = None) -> Markup:
    return tag("div", tag("dt", title), tag("dd", tag("a", value, href=href) if href else value))


def _training(facts: Facts) -> Markup | None:
    """The loss of every train stage, of one that still runs too, and its quality where that was measured."""
    figures: list[Markup | None] = []
    for stage in facts.plan:
        path = facts.store.stage_path(stage, "metrics.jsonl")
        if stage.kind != "train":
            continue
        title = stage.name if stage.id in facts.records else f"{stage.name} (not finished)"
        log = charts.read_log(facts.store.read(path)) if facts.store.exists(path) else []
        empty = tag("figure", tag("h3", title), tag("p", "No step is logged.", class_="note"), class_="chart")
        figures += [charts.losses(title, log), charts.quality(title, log)] if log else [empty]
    return section("training", "Training", tag("div", *figures, class_="charts")) if figures else None
