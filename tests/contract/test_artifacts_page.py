"""docs/artifacts.md: its tables are the schemas, and its code reads, without the package, what the package wrote."""

from __future__ import annotations

import ast
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.local import stage_named, whole_run
from tests.pages import ROOT, fenced
from tests.pictures import unpack
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.data.codecs import decode_gray, decode_maps
from wsss_ray.storage import schemas
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

PAGE = "docs/artifacts.md"
FIRST, *READERS, PREDICTED, NETWORKS = fenced(PAGE, "python")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with the run `photos` in `runs`: the store and the plan."""
    return whole_run(tmp_path_factory.mktemp("page") / "runs", tiny_job(name="photos"))


@pytest.fixture
def known(photos, monkeypatch):
    """What the first block of the page defines."""
    monkeypatch.chdir(f"{photos[0].uri}/..")
    return run({}, FIRST)


def run(known, block):
    imported = {name.name for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import) for name in node.names}
    assert not any(name.startswith("wsss_ray") for name in imported)
    exec(compile(block, PAGE, "exec"), known)
    return known


def rows(photos, name, schema):
    store, plan = photos
    return read_all(store, stage_named(plan, name), schema).to_pylist()


def test_every_stage_of_a_run_is_found(photos, known):
    _, plan = photos
    assert known["stage"] == {stage.name: known["store"] / "stages" / stage.id for stage in plan}
    assert known["classes"] == ["square", "disc", "bar"]


@pytest.mark.parametrize("block", READERS, ids=lambda block: re.search(r"import (\w+)", block)[1])
def test_seeds_maps_predictions_and_metrics_are_what_the_package_reads(photos, known, block):
    store, plan = photos
    found = run(known, block)
    first = rows(photos, "seeds", "seeds")[0]
    assert found["image_id"] == first["image_id"]
    assert np.array_equal(found["seed"], decode_gray(first["seed"]))
    assert len(np.unique(found["seed"])) > 1
    expected = decode_maps(rows(photos, "maps", "maps")[0]).peak_CHW
    assert found["peak"].shape == expected.shape
    assert np.array_equal(found["peak"], expected)
    assert np.array_equal(found["prediction"], decode_gray(rows(photos, "miou", "scores")[0]["prediction"]))
    record = store.record(stage_named(plan, "miou"))
    assert found["score"] == pytest.approx(record["metrics"]["miou"], abs=1e-12)
    lines = store.read(store.stage_path(stage_named(plan, "segmenter"), "metrics.jsonl")).splitlines()
    expected = [(line["step"], line["loss"]) for line in map(json.loads, lines)]
    loss = found["loss"]
    got = loss if isinstance(loss, list) else list(loss.items()) if hasattr(loss, "items") else loss.rows()
    assert len(expected) > 1
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_predictions_of_other_images(photos, known, tmp_path, capsys):
    store, plan = photos
    pictures = unpack(store, plan, tmp_path / "album")
    app(["predict", "photos", str(tmp_path / "album"), "--out", "labels", "--format", "parquet"], standalone_mode=False)
    known |= {"duckdb": __import__("duckdb")}
    shares = dict(run(known, PREDICTED)["found"])
    out = RunStore(f"{store.uri}/../labels")
    (shard,) = out.names(out.path("shards"))
    assert len(shares) == len(pictures)
    for row in pa.parquet.read_table(out.path("shards", shard)).to_pylist():
        label_HW = decode_gray(row["prediction"])
        assert shares[row["image_id"]] == pytest.approx((label_HW > 0).mean())


def test_networks(photos, known):
    found = run(known, NETWORKS)
    weights = found["checkpoint"]["net"]
    assert found["checkpoint"]["step"] == 6
    assert set(found["checkpoint"]) == {"step", "net", "optimizer", "labels"}
    assert weights.keys() == found["tensors"].keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in found["tensors"].items())
    assert {name.partition(".")[0] for name in weights} <= {"trunk", "head", "blocks"}


def test_the_tables_are_the_schemas():
    """Every column of every schema stands there with its type, and none that is not there."""
    names = {"string": "string", "binary": "binary", "int32": "int32", "int64": "int64"}
    names |= {"list<element: uint16>": "list of uint16", "fixed_size_list<element: double>[4]": "list of 4 float64"}
    names |= {"fixed_size_list<element: int32>[3]": "list of 3 int32"}
    names |= {"list<element: float>": "list of float32"}
    names |= {"list<element: uint32>": "list of uint32", "list<element: int64>": "list of int64"}
    expected = {
        (name, field.name): names[str(field.type).replace("item:", "element:")]
        for name, artifact in schemas.ARTIFACTS.items()
        for field in artifact.schema
        if field.name != "image_id"
    }
    found, schema = {}, ""
    for line in (ROOT / PAGE).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or cells[0] in ("file", "---"):
            continue
        schema = re.findall(r"`(\w+)`", cells[0])[0] if cells[0] else schema
        columns = re.findall(r"`(\w+)`", cells[1])
        kinds = cells[2].split(", ")
        kinds = kinds * len(columns) if len(kinds) == 1 else kinds
        found |= {(schema, column): kind for column, kind in zip(columns, kinds, strict=True)}
    assert found.pop(("images", "image_id")) == "string"
    assert found == expected


def test_records_have_the_fields_of_the_page(photos):
    store, plan = photos
    text = (ROOT / PAGE).read_text().split("**record.json**")[1].split("\n\n")[1]
    fields = {name for line in text.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    records = [store.record(stage) for stage in plan]
    assert set().union(*records) | {"execution"} == fields, "a training made by Ray says how"
    assert f"(now {schemas.VERSION})" in (ROOT / PAGE).read_text()
