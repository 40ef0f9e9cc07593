"""The run store: one folder per stage id, on any file system that pyarrow knows.

    STORE/stages/<stage id>/   record.json, written last: the stage is done exactly when it exists
                               shards/part-00000.parquet, errors/part-00000.parquet
                               metrics.jsonl, checkpoints/step-00000100.pt, model.safetensors  (train)
    STORE/runs/<run name>/     job.yaml, run.json, report.html, logs/, loggers/, tensorboard/

A file appears whole or not at all: on a local or NFS path by writing beside it and renaming, on an object store by its own
atomic put. Writing the same shard twice writes the same bytes, so that a retried worker does no harm.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsss_ray.storage.atomic import TEMPORARY, replacing

if TYPE_CHECKING:  # it takes a while to be imported; whoever only looks for records in a folder need not wait for it
    import pyarrow.fs as pafs


STAGE_ID = re.compile(r"(ingest|train|localize|seed|evaluate)-[0-9a-f]{8,64}")


class Identified(Protocol):
    """A stage as far as the store is concerned: its folder's name."""

    @property
    def id(self) -> str:
        """See `plan.Stage.id`."""


class DamagedFile(OSError):
    """A file of the store that does not hold what it should."""


class RunStore:
    """Reads and writes stages and runs below a path or URI (`runs`, `/nfs/runs`, `s3://bucket/runs`, `gs://...`).

    Raises ValueError on a URI that holds credentials. A file:// URI is the path that it names.
    """

    def __init__(self, uri: str) -> None:
        if "://" in uri or uri.startswith("file:"):
            from wsss_ray.storage.filesystems import CREDENTIALS, holds_credentials, local_path

            if holds_credentials(uri):
                raise ValueError(CREDENTIALS)
            if uri.startswith("file:"):
                uri = local_path(uri)
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().absolute())

    def __reduce__(self) -> tuple[type[RunStore], tuple[str]]:
        return (RunStore, (self.uri,))

    @cached_property
    def _root(self) -> tuple[pafs.FileSystem, str]:
        import pyarrow.fs as pafs

        if self.is_local:
            return pafs.LocalFileSystem(), self.uri
        from wsss_ray.storage.filesystems import open_uri

        return open_uri(self.uri)

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system behind the URI."""
        return self._root[0]

    @property
    def is_local(self) -> bool:
        """Whether the store is a mounted path, where a rename is what makes a write atomic."""
        return "://" not in self.uri

    def path(self, *parts: str) -> str:
        """A path below the store's root, in the file system's own form."""
        return "/".join((self.uri if self.is_local else self._root[1], *parts))

    def stage_path(self, stage: Identified, *parts: str) -> str:
        """A path in a stage's folder."""
        return self.path("stages", stage.id, *parts)

    def run_path(self, run: str, *parts: str) -> str:
        """A path in a run's folder."""
        return self.path("runs", run, *parts)

    def there(self) -> str | None:
        """What lies where the store is to be: `file`, `folder`, or None. Raises OSError or ValueError if nobody can tell."""
        if self.is_local:
            return "folder" if os.path.isdir(self.uri) else "file" if os.path.exists(self.uri) else None
        import pyarrow as pa

        try:
            info = self.fs.get_file_info(self.path())
        except pa.ArrowException as error:
            raise OSError(str(error)) from error
        return "file" if info.is_file else "folder" if info.type.name == "Directory" else None

    # -- bytes and tables ------------------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return os.path.isfile(path) if self.is_local else bool(self.fs.get_file_info(path).is_file)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty if there is no such folder. Unfinished writes are left out."""
        if self.is_local:
            found = os.listdir(folder) if os.path.isdir(folder) else []
        else:
            import pyarrow.fs as pafs

            found = [info.base_name for info in self.fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))]
        return sorted(name for name in found if not name.startswith(TEMPORARY))

    def read(self, path: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        if self.is_local:
            return Path(path).read_bytes()
        with self.fs.open_input_stream(path) as stream:
            return bytes(stream.read())

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file atomically, replacing what was there. Raises OSError, and then all is as it was."""
        memoryview(data)  # what is not bytes must fail before an object store has begun a file
        if not self.is_local:
            # In a thread of its own: whatever interrupts this one, between its beginning and its end the object is not cut short.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self._put, path, data).result()
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path, durable=True) as file:
            file.write(data)

    def _put(self, path: str, data: bytes) -> None:
        with self.fs.open_output_stream(path) as stream:
            stream.write(data)

    def delete(self, path: str) -> None:
        """Remove a file that exists."""
        self.fs.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Remove a folder with all in it, if it is there."""
        import pyarrow.fs as pafs

        if self.fs.get_file_info(path).type == pafs.FileType.Directory:
            self.fs.delete_dir(path)

    def read_json(self, path: str) -> Any:
        """A JSON file. Raises FileNotFoundError, or DamagedFile."""
        data = self.read(path)
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedFile(f"{path}: is damaged, no JSON; delete it and submit again") from error

    def write_json(self, path: str, value: Any) -> None:
        """Write a JSON file for people to read as well."""
        self.write(path, (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode())

    # -- stages ----------------------------------------------------------------------------------------------------------

    def is_done(self, stage: Identified) -> bool:
        """Whether a stage has its record."""
        return self.exists(self.stage_path(stage, "record.json"))

    def record(self, stage: Identified) -> dict[str, Any] | None:
        """A stage's record, or None while it is not done."""
        path = self.stage_path(stage, "record.json")
        if not self.exists(path):
            return None
        record: dict[str, Any] = self.read_json(path)
        return record

    def commit(self, stage: Identified, record: dict[str, Any]) -> None:
        """Write the record: from now on the stage is done."""
        self.write_json(self.stage_path(stage, "record.json"), record)
        self.sweep(stage)

    def record_by_id(self, stage_id: str) -> dict[str, Any] | None:
        """The record of a stage known by its id alone, None while it is not done.

        Raises ValueError if it is no such id: ids come from records too, and must not lead out of the store.
        """
        if not STAGE_ID.fullmatch(stage_id):
            raise ValueError(f"{stage_id!r} is no stage's id; was the store edited by hand?")
        path = self.path("stages", stage_id, "record.json")
        if not self.exists(path):
            return None
        record: dict[str, Any] = self.read_json(path)
        return record | {"id": stage_id}

    def sweep(self, stage: Identified) -> int:
        """Remove what killed writers left in the folder of a stage that is done; returns how many files.

        All files of the stage are there, so that nobody needs what a late writer still writes: it finds its temporary gone and
        fails alone. Object stores show no unfinished files; what interrupted uploads hold there is removed by a lifecycle rule of
        the bucket.
        """
        if not self.is_local:
            return 0
        stale = 0
        for folder, _, files in os.walk(self.stage_path(stage)):
            for path in (os.path.join(folder, name) for name in files if name.startswith(TEMPORARY)):
                with suppress(OSError):  # another sweep was faster
                    os.unlink(path)
                    stale += 1
        return stale
