"""Open the Parquet files of the store, and name the file in every error that a damaged one causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsss_ray.core.errors import REPAIR, DamagedFile, is_machine_failure, shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def parquet_file(source: pa.NativeFile, schema: str, path: str) -> pq.ParquetFile:
    """Open a Parquet file of the store. The arguments are its bytes, its schema and its path for messages.

    Raises:
        DamagedFile: if the file is damaged.
        ValueError: if it has another schema or version.
    """
    import pyarrow.parquet as pq

    from wsss_ray.storage import schemas

    with damage_named(path):
        file = pq.ParquetFile(source, page_checksum_verification=True)
    schemas.check_schema(file.schema_arrow, schema, path)
    return file


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Raise DamagedFile for the errors that pyarrow raises on damaged files, which don't name the file.

    They are of many types, because pyarrow builds the extension types that Ray registers before the schema can be checked.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        if is_machine_failure(error):
            raise
        why = shown(" ".join(str(error).split()), 200)
        raise DamagedFile(f"{path}: is damaged, or no Parquet file of plain columns ({why}). {REPAIR}") from error
