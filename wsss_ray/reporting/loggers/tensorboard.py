"""Write TensorBoard event files into the run's folder, a folder for each stage: `tensorboard --logdir STORE/runs`.

The files are a copy of what the store says. They are written anew when a run is submitted again, so that every point appears
exactly once. An object store cannot append to a file: there the files grow in a temporary folder and are uploaded once a minute.

tensorboardX's `SummaryWriter` is not used: its `flush` does not write its queue, a full disk ends its thread in silence and then
blocks the caller, it starts two threads for each stage, and it rewrites tags.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures, plain

_PUT_S = 60.0


class Tensorboard(Logger):
    """Write event files beside the run's report."""

    def open(self, run: Run) -> Sink:
        """See `Logger.open`."""
        return _Events(run)


class _Events(Sink):
    def __init__(self, run: Run) -> None:
        self.store, self.folder = run.store, run.store.guarded(run.store.run_path(run.name, "tensorboard"))
        self.id = str(time.time_ns())  # never the id of an earlier attempt
        self.store.delete_folder(self.folder)
        self.here = Path(self.folder if self.store.is_local else tempfile.mkdtemp(prefix="wsss-ray-tensorboard-"))
        self._put = time.monotonic()

    def write(self, rows: Sequence[StepFigures]) -> None:
        """See `Sink.write`. If a file cannot be written, all files get back the length that they had."""
        fresh: dict[Path, bytearray] = {}
        for row in rows:
            fresh.setdefault(self._file(row.stage), bytearray()).extend(_event(row))
        before = {path: path.stat().st_size if path.exists() else 0 for path in fresh}
        try:
            for path, events in fresh.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(events if before[path] else _first_event() + events)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            for path, size in before.items():  # half a record would spoil the file, and the same rows come again
                with suppress(OSError):
                    os.truncate(path, size)
            raise
        if time.monotonic() - self._put > _PUT_S:
            with suppress(OSError):  # an error would bring the same rows again; the next upload has all of them
                self._upload()

    def close(self, state: RunState, report: str | None) -> None:
        """See `Sink.close`."""
        try:
            self._upload()
        finally:
            if not self.store.is_local:
                shutil.rmtree(self.here, ignore_errors=True)

    def _file(self, stage: str) -> Path:
        return self.here / plain(stage, also=" ") / f"events.out.tfevents.{self.id[:10]}.wsss-ray"

    def _upload(self) -> None:
        self._put = time.monotonic()
        if not self.store.is_local:
            for file in self.here.rglob("events.*"):
                self.store.write(f"{self.folder}/{file.relative_to(self.here).as_posix()}", file.read_bytes())


def _first_event() -> bytes:
    """Return the record that every event file begins with."""
    from tensorboardX.proto.event_pb2 import Event

    return _record(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())


def _event(row: StepFigures) -> bytes:
    """Return the record of the figures of a stage at a step."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=plain(name, also="/ "), simple_value=value) for name, value in row.figures.items()]
    return _record(Event(wall_time=row.time, step=row.step, summary=Summary(value=values)).SerializeToString())


def _record(data: bytes) -> bytes:
    """Frame a record as TFRecord: the length, its checksum, the data, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
