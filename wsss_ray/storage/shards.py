"""Read and write the Parquet shards of a stage. A shard is written whole, and read by row, by column, or all at once.

Shard k of a stage is `STORE/stages/<stage id>/shards/part-0000k.parquet`. The same name in `errors/` lists its failed images. The
pages of a shard have checksums, which every reader compares. Readers of whole shards also compare the SHA-256 in the record.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wsss_ray.core.errors import DamagedFile
from wsss_ray.storage.finished import FileDigest, compare, files_of
from wsss_ray.storage.parquet import damage_named, parquet_file
from wsss_ray.storage.store import Identified, RunStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_SHARD = re.compile(r"part-(\d{5,})\.parquet")


def shard_path(store: RunStore, stage: Identified, shard: int, folder: str = "shards") -> str:
    """Return the path of a shard of a stage.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        folder: `shards`, or `errors` for the list of failed images.
    """
    return store.stage_path(stage, folder, f"part-{shard:05d}.parquet")


def list_shards(store: RunStore, stage: Identified, folder: str = "shards") -> list[int]:
    """List the numbers of a stage's shards, sorted: those of its record, or those that exist of a stage without one.

    Files with other names, such as copies, are no shards. So a shard of a finished stage that is lost is listed, and reading it
    fails, which is better than the rest alone.

    Args:
        store: The store of the stage.
        stage: The stage.
        folder: `shards`, or `errors` for the list of failed images.

    Raises:
        DamagedFile: if the stage's record is damaged.

    Example:
        >>> list_shards(store, stage)
        [0, 1, 2]
    """
    record = store.record(stage)
    if record is None or "files" not in record:
        return present_shards(store, stage, folder)
    parts = (one.name.partition("/") for one in files_of(record))
    return sorted(int(found[1]) for of, _, name in parts if of == folder and (found := _SHARD.fullmatch(name)))


def present_shards(store: RunStore, stage: Identified, folder: str = "shards") -> list[int]:
    """List the numbers of the shards that exist, whatever the stage's record says. The arguments are those of `list_shards`."""
    names = store.names(store.stage_path(stage, folder))
    return sorted(int(found[1]) for name in names if (found := _SHARD.fullmatch(name)))


def readable_shards(store: RunStore, stage: Identified, folder: str = "shards") -> list[int]:
    """List the shards of a stage that exist, for a reader that says elsewhere what is lost or damaged."""
    there = present_shards(store, stage, folder)
    with suppress(DamagedFile):
        return sorted(set(list_shards(store, stage, folder)) & set(there))
    return there


def digests_of(store: RunStore, stage: Identified) -> dict[str, FileDigest]:
    """Return the digests of a finished stage's files, by their path in its folder. Empty for records of older versions."""
    return {one.name: one for one in files_of(store.record(stage) or {})}


def first_written(store: RunStore, stage: Identified) -> float:
    """Return when the oldest of the shards was written, in seconds since the epoch; infinity if there is none."""
    return min((one.written for one in store.files(store.stage_path(stage, "shards"))), default=math.inf)


def write_shard(
    store: RunStore, stage: Identified, shard: int, schema: str, rows: list[dict[str, Any]], folder: str = "shards"
) -> FileDigest:
    """Write one shard atomically. Equal rows give equal bytes: the compression is zstd, and there are no timestamps.

    `schemas.ARTIFACTS` says what is a row group, and which columns have statistics.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The schema of the rows, a name of `schemas.ARTIFACTS`.
        rows: One dictionary per image, with the columns of the schema.
        folder: `shards`, or `errors` for the list of failed images.

    Returns:
        The digest of the file.

    Raises:
        OSError: if the file cannot be written. Nothing has changed then.

    Example:
        >>> write_shard(store, stage, 0, "seeds", [{"image_id": "a", "seed": encode_labels(label_HW)}])
    """
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    buffer, artifact = io.BytesIO(), schemas.ARTIFACTS[schema]
    group = 1 if artifact.by_row else max(1, len(rows))
    known = list(artifact.statistics)
    pq.write_table(
        schemas.table(schema, rows),
        buffer,
        row_group_size=group,
        compression="zstd",
        write_statistics=known,
        write_page_checksum=True,
    )
    path, data = shard_path(store, stage, shard, folder), buffer.getvalue()
    store.write(path, data)
    return FileDigest.of(f"{folder}/{path.rpartition('/')[2]}", data)


