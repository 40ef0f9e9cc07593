"""Read a sweep's table of trials back, as its users do, into the rows that it was made from."""

from __future__ import annotations

import json

import pyarrow as pa

from wsss_ray.storage.trials import _METRIC, _SAME, VERSION, TrialRow


def rows_of(table: pa.Table) -> list[TrialRow]:
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    assert about == {"wsss_ray.schema": "trials", "wsss_ray.version": str(VERSION)}
    scores = [name for name in table.column_names if name.startswith(_METRIC)]
    rows = []
    for row in table.to_pylist():
        metrics = {name.removeprefix(_METRIC): row[name] for name in scores if row[name] is not None}
        rows.append(TrialRow(**{name: row[name] for name in _SAME}, parameters=json.loads(row["config"]), metrics=metrics))
    return rows
