"""Write down the id of every stage of every job file: `python -m tests.stage_ids` rewrites `tests/contract/stage_ids.json`.

A store finds its artifacts by these ids, so a change of code must not change one by accident. After a change on purpose (a raised
`revision`, another default), run the command and commit what it changed, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.shapes import Shapes
from wsss_ray.config.document import read_document
from wsss_ray.config.job import JobConfig, load_job, read_job, register
from wsss_ray.core.component import digest
from wsss_ray.core.graph import Plan, reseed
from wsss_ray.core.plan import Data, Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.core.rules import SeedScore
from wsss_ray.data.stages import stages_of
from wsss_ray.methods import methods

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path for path in ROOT.glob("benchmarks/**/*.yaml") if path.stem != "common")
JOBS = [*sorted(ROOT.glob("jobs/**/*.yaml")), *BENCHMARKS]
KNOWN = ROOT / "tests" / "contract" / "stage_ids.json"
PACKAGES = {"kind: slic": "skimage", "kind: felzenszwalb": "skimage", "kind: sam,": "segment_anything"}


def name_of(path: Path) -> str:
    """The name of a job file in tests: its path from the repository's root, without its ending."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def lacking(path: Path) -> str | None:
    """The package of an extra that a job file needs and that is not installed here; its tests are skipped."""
    text = path.read_text()
    return next((name for part, name in PACKAGES.items() if part in text and find_spec(name) is None), None)


def validated_job(path: Path) -> JobConfig:
    """The job of a file in the repository; a file of weights that the user is to fill in is left out."""
    document = read_document(path).expanded()
    if path.stem == "seeds":
        document["method"]["classifier"]["weights"] = "none"
    register()
    return JobConfig.model_validate(document)


def planned(job: JobConfig) -> Plan:
    """The stages of a job on data that nobody has listed: with all splits that it names."""
    weak, val, strong, saliency = (
        Stage("ingest", name, SeedScore(), seed=place) for place, name in enumerate(("weak", "val", "strong", "saliency"))
    )
    listed = getattr(job.data, "strong", None)
    strong = replace(strong, seed=random_key(listed)) if listed else None
    data = Data(("object",), weak, val, strong, saliency, weak_has_masks=True)
    return Plan.of(reseed(job.method.plan(data), job.run.seed))


def ids_of(path: Path) -> dict[str, Any]:
    """The identity of a job file's data, and every distinct stage of the job and of its trials as `id name`, in order."""
    job = validated_job(path)
    trials = read_job(path).trials() if job.sweep is not None else ()
    plans = [planned(job), *(planned(one.job) for one in trials)]
    lines = [f"{stage.id} {stage.name}" for plan in plans for stage in plan if stage.component != SeedScore() or stage.inputs]
    return {"data": digest(job.data.identity())[:16], "stages": list(dict.fromkeys(lines))}


def ids_on_shapes(name: str) -> list[str]:
    """The stages of a method's defaults on the tests' own data set, its listed splits among them."""
    register()
    plan = Plan.of(reseed(methods()[name]().plan(stages_of(Shapes(saliency=True))), 0))
    return [f"{stage.id} {stage.name}" for stage in plan]


def current() -> dict[str, Any]:
    """All that the file holds, computed by the code as it is."""
    register()
    if missing := sorted({name for path in JOBS if (name := lacking(path))}):
        raise SystemExit(f"stage ids of some jobs need packages that are not installed: {', '.join(missing)}")
    return {
        "jobs": {name_of(path): ids_of(path) for path in JOBS},
        "methods": {name: ids_on_shapes(name) for name in sorted(methods())},
        "demo": [f"{stage.id} {stage.name}" for stage in load_job(ROOT / "jobs" / "demo.yaml").plan()],
    }


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(current(), indent=1) + "\n")