def count_rows(store: RunStore, stage: Identified, shard: int, folder: str = "shards") -> int:
    """Read the number of rows of a shard from its footer.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        folder: `shards`, or `errors` for the list of failed images.

    Raises:
        FileNotFoundError: if the shard does not exist.
    """
    import pyarrow.parquet as pq

    path = shard_path(store, stage, shard, folder)
    with store.open(path) as file, damage_named(path):
        return int(pq.ParquetFile(file).metadata.num_rows)


def open_shard(
    store: RunStore,
    stage: Identified,
    shard: int,
    schema: str,
    folder: str = "shards",
    digests: Mapping[str, FileDigest] | None = None,
) -> pq.ParquetFile:
    """Open a shard to read single rows. The caller closes it.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        folder: `shards`, or `errors` for the list of failed images.
        digests: Digests of the stage's files, of `digests_of`, if all of the shard is read. The whole file is then read at once,
            and its SHA-256 compared.

    Raises:
        FileNotFoundError: if the shard does not exist.
        DamagedFile: if the file is damaged.
        ValueError: if it has another schema or version.
    """
    path = shard_path(store, stage, shard, folder)
    if digests is None:
        return parquet_file(store.open(path), schema, path)
    import pyarrow as pa

    data, known = store.read(path), digests.get(f"{folder}/{path.rpartition('/')[2]}")
    compare(known, data, path)
    return parquet_file(pa.BufferReader(data), schema, path)


def read_shard(
    store: RunStore,
    stage: Identified,
    shard: int,
    schema: str,
    columns: list[str] | None = None,
    folder: str = "shards",
    digests: Mapping[str, FileDigest] | None = None,
) -> list[dict[str, Any]]:
    """Read the rows of a shard as dictionaries.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        columns: The columns to read; None reads all.
        folder: `shards`, or `errors` for the list of failed images.
        digests: See `open_shard`.

    Raises:
        FileNotFoundError: if the shard does not exist.
        DamagedFile: if the file is damaged.
        ValueError: if it has another schema or version.

    Example:
        >>> [row["image_id"] for row in read_shard(store, stage, 0, "seeds", ["image_id"])]
        ['a', 'b']
    """
    table = read_table(store, stage, shard, schema, columns, folder, digests)
    with damage_named(shard_path(store, stage, shard, folder)):
        rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def read_table(
    store: RunStore,
    stage: Identified,
    shard: int,
    schema: str,
    columns: list[str] | None = None,
    folder: str = "shards",
    digests: Mapping[str, FileDigest] | None = None,
) -> pa.Table:
    """Read a shard as a table. The arguments and errors are those of `read_shard`."""
    file = open_shard(store, stage, shard, schema, folder, digests)
    try:
        with damage_named(shard_path(store, stage, shard, folder)):
            return file.read(columns=columns)
    finally:
        file.close()


def read_all(
    store: RunStore, stage: Identified, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> pa.Table:
    """Read all shards of a stage into one table, in order. Use it for small columns and small artifacts only.

    Args:
        store: The store of the stage.
        stage: The stage.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        columns: The columns to read; None reads all.
        folder: `shards`, or `errors` for the list of failed images.

    Returns:
        The table; without rows if there are no shards.

    Raises:
        DamagedFile: if a file is damaged.
        ValueError: if one has another schema or version.
    """
    import pyarrow as pa

    from wsss_ray.storage import schemas

    tables = [schemas.table(schema, []).select(columns) if columns else schemas.table(schema, [])]
    tables += [read_table(store, stage, shard, schema, columns, folder) for shard in list_shards(store, stage, folder)]
    return pa.concat_tables(tables, promote_options="permissive")


def read_rows(
    store: RunStore, stage: Identified, shard: int, schema: str, places: Sequence[int], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Read some rows of a shard. If each row is a row group of its own, no other row is read.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        places: The positions of the rows in the shard, from 0.
        columns: The columns to read; None reads all.

    Returns:
        The rows as dictionaries, in the order of `places`.

    Raises:
        FileNotFoundError: if the shard does not exist.
        DamagedFile: if the file is damaged.
        ValueError: if it has another schema or version.
    """
    file = open_shard(store, stage, shard, schema)
    try:
        with damage_named(shard_path(store, stage, shard)):
            if file.num_row_groups == file.metadata.num_rows:
                rows: list[dict[str, Any]] = file.read_row_groups(list(places), columns=columns).to_pylist() if places else []
                return rows
            table = file.read(columns=columns)
            return [row for place in places for row in table.slice(place, 1).to_pylist()]  # `take` would import pandas
    finally:
        file.close()
