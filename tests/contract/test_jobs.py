"""One suite over every method and every job file."""

from __future__ import annotations

import gc
import json
import pickle
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from tests.local import job_of
from tests.shapes import Shapes, tiny_job
from tests.stage_ids import JOBS, KNOWN, ROOT, ids_of, ids_on_shapes, lacking, name_of, planned, validated_job
from wsss_ray.config.document import read_document
from wsss_ray.config.job import JobConfig, load_job, read_job, register
from wsss_ray.config.run import Execution
from wsss_ray.config.schema import job_schema
from wsss_ray.core.component import Component, canonical
from wsss_ray.core.contracts import Augment
from wsss_ray.core.graph import Plan, reseed, until
from wsss_ray.data.stages import stages_of
from wsss_ray.methods import methods
from wsss_ray.methods.rrm import DenseEnergy

SCHEMA = job_schema()

NAMES = sorted(methods())


def skip_without_packages(path):
    if missing := lacking(path):
        pytest.skip(f"needs {missing}")


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_a_job_file_is_valid_fits_the_schema_and_plans(path):
    skip_without_packages(path)
    jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA)
    jsonschema.validate(read_document(path).expanded(), SCHEMA)
    job = validated_job(path)
    again = JobConfig.model_validate(job.spec())
    assert again == job, "what validate prints is the same job"
    assert again.method.identity() == job.method.identity(), "and has the same stages"
    assert planned(job).targets


KNOWN_IDS = json.loads(KNOWN.read_text())


@pytest.mark.parametrize("name", sorted(KNOWN_IDS["jobs"]))
def test_the_stages_of_a_job_file_have_the_ids_of_yesterday(name):
    skip_without_packages(ROOT / f"{name}.yaml")
    assert ids_of(ROOT / f"{name}.yaml") == KNOWN_IDS["jobs"][name], "changed on purpose? python -m tests.stage_ids"


@pytest.mark.parametrize("name", sorted(KNOWN_IDS["methods"]))
def test_the_stages_of_a_method_on_listed_data_have_the_ids_of_yesterday(name):
    assert ids_on_shapes(name) == KNOWN_IDS["methods"][name], "changed on purpose? python -m tests.stage_ids"


def test_the_stages_of_the_demo_have_the_ids_of_yesterday():
    pytest.importorskip("sklearn")
    assert [f"{stage.id} {stage.name}" for stage in load_job(ROOT / "jobs" / "demo.yaml").plan()] == KNOWN_IDS["demo"]


@pytest.mark.parametrize("path", [path for path in JOBS if "\nsweep:" in path.read_text()], ids=name_of)
def test_every_trial_of_a_table_plans_and_is_another_one(path):
    skip_without_packages(path)
    trials = read_job(path).trials()
    assert bool(trials) != load_job(path).sweep.learns, "a search that learns has none before the start"
    if not trials:
        return
    finals = [planned(one.job).targets[-1].id for one in trials]
    assert len(set(finals)) == len(finals), [one.trial.name for one in trials]
    job = load_job(path)
    made = {stage.name for one in trials for stage in planned(one.job)}
    assert set(job.sweep.metrics) <= made, "the scores that the table shows are made"
    if path.parent.name == "tables":
        assert job.sweep.paper
        assert all(one.trial.published is None or 20 < one.trial.published < 80 for one in trials), "per cent"


def test_a_field_that_is_declared_again_keeps_its_limits():
    """pydantic takes the limits of the last declaration: -1 epochs would be one step."""
    register()
    kinds = (Gt, Ge, Lt, Le, MinLen, MaxLen)
    lost = [
        f"{part.__module__}.{part.__name__}.{name}: {limit}"
        for part in {one for several in Component.by_kind().values() for one in several}
        for name, field in part.model_fields.items()
        for parent in part.__mro__[1:]
        if name in getattr(parent, "model_fields", {}) and part.__module__.startswith("wsss_ray.")
        for limit in parent.model_fields[name].metadata
        if isinstance(limit, kinds) and limit not in field.metadata
    ]
    assert lost == []


ENERGIES = [path for path in JOBS if re.search(r"energy: \{|^ +energy:$", path.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("path", ENERGIES, ids=name_of)
def test_the_weight_of_the_dense_energy_is_that_of_the_crop(path):
    """It is a sum over pairs of pixels, 1e-7 for crops of 321: with a weight of smaller crops, all becomes background."""
    found = [part for part in validated_job(path).method.parts() if isinstance(getattr(part, "energy", None), DenseEnergy)]
    assert found
    for part in found:
        assert part.energy.weight == pytest.approx(1e-7 * (321 / part.augment.size) ** 4, rel=0.05)


def test_every_method_has_its_job_and_shows_in_the_list():
    shown = subprocess.run([sys.executable, "-m", "wsss_ray", "methods"], capture_output=True, text=True, check=True).stdout
    for name, line in zip(NAMES, shown.splitlines()[1:], strict=True):
        assert line.split()[0] == name
        assert read_document(ROOT / "jobs" / f"{name}.yaml").values["method"]["name"] == name
        assert f"jobs/{name}.yaml" in line
    assert "classifier x 2, maps x 6, seeds x 12, segmenter" in shown


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"rrm", "seeds"}))
def test_a_methods_defaults_are_those_of_its_job(name):
    """RRM's job starts from a classifier, as its authors advise; that of `seeds` has a file of weights and no saliency."""
    assert load_job(ROOT / "jobs" / f"{name}.yaml").method.spec() == methods()[name]().spec()


