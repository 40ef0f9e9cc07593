"""Read the rows of a Parquet file from anyone. A few kilobytes can stand for terabytes of names: sizes are checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.core.errors import shown
from wsss_ray.storage.schemas import check_plain

_BATCH = 256  # rows that are read at a time
_MOST_ROWS = 64  # for each byte of the file: each row names another image
_MOST_UNFOLDED = 200  # bytes for each byte of the file
_MOST_BYTES = 1 << 26  # of a batch, unfolded


def parquet_rows(path: Path, where: str, columns: Callable[[Sequence[str]], list[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file of plain columns.

    Args:
        path: The file.
        where: The field and the file, for messages.
        columns: Takes the names of the columns, and returns those that the rows have. It may raise ValueError.

    Raises:
        ValueError: if the file is damaged, has columns of an extension type, or unfolds to more than names and tags can be.
    """
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            check_plain(file.schema_arrow, where)
            names = columns(file.schema_arrow.names)
            size, groups = path.stat().st_size, (file.metadata.row_group(place) for place in range(file.metadata.num_row_groups))
            if file.metadata.num_rows > _MOST_ROWS * size:
                raise ValueError(f"{where} claims {file.metadata.num_rows} rows, too many for its size")
            if (unfolded := sum(group.total_byte_size for group in groups)) > _MOST_UNFOLDED * size + (1 << 20):
                raise ValueError(f"{where} unfolds to {unfolded} bytes; expected names and tags")
            for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
                if batch.nbytes > _MOST_BYTES:
                    raise ValueError(f"{where}: {batch.num_rows} rows of it hold {batch.nbytes} bytes; expected names and tags")
                yield from pa.RecordBatch.from_arrays(batch.columns, names=names).to_pylist()
    except (pa.ArrowException, OSError, ArithmeticError, AttributeError, LookupError, TypeError, UnicodeError) as err:
        # Errors of pyarrow, and of the extension types that Ray registers: pyarrow reads them before we can check the schema.
        problem = shown(" ".join(str(err).split()), 200)
        raise ValueError(f"{where} is not a readable Parquet file: {problem}") from err
