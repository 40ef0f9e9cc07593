"""Write the README of an exported model: how to use it, its classes, training data, score and limits. No torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from wsss_ray.config.document import to_yaml
from wsss_ray.config.job import JobConfig
from wsss_ray.config.paths import local_paths
from wsss_ray.core.method import Method
from wsss_ray.data.source import Source
from wsss_ray.engine.records import versions
from wsss_ray.inference.attempts import job_of
from wsss_ray.inference.model_code import differs, steps_of
from wsss_ray.inference.trained import Trained
from wsss_ray.reporting.history import Attempt
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.finished import StageId
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.inference.exported_file import Written

_HIDDEN = "(a path)"


def write_card(store: RunStore, trained: Trained, written: Written, out: Path) -> None:
    """Write README.md.

    Args:
        store: store of the run.
        trained: the trained network.
        written: the exported file.
        out: folder of the exported file.

    Raises:
        ValueError: if a record was edited by hand.
        OSError: if the file cannot be written.
    """
    with replacing(out / "README.md") as file:
        file.write(card(store, trained, written).encode())


def card(store: RunStore, trained: Trained, written: Written) -> str:
    """Return the card as Markdown. It contains no paths of the job or the data."""
    record = store.record_by_id(trained.id)
    assert record is not None
    data_id = dict(record["inputs"])["data"]
    data = store.record_by_id(data_id)
    assert data is not None
    used = record.get("versions", {})
    packages = ("wsss-ray", "torch", "torchvision", "numpy", "pillow")
    return _template().render(
        trained=trained,
        written=written,
        labels=("background", *trained.classes),
        steps=steps_of(trained),
        differs=differs(trained, written),
        images=data["counts"]["images"],
        learnt=_learnt(Counter(role for role, _ in record["inputs"])),
        tags=_tags(store, data_id),
        metric=yaml.safe_dump(trained.metric.spec(), sort_keys=False, default_flow_style=True, width=1000).strip(),
        sizes=", ".join("x".join(map(str, size)) for size in written.sizes_compared),
        made_with=", ".join(f"{name} {used[name]}" for name in packages if name in used) or "unknown versions",
        commit=record.get("git"),
        now=versions(),
        job=job_without_paths(store, trained.attempt),
    )


def _template() -> Template:
    """Load `model_card.md.j2`. A name that is not given to it is an error."""
    found = Environment(
        loader=PackageLoader("wsss_ray.inference", "."), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    found.filters |= {"cell": _cell, "share": lambda value: "-" if value is None else f"{value:.3f}"}
    found.globals["zip"] = zip
    return found.get_template("model_card.md.j2")


def _learnt(roles: Counter[str]) -> list[str]:
    """Describe what the network learned from, by the roles of its inputs."""
    labels = [f"pseudo-labels that the job made ({roles['seeds']} per image)"] if roles["seeds"] else []
    return labels + (["human masks"] if roles["strong"] else []) or ["their tags"]


def _tags(store: RunStore, stage_id: str) -> Counter[int]:
    """Count the images of each tag. Empty if the images are no longer in the store."""
    try:
        found = read_all(store, StageId(stage_id), "images", columns=["tags"])["tags"]
    except (OSError, ValueError):
        return Counter()
    return Counter(tag for tags in found.to_pylist() for tag in tags)


def job_without_paths(store: RunStore, attempt: Attempt | None) -> str:
    """Return the job of an attempt as YAML without the local paths in it."""
    if attempt is None or attempt.job is None:
        return "# not in the store\n"
    job = job_of(store, attempt)
    try:
        hidden = [field for field, _ in local_paths(JobConfig.model_validate(job))]
    except ValueError:  # a plug-in is not installed here, so its paths are not known
        hidden = []
        for part, role in (("data", Source), ("method", Method)):
            job[part] = {role.tag: job.get(part, {}).get(role.tag)}
    job.get("run", {})["store"] = _HIDDEN
    for field in hidden:
        block: Any = job
        *path, last = field.split(".")
        for name in path:
            block = block[int(name) if isinstance(block, list) else name]
        block[int(last) if isinstance(block, list) else last] = _HIDDEN
    return to_yaml(job)


def _cell(text: str) -> str:
    """Escape a name for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
