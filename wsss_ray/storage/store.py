"""Keep stages and runs in a store: one folder per stage id, on any file system that pyarrow supports.

    STORE/stages/<stage id>/   record.json, written last: the stage is done if it is there, and what it lists (see finished.py)
                               shards/part-00000.parquet, errors/part-00000.parquet
                               metrics.jsonl, checkpoints/step-00000100.pt, model.safetensors  (train)
    STORE/runs/<run name>/     job.yaml, run.json, report.html, logs/, loggers/, tensorboard/

A file appears whole or not at all. On a local or NFS path it is written under another name and renamed; an object store uploads
atomically. Writing the same shard twice writes the same bytes, so a worker that is retried does no harm. Nothing below the root
is reached through a link: every access looks for one, and ends with DamagedFile if there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsss_ray.storage.atomic import TEMPORARY, replacing
from wsss_ray.storage.documents import RECORD, Document, parse, serialised
from wsss_ray.storage.finished import BEGUN_NOTE, FileDigest, Finished, complete
from wsss_ray.storage.inside import files_below, refuse_links, remove_folder, remove_temporary, sync_folders

if TYPE_CHECKING:  # slow to import, and not needed to look for records in a local folder
    import pyarrow as pa
    import pyarrow.fs as pafs


STAGE_ID = re.compile(r"(ingest|features|train|classify|localize|saliency|seed|evaluate)-[0-9a-f]{8,64}")


class Identified(Protocol):
    """A stage as the store sees it: an object whose id names its folder."""

    @property
    def id(self) -> str:
        """Return the name of the stage's folder; see `core.plan.Stage.id`."""


@dataclass(frozen=True)
class FileInfo:
    """A file as its folder lists it: its name, its size in bytes, and when it was written, in seconds since the epoch."""

    name: str
    size: int
    written: float


