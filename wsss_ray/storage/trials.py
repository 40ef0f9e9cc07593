"""Represent the results of a sweep: one row per trial and seed, in an Arrow table that any Parquet reader understands.

The parameters of a trial are in its row twice: exactly, as JSON in `config`, and in one column per parameter, to filter and plot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from wsss_ray.core.component import canonical

VERSION = 1

TrialState = Literal["done", "failed", "stopped", "missing"]

_PARAMETER, _METRIC = "parameter.", "metric."


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial under one seed, finished or not. Values of `parameters` are JSON values: scalars, lists and blocks."""

    name: str
    run: str  # the name of its run in the store
    seed: int
    method: str
    parameters: dict[str, Any]  # dotted field -> value, of the fields that this trial sets
    state: TrialState  # stopped: a scheduler ended it early
    error: str | None = None
    metrics: dict[str, float]  # name of the score -> mIoU in [0, 1]
    stages: list[str]  # their ids
    seconds: float  # of its own attempt; stages that were done before cost nothing
    started: str | None = None  # ISO 8601
    finished: str | None = None
    progress: float | None = None  # the share of its training that it last reported, in [0, 1]
    published: float | None = None  # the paper's figure in per cent


_FIXED = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("config", pa.string(), nullable=False),  # the parameters as JSON with sorted keys
        pa.field("state", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("stages", pa.list_(pa.string()), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("started", pa.string()),
        pa.field("finished", pa.string()),
        pa.field("progress", pa.float64()),
        pa.field("published", pa.float64()),
    ]
)
_SAME = tuple(field.name for field in fields(TrialRow) if field.name in _FIXED.names)


def to_table(rows: Sequence[TrialRow]) -> pa.Table:
    """Make the table of the rows, in their order.

    A parameter's column holds numbers or booleans if all its values are such, else text (blocks as JSON).
    """
    schema, columns = list(_FIXED), {name: [getattr(row, name) for row in rows] for name in _SAME}
    columns["config"] = [canonical(row.parameters) for row in rows]
    columns["error"] = [_printable(row.error) for row in rows]
    for name in _names(row.parameters for row in rows):
        values = [row.parameters.get(name) for row in rows]
        kind = _kind(values)
        schema.append(pa.field(_PARAMETER + name, kind))
        read = {pa.float64(): float, pa.bool_(): bool}.get(kind, _text)
        columns[_PARAMETER + name] = [None if value is None else read(value) for value in values]
    for name in _names(row.metrics for row in rows):
        schema.append(pa.field(_METRIC + name, pa.float64()))
        columns[_METRIC + name] = [row.metrics.get(name) for row in rows]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    metadata = {"wsss_ray.schema": "trials", "wsss_ray.version": str(VERSION)}
    return pa.Table.from_arrays(arrays, schema=pa.schema(schema, metadata=metadata))


def ranking(rows: Iterable[TrialRow], metric: str) -> list[TrialRow]:
    """Sort rows by a metric: best first, ties by name and seed, rows without the metric last."""

    def key(row: TrialRow) -> tuple[float, str, int, str]:
        value = row.metrics.get(metric, math.nan)
        return (-value if math.isfinite(value) else math.inf, row.name, row.seed, row.run)

    return sorted(rows, key=key)


def _names(mappings: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _kind(values: Sequence[Any]) -> pa.DataType:
    """Choose the type of a column from the values that are set; a boolean is not a number."""
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float}:
        return pa.float64()
    return pa.bool_() if kinds == {bool} else pa.string()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _printable(text: str | None) -> str | None:
    """Escape what is not UTF-8: errors quote paths with any bytes, and Arrow takes UTF-8 only."""
    return None if text is None else text.encode(errors="backslashreplace").decode()
