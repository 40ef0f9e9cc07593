"""Keep stages and runs in a store: one folder per stage id, on any file system that pyarrow supports.

    STORE/stages/<stage id>/   record.json, written last: the stage is done exactly when it exists
                               shards/part-00000.parquet, errors/part-00000.parquet
                               metrics.jsonl, checkpoints/step-00000100.pt, model.safetensors  (train)
    STORE/runs/<run name>/     job.yaml, run.json, report.html, logs/, loggers/, tensorboard/

A file appears whole or not at all. On a local or NFS path it is written under another name and renamed; an object store uploads
atomically. Writing the same shard twice writes the same bytes, so a worker that is retried does no harm.
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

if TYPE_CHECKING:  # slow to import, and not needed to look for records in a local folder
    import pyarrow.fs as pafs


STAGE_ID = re.compile(r"(ingest|features|train|localize|saliency|seed|evaluate)-[0-9a-f]{8,64}")


class Identified(Protocol):
    """A stage as the store sees it: an object whose id names its folder."""

    @property
    def id(self) -> str:
        """Return the name of the stage's folder; see `core.plan.Stage.id`."""


class DamagedFile(OSError):
    """Raised when a file of the store does not hold what it should."""


class RunStore:
    """Read and write stages and runs below a path or URI (`runs`, `/nfs/runs`, `s3://bucket/runs`, `gs://...`).

    A store with a file:// URI is the store at that path. Nothing is opened or created before the first access.

    Raises:
        ValueError: if the URI holds credentials.

    Example:
        >>> store = RunStore("runs")
        >>> store.names(store.path("runs"))
        ['pets']
        >>> store.record_by_id("evaluate-0123456789abcdef")["metrics"]["miou"]
        0.62
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
        """Return the pyarrow file system of the store."""
        return self._root[0]

    @property
    def is_local(self) -> bool:
        """Return True if the store is a mounted path, where writes are made atomic by a rename."""
        return "://" not in self.uri

    def path(self, *parts: str) -> str:
        """Join `parts` to a path below the store's root, as `read`, `write` and `fs` take it.

        Example:
            >>> RunStore("/nfs/runs").path("runs", "pets", "run.json")
            '/nfs/runs/runs/pets/run.json'
        """
        return "/".join((self.uri if self.is_local else self._root[1], *parts))

    def stage_path(self, stage: Identified, *parts: str) -> str:
        """Return a path in a stage's folder.

        Args:
            stage: The stage.
            parts: Names below its folder.
        """
        return self.path("stages", stage.id, *parts)

    def run_path(self, run: str, *parts: str) -> str:
        """Return a path in a run's folder.

        Args:
            run: The name of the run.
            parts: Names below its folder.
        """
        return self.path("runs", run, *parts)

    def there(self) -> str | None:
        """Look at the root of the store: return `file`, `folder` or None. Raises OSError or ValueError if it cannot be read."""
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
        """Return True if a file exists."""
        return os.path.isfile(path) if self.is_local else bool(self.fs.get_file_info(path).is_file)

    def names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted and without unfinished files. The list is empty if there is no such folder."""
        if self.is_local:
            found = os.listdir(folder) if os.path.isdir(folder) else []
        else:
            import pyarrow.fs as pafs

            found = [info.base_name for info in self.fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))]
        return sorted(name for name in found if not name.startswith(TEMPORARY))

    def read(self, path: str) -> bytes:
        """Read a whole file. Raises FileNotFoundError."""
        if self.is_local:
            return Path(path).read_bytes()
        with self.fs.open_input_stream(path) as stream:
            return bytes(stream.read())

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file atomically, replacing an existing one. Its folder is created.

        Args:
            path: A path of `path`, `stage_path` or `run_path`.
            data: The content.

        Raises:
            OSError: if it cannot be written. Nothing has changed then.
            TypeError: if `data` are no bytes.
        """
        memoryview(data)  # fail on other types before an object store begins the file
        if not self.is_local:
            # Upload in a thread of its own: an interrupt of this thread then cannot cut the object short.
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
        """Delete a file that exists."""
        self.fs.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder and its content, if it exists."""
        import pyarrow.fs as pafs

        if self.fs.get_file_info(path).type == pafs.FileType.Directory:
            self.fs.delete_dir(path)

    def read_json(self, path: str) -> Any:
        """Read a JSON file. Raises FileNotFoundError, or DamagedFile if the file is not JSON."""
        data = self.read(path)
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedFile(f"{path}: is damaged (not JSON); delete it and submit again to make it again") from error

    def write_json(self, path: str, value: Any) -> None:
        """Write a JSON file, indented so that people can read it too.

        Args:
            path: A path of `path`, `stage_path` or `run_path`.
            value: A value for JSON. What JSON does not know is written as its `str`.

        Raises:
            OSError: if it cannot be written. Nothing has changed then.
        """
        self.write(path, (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode())

    # -- stages ----------------------------------------------------------------------------------------------------------

    def is_done(self, stage: Identified) -> bool:
        """Return True if a stage is done, that is, has its record."""
        return self.exists(self.stage_path(stage, "record.json"))

    def record(self, stage: Identified) -> dict[str, Any] | None:
        """Read a stage's record; None while the stage is not done."""
        path = self.stage_path(stage, "record.json")
        if not self.exists(path):
            return None
        record: dict[str, Any] = self.read_json(path)
        return record

    def commit(self, stage: Identified, record: dict[str, Any]) -> None:
        """Write a stage's record, which marks the stage as done, and remove its unfinished files.

        Args:
            stage: The stage, whose other files are all written.
            record: Its record; see `engine.records.make_record`.

        Raises:
            OSError: if it cannot be written. The stage is then not done.
        """
        self.write_json(self.stage_path(stage, "record.json"), record)
        self.remove_unfinished(stage)

    def record_by_id(self, stage_id: str) -> dict[str, Any] | None:
        """Read the record of a stage by the stage's id; None while the stage is not done.

        Raises:
            ValueError: if `stage_id` does not look like an id. Ids come from files too, and must not lead out of the store.
        """
        if not STAGE_ID.fullmatch(stage_id):
            raise ValueError(f"{stage_id!r} is not the id of a stage; was the store edited by hand?")
        path = self.path("stages", stage_id, "record.json")
        if not self.exists(path):
            return None
        record: dict[str, Any] = self.read_json(path)
        return record | {"id": stage_id}

    def remove_unfinished(self, stage: Identified) -> int:
        """Remove temporary files of killed writers from the folder of a finished stage; return their number.

        The stage is complete, so nobody needs what a late writer is still writing: that writer finds its temporary file gone and
        fails alone. An object store shows no unfinished files; a lifecycle rule of the bucket has to remove interrupted uploads.
        """
        if not self.is_local:
            return 0
        stale = 0
        for folder, _, files in os.walk(self.stage_path(stage)):
            for path in (os.path.join(folder, name) for name in files if name.startswith(TEMPORARY)):
                with suppress(OSError):  # another process was faster
                    os.unlink(path)
                    stale += 1
        return stale
