"""Send the metrics of a run to its loggers.

For each logger, a thread in the process that drives the run reads the store. So workers need no accounts. A run that is submitted
again continues where it was. Stages that another run has completed are logged too. A logger that fails or hangs delays nothing:
what it did not take stays in the store and is sent later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from wsss_ray.config.job import JobConfig
from wsss_ray.core.component import digest
from wsss_ray.core.graph import Plan
from wsss_ray.engine.records import git_commit, versions
from wsss_ray.reporting.loggers.figures import Figures
from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures
from wsss_ray.reporting.progress import Display
from wsss_ray.storage.claims import Claims, attempt
from wsss_ray.storage.documents import LOGGER
from wsss_ray.storage.store import RunStore

_LOOK_S = 5.0
_SHARE = 10  # pauses are this many times as long as the logging before them
_LATER_S = 300.0  # longest pause after a logger failed or was slow
_ANSWER_S = 5.0  # an error that takes longer means that the server is away
_PATIENCE_S = 30.0  # longest wait for all loggers at the end of a run


@contextmanager
def logged(job: JobConfig, plan: Plan, store: RunStore, display: Display, *, away: list[Logger] | None = None) -> Iterator[None]:
    """Send the metrics of a plan's stages to the job's loggers during the block. None is sent twice.

    An error of a logger is shown as a warning and does not end the block.

    Args:
        job: Job with the loggers.
        plan: Stages to log.
        store: Run store that has the metrics.
        display: Shows warnings.
        away: Loggers to skip. Loggers that do not answer are added, so that the next run does not wait for them again.

    Example:
        >>> with logged(job, plan, store, display):
        ...     run_missing_stages()
    """
    away = [] if away is None else away
    followers = [Follower(logger, job, plan, store, display) for logger in job.run.loggers if logger not in away]
    followers = [follower for follower in followers if follower.has_more]
    state: RunState = "failed"
    for follower in followers:
        follower.start()
    try:
        yield
        state = "finished"
    except (KeyboardInterrupt, SystemExit):  # Ray Tune stops a trial by SystemExit
        state = "stopped"
        raise
    finally:
        deadline = time.monotonic() + _PATIENCE_S
        for follower in followers:
            follower.end(state)
        for follower in followers:
            if not follower.leave(deadline - time.monotonic()):
                away.append(follower.logger)


class Follower(threading.Thread):
    """One logger of one run. The file `loggers/KIND.json` in the run's folder notes what it has taken.

    Of several attempts at a run, only the one that holds the claim feeds the logger. The others check from time to time whether
    the claim is free.
    """

    def __init__(self, logger: Logger, job: JobConfig, plan: Plan, store: RunStore, display: Display) -> None:
        super().__init__(daemon=True, name=f"logger {logger.kind()}")
        self.logger, self.job, self.plan, self.store, self.display = logger, job, plan, store, display
        self._notes = store.run_path(job.name, "loggers", f"{logger.kind()}.json")
        self._what = digest([job.method.identity(), job.data.identity(), job.run.seed, job.run.precision])
        self.claims = Claims(store, attempt())
        self._said: set[str] = set()
        self._recall()
        self._sink: Sink | None = None
        self._figures: list[Figures] = []
        self._rows: list[StepFigures] = []
        self._pause, self._quiet, self._failed = 0.0, False, False
        self._end: RunState | None = None
        self._ended = threading.Event()

    @property
    def has_more(self) -> bool:
        """Return True if the logger has not taken everything yet."""
        return self._state != "finished" or any(stage.id not in self._done for stage in self.plan)

    def run(self) -> None:
        """Look for new metrics until the run ends, and once more then."""
        with self.claims:
            while not self._ended.wait(self._pause):
                self._try(self.look)
            self._try(self._close)

    def end(self, state: RunState) -> None:
        """Tell the thread that the run has ended, and how."""
        self._end = state
        self._ended.set()

    def leave(self, seconds: float) -> bool:
        """Wait up to `seconds` for the last metrics. Return True if the logger answered, even by an error."""
        began = time.monotonic()
        self.join(max(0.0, seconds))
        if self.is_alive():
            self._warn("does not answer")
        self._quiet = True
        return not (self.is_alive() or (self._failed and time.monotonic() - began > _ANSWER_S))

    def look(self) -> None:
        """Log what is new in the store. Errors of the logger's library pass through."""
        if self._sink is None:
            holder = self.claims.take(f"logger-{self.logger.kind()}-{self.job.name}")
            if holder is not None:
                name = self.job.name
                self._say(f"{self.logger.kind()}: {holder['attempt']} is logging {name}; nothing is logged from here meanwhile")
                self._pause = _LOOK_S
                return
            self._recall()  # another attempt may have fed it meanwhile
            self._open()
        assert self._sink is not None
        began = time.monotonic()
        with suppress(OSError):  # a store that fails for a moment
            for one in self._figures:
                self._rows += one.rows()
        if self._rows:
            self._sink.write(self._rows)
            self._steps |= {row.stage_id: row.step for row in self._rows}
            self._done |= {one.stage.id for one in self._figures if one.done}
            self._rows = []
            self._note("running")
        self._pause = min(_LATER_S, max(_LOOK_S, _SHARE * (time.monotonic() - began)))

    def _recall(self) -> None:
        """Read what the logger has taken so far. If the notes cannot be read, everything is sent again."""
        self._id: str | None = None
        self._steps: dict[str, int] = {}
        self._done: set[str] = set()
        self._state = ""
        try:
            found = self.store.read_json(self._notes, LOGGER) if self.store.exists(self._notes) else {}
            if found.get("job") == self._what:  # otherwise another job had this name
                self._steps, self._done = dict(found["steps"]), set(found["done"])
                self._id, self._state = found["id"], found["state"]
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            self._say(f"warning: {self._notes}: cannot be read; {self.logger.kind()} gets all figures anew")

    def _open(self) -> None:
        self._sink = self.logger.open(
            Run(store=self.store, name=self.job.name, job=self.job.spec(), tags=_tags(self.job, self.plan), before=self._id)
        )
        if self._sink.id != self._id:
            self._id, self._steps, self._done = self._sink.id, {}, set()
        left = [stage for stage in self.plan if stage.id not in self._done]
        self._figures = [Figures(self.store, stage, after=self._steps.get(stage.id, 0)) for stage in left]
        self._note("running")

    def _close(self) -> None:
        self.look()
        if self._sink is None:
            return  # another attempt is logging
        assert self._end is not None
        path = self.store.run_path(self.job.name, "report.html")
        has_report = self._end == "finished" and self.store.exists(path)
        self._sink.close(self._end, self.store.read(path).decode() if has_report else None)
        self._note(self._end)

    def _note(self, state: str) -> None:
        found = {"id": self._id, "job": self._what, "state": state, "steps": self._steps, "done": sorted(self._done)}
        self.store.write_json(self._notes, found)
        self._failed = False

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  an error of a logger's library must not end the run
            self._warn(" ".join(str(error).split())[:300] or type(error).__name__)
            self._pause = min(_LATER_S, 2 * max(_LOOK_S, self._pause))

    def _say(self, line: str) -> None:
        """Print a line, once."""
        if line not in self._said:
            self.display.say(line)
        self._said.add(line)

    def _warn(self, what: str) -> None:
        """Warn once. The missing metrics are sent when the logger works again, or when the run is submitted again."""
        self._failed = True
        if not self._quiet:
            self.display.say(f"warning: {self.logger.kind()}: {what}; the run goes on, and what is missing there follows later")
        self._quiet = True


def _tags(job: JobConfig, plan: Plan) -> Mapping[str, str]:
    """Return tags that identify a run: method, versions and the ids of its stages."""
    known = {"method": job.method.kind(), "git": git_commit(), **versions()}
    ids = {f"stage.{stage.name}": stage.id for stage in plan}
    return {name: value for name, value in known.items() if value is not None} | ids
