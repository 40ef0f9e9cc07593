"""Read and write the Parquet shards of a stage. A shard is written whole, and read by row, by column, or all at once.

Shard k of a stage is `STORE/stages/<stage id>/shards/part-0000k.parquet`. The same name in `errors/` lists its failed images.
"""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsss_ray.storage.store import Identified, RunStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_OPEN_FILES = 64


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
    """List the numbers of the existing shards, sorted.

    Args:
        store: The store of the stage.
        stage: The stage.
        folder: `shards`, or `errors` for the list of failed images.

    Example:
        >>> list_shards(store, stage)
        [0, 1, 2]
    """
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
    """Write one shard atomically. Equal rows give equal bytes: the compression is zstd, and there are no timestamps.

    `schemas.ARTIFACTS` says what is a row group, and which columns have statistics.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The schema of the rows, a name of `schemas.ARTIFACTS`.
        rows: One dictionary per image, with the columns of the schema.
        folder: `shards`, or `errors` for the list of failed images.

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
    pq.write_table(schemas.table(schema, rows), buffer, row_group_size=group, compression="zstd", write_statistics=known)
    store.write(shard_path(store, stage, shard, folder), buffer.getvalue())


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

    with store.fs.open_input_file(shard_path(store, stage, shard, folder)) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def open_shard(store: RunStore, stage: Identified, shard: int, schema: str, folder: str = "shards") -> pq.ParquetFile:
    """Open a shard to read single rows. The caller closes it.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        folder: `shards`, or `errors` for the list of failed images.

    Raises:
        FileNotFoundError: if the shard does not exist.
        ValueError: if the file is damaged, or has another schema or version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    path = shard_path(store, stage, shard, folder)
    stream = store.fs.open_input_file(path)
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # Errors of pyarrow, and of the extension types that Ray registers: pyarrow reads them before we can check the schema.
        remedy = "delete its stage's folder to make it again"
        raise ValueError(f"{path}: is not a Parquet file of plain columns: {error}; {remedy}") from error
    schemas.check_schema(file.schema_arrow, schema, path)
    return file


class OpenShards:
    """Shards of one schema that stay open, so that single rows are read quickly. Each thread, and each copy, opens its own.

    Args:
        store: The store of the shards.
        schema: The schema of the shards, a name of `schemas.ARTIFACTS` whose rows are row groups.

    Example:
        >>> OpenShards(store, "seeds").row(stage, shard=0, row=3, columns=["seed"])["seed"]
    """

    def __init__(self, store: RunStore, schema: str) -> None:
        self.store, self.schema = store, schema
        self._of_thread = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "schema": self.schema}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def row(self, stage: Identified, shard: int, row: int, columns: list[str]) -> dict[str, Any]:
        """Read one row. The errors are those of `open_shard`."""
        file = self._file(stage, shard)
        record: dict[str, Any] = file.read_row_group(row, columns=columns, use_threads=False).to_pylist()[0]
        return record

    def rows(self, stage: Identified, shard: int, columns: list[str]) -> list[dict[str, Any]]:
        """Read all rows of a shard, for small columns. The errors are those of `open_shard`."""
        rows: list[dict[str, Any]] = self._file(stage, shard).read(columns=columns, use_threads=False).to_pylist()
        return rows

    def _file(self, stage: Identified, shard: int) -> pq.ParquetFile:
        opened: OrderedDict[str, pq.ParquetFile] = self._of_thread.__dict__.setdefault("opened", OrderedDict())
        path = shard_path(self.store, stage, shard)
        if path not in opened:
            opened[path] = open_shard(self.store, stage, shard, self.schema)
            if len(opened) > _OPEN_FILES:
                opened.popitem(last=False)[1].close()
        opened.move_to_end(path)
        return opened[path]


def read_shard(
    store: RunStore, stage: Identified, shard: int, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> list[dict[str, Any]]:
    """Read the rows of a shard as dictionaries.

    Args:
        store: The store of the stage.
        stage: The stage.
        shard: The number of the shard.
        schema: The expected schema, a name of `schemas.table`: images, saliency, maps, seeds, scores or errors.
        columns: The columns to read; None reads all.
        folder: `shards`, or `errors` for the list of failed images.

    Raises:
        FileNotFoundError: if the shard does not exist.
        ValueError: if the file is damaged, or has another schema or version.

    Example:
        >>> [row["image_id"] for row in read_shard(store, stage, 0, "seeds", ["image_id"])]
        ['a', 'b']
    """
    rows: list[dict[str, Any]] = read_table(store, stage, shard, schema, columns, folder).to_pylist()
    return rows


def read_table(
    store: RunStore, stage: Identified, shard: int, schema: str, columns: list[str] | None = None, folder: str = "shards"
) -> pa.Table:
    """Read a shard as a table. The arguments and errors are those of `read_shard`."""
    file = open_shard(store, stage, shard, schema, folder)
    try:
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
        ValueError: if a file is damaged, or has another schema or version.
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
        ValueError: if the file is damaged, or has another schema or version.
    """
    file = open_shard(store, stage, shard, schema)
    try:
        if file.num_row_groups == file.metadata.num_rows:
            rows: list[dict[str, Any]] = file.read_row_groups(list(places), columns=columns).to_pylist() if places else []
            return rows
        table = file.read(columns=columns)
        return [row for place in places for row in table.slice(place, 1).to_pylist()]  # `take` would import pandas
    finally:
        file.close()
