"""The table of a sweep's trials: exact round trips, columns for other readers, and the order of the trials."""

from __future__ import annotations

import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trial_rows import rows_of
from wsss_ray.storage.trials import TrialRow, ranking, to_table

LR, THETA, KIND, AUGMENT = "method.segmenter.lr", "method.seed_rule.theta", "method.seed_rule.kind", "method.segmenter.augment"


def row(name: str = "a", score: float | None = 0.5, **fields: object) -> TrialRow:
    given: dict = {
        "name": name, "run": f"sweep.{name}.{fields.get('seed', 0)}", "seed": 0, "method": "ficklenet", "parameters": {},
        "state": "done", "metrics": {} if score is None else {"miou": score}, "stages": ["s"], "seconds": 60.0,
    }  # fmt: skip
    return TrialRow(**given | fields)


def search(count: int) -> list[TrialRow]:
    """Two methods, one of which has a parameter of its own; every seventh trial ended early, every ninth failed."""
    rng, rows = random.Random(0), []
    for i in range(count):
        method = "ficklenet" if i % 3 else "rrm"
        given = {LR: 10 ** rng.uniform(-4, -1), THETA: rng.uniform(0.1, 0.6), KIND: rng.choice(["threshold", "growing"])}
        if method == "rrm":
            given[AUGMENT] = {"kind": "crop", "size": rng.choice([321, 513])}
        state = "failed" if i % 9 == 8 else "stopped" if i % 7 == 6 else "done"
        score = None if state == "failed" else rng.uniform(0.4, 0.6)
        error = "out of memory; lower batch_size" if state == "failed" else None
        more = {"error": error, "stages": ["shared", f"own {i}"], "progress": 0.25 if state == "stopped" else None}
        rows.append(row(f"trial {i:03d}", score, method=method, parameters=given, state=state, **more))
    return rows


def test_the_table_gives_back_the_rows(tmp_path) -> None:
    rows = [
        row("a", 0.1 + 0.2, parameters={"x": 1, "y": 2**60, "flag": True, "mixed": 1, "block": {"b": [1, 2.5], "a": None}}),
        row("b", None, parameters={"x": 0.1, "mixed": "1", "flag": False, "off": None}, metrics={"é": 1.0}, seed=7),
        row("c", state="failed", error="<b>'x'</b>", progress=0.3, published=61.4, started="2025-03-01T10:00:00", stages=[]),
    ]
    pq.write_table(to_table(rows), tmp_path / "t.parquet")
    found = pq.read_table(tmp_path / "t.parquet")
    assert rows_of(found) == rows
    assert [type(value) for value in rows_of(found)[0].parameters.values()] == [dict, bool, int, int, int]
    kinds = {field.name: field.type for field in found.schema if field.name.startswith(("parameter.", "metric."))}
    texts = dict.fromkeys(["parameter.block", "parameter.mixed", "parameter.off"], pa.string())
    numbers = dict.fromkeys(["parameter.x", "parameter.y", "metric.miou", "metric.é"], pa.float64())
    assert kinds == {**texts, **numbers, "parameter.flag": pa.bool_()}
    assert found["parameter.block"].to_pylist() == ['{"a":null,"b":[1,2.5]}', None, None]
    assert json.loads(found["config"][1].as_py()) == rows[1].parameters
    assert rows_of(to_table([])) == []


def test_the_table_reads_with_pandas_alone(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = search(20)
    pq.write_table(to_table(rows), tmp_path / "t.parquet")
    frame = pandas.read_parquet(tmp_path / "t.parquet")
    best = frame.sort_values("metric.miou", ascending=False).iloc[0]
    assert best["name"] == ranking(rows, "miou")[0].name
    assert frame[f"parameter.{LR}"].dtype == float
    assert list(frame["stages"][3]) == rows[3].stages


def test_an_error_with_bytes_that_are_no_text_is_kept_readable() -> None:
    assert rows_of(to_table([row(error="cannot read a\udcff.jpg")]))[0].error == "cannot read a\\udcff.jpg"


def test_ranking_puts_ties_by_name_and_what_has_no_score_last() -> None:
    rows = [row("d", None), row("b", 0.5), row("c", math.nan), row("a", 0.5), row("e", 0.7)]
    assert [one.name for one in ranking(rows, "miou")] == ["e", "a", "b", "c", "d"]
    assert [one.name for one in ranking(rows, "none")] == ["a", "b", "c", "d", "e"]