def test_the_job_of_rrm_has_its_defaults_but_for_the_classifier():
    ours, job = methods()["rrm"]().spec(), load_job(ROOT / "jobs" / "rrm.yaml").method.spec()
    assert job.pop("classifier") is not None
    assert ours.pop("classifier") is None
    assert job == ours


def plan_of(name, seed=0, **data):
    register()
    method = methods()[name]()
    return Plan.of(reseed(method.plan(stages_of(Shapes(saliency=True, **data))), seed)), method


@pytest.mark.parametrize("name", NAMES)
def test_a_method_plans_a_graph_that_ends_in_a_score(name):
    plan, method = plan_of(name)
    assert method.kind() == name
    assert plan.targets[-1].kind == "evaluate"
    seen = set()
    for stage in plan:
        assert all(source.id in seen for _, source in stage.inputs), "inputs come first"
        seen.add(stage.id)
    names = [stage.name for stage in plan]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NAMES)
def test_ids_depend_on_what_decides_numbers_and_nothing_else(name):
    ids = [stage.id for stage in plan_of(name)[0]]
    assert ids == [stage.id for stage in plan_of(name)[0]]
    other_seed = [stage.id for stage in plan_of(name, seed=1)[0]]
    assert sum(a != b for a, b in zip(ids, other_seed, strict=True)) >= sum(i.startswith("train") for i in ids)
    assert not set(ids) & {stage.id for stage in plan_of(name, train=25, held_out=9)[0]}


@pytest.mark.parametrize("name", NAMES)
def test_where_and_how_wide_it_runs_changes_no_id(name):
    job = {"name": "a", "method": {"name": name}, "data": {"kind": "shapes", "saliency": True}}
    if name == "ficklenet":
        job["method"]["classifier"] = {"epochs": 30}  # an integer as people write it
    run = {
        "store": "elsewhere",
        "workers": [2, 7],
        "cpus_per_worker": 3,
        "gpu": True,
        "micro_batch": 3,
        "loader_workers": 2,
        "label_workers": 4,
        "image_workers": [2, 9],
        "gpus_per_image_worker": 0.5,
        "in_flight": 4,
        "wait_s": 60,
        "image_batch": 3,
        "checkpoint_every": 5,
        "log_every": 1,
        "validate_every": 3,
        "validate_images": 4,
        "loggers": ["mlflow", "wandb"],
        "max_bad_fraction": 0.5,
        "max_failures": 0,
        "features": False,
    }
    ids = [stage.id for stage in job_of(job).plan()]
    assert ids == [stage.id for stage in job_of(job | {"name": "b", "run": run}).plan()]
    assert ids == [stage.id for stage in plan_of(name)[0]], "spelling out a default changes nothing"
    assert set(run) | {"seed", "precision", "inference"} == set(Execution.model_fields), "these decide numbers"
    assert ids != [stage.id for stage in job_of(job | {"run": {"seed": 1}}).plan()]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_a_value(name):
    method = methods()[name]()
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method) == hash(methods()[name]())
    canonical(method.identity())


def test_saliency_is_missed_before_anything_is_trained():
    job = tiny_job()
    job["method"]["seed_rule"] = {"theta": 0.3}
    with pytest.raises(ValueError, match=r"saliency maps\. Set data\.saliency .* cam_background"):
        job_of(job).plan()


def test_a_new_theta_changes_the_seeds_and_nothing_before():
    job = tiny_job()
    before = job_of(job).plan()
    job["method"]["seed_rule"]["theta"] = 0.2
    after = job_of(job).plan()
    same = {stage.name for stage in before} & {a.name for a, b in zip(before, after, strict=True) if a.id == b.id}
    assert same == {"images-weak", "classifier", "tag_quality", "maps", "images-val"}


@pytest.mark.parametrize(("kind", "last"), [("localize", "maps"), ("seed", "seed_quality"), ("train", "retrain")])
def test_until_cuts_the_plan(kind, last):
    stages = Plan.of(until(job_of(tiny_job()).plan().targets, kind)).stages
    assert stages[-1].name == last
    assert "miou" not in [stage.name for stage in stages]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("classifier.selection", ["general_dropout", "stochastic", "deterministic"]),
        ("localizer.selection", ["general_dropout", "stochastic", "deterministic"]),
        ("classifier.dropout_rate", [0.0, 0.3, 0.5, 0.7, 0.9]),
        ("localizer.selections", [1, 10, 200]),
    ],
)
def test_the_papers_ablations_are_yaml(field, values):
    """Tables 5 and 6, Figure 5b."""
    ids = set()
    for value in values:
        part, name = field.split(".")
        job = tiny_job()
        job["method"][part][name] = value
        ids.add(job_of(job).plan().targets[-1].id)
    assert len(ids) == len(values)


def test_two_components_of_one_name_are_refused():
    class Warp(Augment):
        def __call__(self, image_HWC, seeds_EHW, rng):
            return image_HWC, seeds_EHW

    try:
        with pytest.raises(ValueError, match=r"'warp', but 2 components are called warp: in .*test_jobs and .*transforms"):
            Augment.model_validate({"kind": "warp"})
        assert "random_crop" in Augment.kinds()
    finally:
        del Warp
        gc.collect()
    assert "warp" in Augment.kinds()
