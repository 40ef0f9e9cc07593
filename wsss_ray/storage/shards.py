"""Parquet shards of a stage: written whole, read by row, by column, or all together.

Shard k of an artifact is `STORE/stages/<stage id>/shards/part-0000k.parquet`; what failed in it is in `errors/`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsss_ray.storage.store import Identified, RunStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def shard_path(store: RunStore, stage: Identified, shard: int, folder: str = "shards") -> str:
    """Where shard `shard` of a stage lies."""
    return store.stage_path(stage, folder, f"part-{shard:05d}.parquet")


def list_shards(store: RunStore, stage: Identified, folder: str = "shards") -> list[int]:
    """The numbers of the shards that are there."""
    names = store.names(store.stage_path(stage, folder))
    return [int(name.removeprefix("part-").removesuffix(".parquet")) for name in names if name.startswith("part-")]


def first_written(store: RunStore, stage: Identified) -> float:
    """Return when the oldest of the shards was written, in seconds since the epoch; infinity if there is none."""
    from pyarrow.fs import FileSelector

    files = store.fs.get_file_info(FileSelector(store.stage_path(stage, "shards"), allow_not_found=True))
    return min((info.mtime.timestamp() for info in files if info.mtime is not None), default=math.inf)


def write_shard(
    store: RunStore, stage: Identified, shard: int, schema: str, rows: list[dict[str, Any]], folder: str = "shards"
) -> None:
    """Commit one shard: one row group per row, zstd, no timestamps, so that equal rows give equal bytes.

    Statistics are kept of ids and of which masks there are: Parquet would copy small PNGs into them, several times each.
    """
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    buffer, table = io.BytesIO(), schemas.table(schema, rows)
    group = 1 if schema in ("images", "seeds") else max(1, len(rows))
    known = [name for name in ("image_id", "mask") if name in table.column_names]
    pq.write_table(table, buffer, row_group_size=group, compression="zstd", write_statistics=known)
    store.write(shard_path(store, stage, shard, folder), buffer.getvalue())


def count_rows(store: RunStore, stage: Identified, shard: int, folder: str = "shards") -> int:
    """The rows of a shard, from its footer."""
    import pyarrow.parquet as pq

    with store.fs.open_input_file(shard_path(store, stage, shard, folder)) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def open_shard(store: RunStore, stage: Identified, shard: int, schema: str, folder: str = "shards") -> pq.ParquetFile:
    """Open a shard for reading row by row; the caller closes it. Raises ValueError on another schema or version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    path = shard_path(store, stage, shard, folder)
    stream = store.fs.open_input_file(path)
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # pyarrow's own, and those of extension types, which Ray registers and which are read before we can look at them
        mend = "delete its stage's folder to make it again"
        raise ValueError(f"{path}: is no Parquet file of plain columns: {error}; {mend}") from error
    schemas.check_schema(file.schema_arrow, schema, path)
    return file


def read_shard(
    store: RunStore, stage: Identified, shard: int, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> list[dict[str, Any]]:
    """The rows of a shard, optionally only some columns."""
    rows: list[dict[str, Any]] = read_table(store, stage, shard, schema, columns, folder).to_pylist()
    return rows


def read_table(
    store: RunStore, stage: Identified, shard: int, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> pa.Table:
    """A shard as a table, optionally only some columns."""
    file = open_shard(store, stage, shard, schema, folder)
    try:
        return file.read(columns=columns)
    finally:
        file.close()


def read_all(
    store: RunStore, stage: Identified, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> pa.Table:
    """All shards of a stage as one table, in order. For small columns and small artifacts."""
    import pyarrow as pa

    from wsss_ray.storage import schemas

    tables = [schemas.table(schema, []).select(columns) if columns else schemas.table(schema, [])]
    tables += [read_table(store, stage, shard, schema, columns, folder) for shard in list_shards(store, stage, folder)]
    return pa.concat_tables(tables, promote_options="permissive")


def read_rows(
    store: RunStore, stage: Identified, shard: int, schema: str, places: Sequence[int], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of a shard at some places; no others are read where each is a row group of its own."""
    file = open_shard(store, stage, shard, schema)
    try:
        if file.num_row_groups == file.metadata.num_rows:
            rows: list[dict[str, Any]] = file.read_row_groups(list(places), columns=columns).to_pylist() if places else []
            return rows
        table = file.read(columns=columns)
        return [row for place in places for row in table.slice(place, 1).to_pylist()]  # `take` would import pandas
    finally:
        file.close()
