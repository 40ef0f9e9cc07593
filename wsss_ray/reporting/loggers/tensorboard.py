"""Write TensorBoard event files into the run's folder, a folder for each stage: `tensorboard --logdir STORE/runs`.

The files are a copy of what the store says. They are written anew when a run is submitted again, so that no point is missing or
there twice. An object store cannot append to a file: there the files grow in a temporary folder and are uploaded once a minute.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures, plain

_PUT_S = 60.0


class Tensorboard(Logger):
    """Write event files beside the run's report."""

    def open(self, run: Run) -> Sink:
        """See `Logger.open`."""
        return _Events(run)


class _Events(Sink):
    def __init__(self, run: Run) -> None:
        self.store, self.folder = run.store, run.store.run_path(run.name, "tensorboard")
        self.id = str(time.time_ns())  # never the id of an earlier attempt
        self.store.delete_folder(self.folder)
        self.here = Path(self.folder if self.store.is_local else tempfile.mkdtemp(prefix="wsss-ray-tensorboard-"))
        self._writers: dict[str, Any] = {}
        self._put = time.monotonic()

    def write(self, rows: Sequence[StepFigures]) -> None:
        """See `Sink.write`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        for row in rows:
            values = [Summary.Value(tag=plain(name, also="/ "), simple_value=value) for name, value in row.figures.items()]
            event = Event(wall_time=row.time, step=row.step, summary=Summary(value=values))
            self._writer(plain(row.stage, also=" ")).write(event.SerializeToString())
        for stage in {plain(row.stage, also=" ") for row in rows}:
            self._writers[stage].flush()
        if time.monotonic() - self._put > _PUT_S:
            with suppress(OSError):  # an error would bring the same rows again; the next upload has all of them
                self._upload()

    def close(self, state: RunState, report: str | None) -> None:
        """See `Sink.close`."""
        for writer in self._writers.values():
            writer.close()
        try:
            self._upload()
        finally:
            if not self.store.is_local:
                shutil.rmtree(self.here, ignore_errors=True)

    def _writer(self, stage: str) -> Any:
        if stage not in self._writers:
            from tensorboardX import RecordWriter
            from tensorboardX.proto.event_pb2 import Event

            (self.here / stage).mkdir(parents=True, exist_ok=True)
            writer = RecordWriter(str(self.here / stage / f"events.out.tfevents.{self.id[:10]}.wsss-ray"))
            writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._writers[stage] = writer
        return self._writers[stage]

    def _upload(self) -> None:
        self._put = time.monotonic()
        if not self.store.is_local:
            for file in self.here.rglob("events.*"):
                self.store.write(f"{self.folder}/{file.relative_to(self.here).as_posix()}", file.read_bytes())