class RunStore:
    """Read and write stages and runs below a path or URI (`runs`, `/nfs/runs`, `s3://bucket/runs`, `gs://...`).

    A store with a file:// URI is the store at that path. Nothing is opened or created before the first access.

    Raises:
        ValueError: if the URI holds credentials.

    Example:
        >>> store = RunStore("runs")
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
        """Return the path of a stage's folder, or of `parts` below it."""
        return self.path("stages", stage.id, *parts)

    def run_path(self, run: str, *parts: str) -> str:
        """Return the path of a run's folder, or of `parts` below it."""
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

    def guarded(self, path: str, *, file: bool = False) -> str:
        """Return a path of this store. Raise DamagedFile if a part below the root is a link or, with `file`, is misplaced."""
        if self.is_local:
            refuse_links(self.uri, path, file=file)
        return path

    def exists(self, path: str) -> bool:
        """Return True if a file exists."""
        return os.path.isfile(self.guarded(path)) if self.is_local else bool(self.fs.get_file_info(path).is_file)

    def info(self, path: str) -> FileInfo | None:
        """Return size and time of a file; None if there is no such file."""
        info = self.fs.get_file_info(self.guarded(path))
        return FileInfo(info.base_name, info.size, _written(info)) if info.is_file else None

    def files(self, folder: str) -> list[FileInfo]:
        """List the files in a folder with their sizes and times, sorted by name and without unfinished files."""
        found = [FileInfo(info.base_name, info.size, _written(info)) for info in self._listed(folder) if info.is_file]
        return sorted((one for one in found if not one.name.startswith(TEMPORARY)), key=lambda one: one.name)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of every file below a folder, by its path there. Each folder is listed once."""
        if self.is_local:
            return files_below(self.guarded(folder))
        found = self._listed(folder, recursive=True)
        return {info.path.removeprefix(folder).lstrip("/"): info.size for info in found if info.is_file}

    def names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted and without unfinished files. The list is empty if there is no such folder."""
        if self.is_local:
            found = os.listdir(folder) if os.path.isdir(self.guarded(folder)) else []
        else:
            found = [info.base_name for info in self._listed(folder)]
        return sorted(name for name in found if not name.startswith(TEMPORARY))

    def _listed(self, folder: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
        import pyarrow.fs as pafs

        if self.is_local and not os.path.isdir(self.guarded(folder)):
            return []
        return list(self.fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)))

    def read(self, path: str) -> bytes:
        """Read a whole file. Raises FileNotFoundError."""
        if self.is_local:
            return Path(self.guarded(path, file=True)).read_bytes()
        with self.fs.open_input_stream(path) as stream:
            return bytes(stream.read())

    def open(self, path: str) -> pa.NativeFile:
        """Open a file to read parts of it. The caller closes it. Raises FileNotFoundError."""
        return self.fs.open_input_file(self.guarded(path, file=True))

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
        self.guarded(path, file=True)
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
        self.fs.delete_file(self.guarded(path))

    def delete_folder(self, path: str) -> None:
        """Delete a folder and its content, if it exists."""
        if self.is_local:
            remove_folder(self.guarded(path))
            return
        import pyarrow.fs as pafs

        if self.fs.get_file_info(path).type == pafs.FileType.Directory:
            self.fs.delete_dir(path)

    def read_json(self, path: str, document: Document) -> Any:
        """Read a JSON file. Raises FileNotFoundError, or DamagedFile if the file is not such a document.

        Example:
            >>> store.read_json(store.run_path("pets", "run.json"), RUN)["name"]
            'pets'
        """
        return parse(self.read(path), path, document)

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as a JSON file; see `write`. What JSON does not know is written as its `str`."""
        self.write(path, serialised(value))

    # -- stages ----------------------------------------------------------------------------------------------------------

    def is_done(self, stage: Identified) -> bool:
        """Return True if a stage is done; see finished.py. To ask about several stages, make one `Finished`."""
        return Finished(self).is_done(stage)

    def record(self, stage: Identified) -> dict[str, Any] | None:
        """Read a stage's record, whether or not its files are there; None if it has none. Raises DamagedFile."""
        return self._record(stage.id)

    def commit(self, stage: Identified, record: Mapping[str, Any], known: Mapping[str, FileDigest] | None = None) -> None:
        """Write a stage's record, which marks the stage as done, and remove its unfinished files.

        The record gets the list of the stage's files and the digests of its inputs. Before it appears, all of them are on the
        disk, so that a power failure leaves no record without its files.

        Args:
            stage: The stage, whose other files are all written.
            record: Its record; see `engine.records.make_record`.
            known: Digests of files, by their path in the stage's folder. Other files are read to get theirs.

        Raises:
            OSError: if it cannot be written. The stage is then not done.
        """
        whole = complete(self, stage, record, known or {})
        folder = self.stage_path(stage)
        if self.is_local:
            sync_folders(folder)
        self.write_json(f"{folder}/record.json", whole)
        if self.exists(f"{folder}/{BEGUN_NOTE}"):
            self.delete(f"{folder}/{BEGUN_NOTE}")
        self.remove_unfinished(stage)

    def record_by_id(self, stage_id: str) -> dict[str, Any] | None:
        """Read the record of a stage by the stage's id; None if it has none.

        Raises:
            DamagedFile: if the record is damaged.
            ValueError: if `stage_id` does not look like an id. Ids come from files too, and must not lead out of the store.
        """
        if not STAGE_ID.fullmatch(stage_id):
            raise ValueError(f"{stage_id!r} is not the id of a stage; was the store edited by hand?")
        record = self._record(stage_id)
        return record and record | {"id": stage_id}

    def _record(self, stage_id: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            return dict(self.read_json(self.path("stages", stage_id, "record.json"), RECORD))
        return None

    def remove_unfinished(self, stage: Identified) -> int:
        """Remove temporary files of killed writers from the folder of a finished stage; return their number.

        The stage is complete, so nobody needs what a late writer is still writing: that writer finds its temporary file gone and
        fails alone. An object store shows no unfinished files; a lifecycle rule of the bucket has to remove interrupted uploads.
        """
        return remove_temporary(self.guarded(self.stage_path(stage)), TEMPORARY) if self.is_local else 0


def _written(info: pafs.FileInfo) -> float:
    return info.mtime.timestamp() if info.mtime is not None else 0.0
