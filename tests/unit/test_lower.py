"""The fields that a check names when memory runs out: they exist, and `--set` takes them."""

from __future__ import annotations

import json
import re
from functools import reduce

import pytest
import yaml

import tests.shapes  # noqa: F401 - a data source of the jobs
from tests.local import job_of, stage_named
from wsss_ray.config.document import parse_document
from wsss_ray.config.job import validated
from wsss_ray.engine.shard_worker import needs_model
from wsss_ray.methods import methods
from wsss_ray.preflight.lower import field_path, what_to_lower

FIELD = re.compile(r"\b(?:method|data|run)(?:\.\w+)+")


def default_job(name, **fields):
    """A job with the method as it stands by default."""
    data = {"kind": "shapes", "size": 32, "saliency": True, "max_side": 64}
    return job_of({"name": "default", "method": {"name": name}, "data": data, "run": fields})


def value_at(spec, path):
    return reduce(lambda block, key: block[int(key) if isinstance(block, list) else key], path.split("."), spec)


@pytest.mark.parametrize("run", [{}, {"precision": "bfloat16"}])
@pytest.mark.parametrize("name", sorted(methods()))
def test_set_takes_every_field_that_is_named(name, run):
    job = default_job(name, **run)
    spec = job.spec()
    document = parse_document(yaml.safe_dump(spec).encode(), "job.yaml")
    for stage in job.plan():
        if stage.kind == "classify":
            continue  # one image at a time, and less than its training needs
        if stage.kind == "train" or needs_model(stage):
            path = field_path(job, stage.component)
            assert path is not None, stage.name
            assert value_at(spec, path)["kind"] == stage.component.kind()
        fields = FIELD.findall(what_to_lower(job, stage, at_a_time=2))
        assert fields, stage.name
        for field in fields:
            changed = document.with_override(f"{field}={json.dumps(value_at(spec, field))}")
            assert validated(changed) == job


def test_fields_of_each_kind_of_stage():
    job = default_job("multi_estimations")
    plan = job.plan()
    names = ("classifier-2", "maps-1.2", "seeds-1.2.1")
    named = {name: what_to_lower(job, stage_named(plan, name), at_a_time=8) for name in names}
    assert named == {
        "classifier-2": "run.micro_batch, or method.classifiers.1.augment.size (now 321)",
        "maps-1.2": "data.max_side (now 64), method.localizers.1.size, or method.localizers.1.scales",
        "seeds-1.2.1": "data.max_side (now 64)",
    }
    assert what_to_lower(job, stage_named(plan, "classifier-2")) == "method.classifiers.1.augment.size (now 321)"
    job = default_job("dsrg")
    assert what_to_lower(job, stage_named(job.plan(), "relabel")) == "data.max_side (now 64), or method.relabel.sizes"


def test_of_equal_components_the_one_in_the_stage_is_named():
    method = {"name": "dsrg", "segmenter": {"kind": "dsrg_segmenter"}, "retrain": {"kind": "dsrg_segmenter"}}
    job = job_of({"name": "twins", "method": method, "data": {"kind": "shapes", "saliency": True}})
    assert job.method.segmenter == job.method.retrain
    assert field_path(job, stage_named(job.plan(), "retrain").component) == "method.retrain"
