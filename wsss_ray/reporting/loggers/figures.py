"""Read the figures of a stage from its files in the store, while it runs and when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from wsss_ray.core.plan import Stage
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.engine.training_log import LogTail
from wsss_ray.reporting.loggers.logger import StepFigures, flatten
from wsss_ray.reporting.progress import Pace
from wsss_ray.storage.claims import read_claim
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.shards import first_written, present_shards
from wsss_ray.storage.store import RunStore


class Figures:
    """Follow a stage: the lines of a training's log, or the shards of any other stage, and finally its record.

    `done` is True once the record, which comes last, has been read.

    Args:
        store: store of the stage.
        stage: the stage to follow.
        after: step up to which the figures are known already; 0 for all figures.

    Example:
        >>> figures = Figures(store, stage, after=0)
        >>> figures.rows()[0].figures["loss"]
        0.41
    """

    def __init__(self, store: RunStore, stage: Stage, *, after: int) -> None:
        self.store, self.stage, self.done = store, stage, False
        self._last = after
        self._tail = LogTail(store, stage.id)
        self._seen: int | None = None  # shards at the last look
        self._pace: Pace | None = None  # of the attempt that is running the stage

    def rows(self) -> list[StepFigures]:
        """Return the rows that are new since the last call.

        Raises:
            OSError: if the store cannot be read.
        """
        if self.done:
            return []
        record = Finished(self.store).record(self.stage)  # read first: nothing is written after the record
        rows = self._lines() if self.stage.kind == "train" else [] if record is not None else self._progress()
        if record is not None:
            rows.append(self._end(record))
            self.done = True
        return rows

    def _lines(self) -> list[StepFigures]:
        fresh = [line for line in self._tail.rows() if line["step"] > self._last]
        self._last = fresh[-1]["step"] if fresh else self._last
        return [self._row(line.pop("step"), line.pop("time", time.time()), line) for line in fresh]

    def _progress(self) -> list[StepFigures]:
        now, made, seen = time.time(), len(present_shards(self.store, self.stage)), self._seen
        self._seen = made
        if seen is not None and made > seen:
            self._count(now, made)
        if made <= self._last:
            return []
        self._last = made
        split = data_split(self.stage)
        figures = {"share": made / split.num_shards}
        if self._pace is not None and self._pace.rate is not None:
            figures["images_per_s"] = self._pace.rate * split.source.shard_size
        return [self._row(made, now, figures)]

    def _count(self, now: float, made: int) -> None:
        """Count new shards. The time starts at the claim of the running attempt: before it the stage waited for other stages."""
        claim = None
        with suppress(OSError):  # figures of the pace are worth no failure
            claim = read_claim(self.store, self.stage.id)
        since = claim.holder.get("since") if claim is not None else None
        if since is not None and (self._pace is None or self._pace.began != since):
            self._pace = Pace(since)
        if self._pace is not None:
            self._pace.at(now, made)

    def _end(self, record: Mapping[str, Any]) -> StepFigures:
        """Return the row of the record: time, errors and scores."""
        counts, metrics, seconds = record["counts"], dict(record["metrics"]), record["seconds"]
        if "iou" in metrics:
            names = ("background", *data_split(self.stage).classes)
            metrics["iou"] = dict(zip(names, metrics["iou"], strict=True))
        if "ap" in metrics:
            metrics["ap"] = dict(zip(data_split(self.stage).classes, metrics["ap"], strict=True))
        figures = {"seconds": seconds, "errors": counts["errors"], **metrics}
        if self.stage.kind != "train":
            figures["share"] = 1.0
            # An earlier attempt may have made some shards: the record has all images, but only the seconds of the last attempt.
            if seconds and first_written(self.store, self.stage) >= datetime.fromisoformat(record["started"]).timestamp():
                figures["images_per_s"] = counts["images"] / seconds
        finished = datetime.fromisoformat(record["finished"]).timestamp()
        return self._row(counts.get("steps", counts.get("shards", 0)), finished, figures)

    def _row(self, step: int, at: float, figures: Mapping[str, Any]) -> StepFigures:
        numbers = {name: float(value) for name, value in flatten(figures, "/").items() if isinstance(value, int | float)}
        return StepFigures(self.stage.name, self.stage.id, step, at, numbers)
