"""Describe failures of workers in one line, without the exceptions and advice that Ray wraps around them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsss_ray.core.errors import in_one_line
from wsss_ray.runners.cluster import worker_logs

_RETRIES = re.compile(r"^Failed to .* after \d+/\d+ attempts", re.MULTILINE)  # Ray Data appends advice to an error's message
_NAMED = re.compile(r"(\w+\.)*\w*(Error|Exception): ")
_OURS = re.compile(r"(\w+\.)*WorkerError: (.*) \[([^\[\]]*)\]")
_DIED = re.compile(r"(?ms)^\s*pid: (\d+)$.*?^\s*ip: (\S+)$.*?Worker exit detail: (.*?)(?= Some common causes|$)")
_MOST = 1000  # characters of a message: some libraries append pages of advice


class WorkerError(RuntimeError):
    """A failure in a worker, in one line: its place in the work, the error, and the path of the worker's log in brackets.

    `cause` finds the line in the errors that Ray wraps around it.

    Example:
        try:
            worker(shard)
        except Exception as error:
            raise WorkerError.of(error, f"stage {stage.name}, shard {shard}") from error
    """

    @classmethod
    def of(cls, error: Exception, where: str) -> WorkerError:
        """Return the error to raise in this worker, which must run in Ray.

        Args:
            error: The error that happened.
            where: Its place in the work.
        """
        return cls(f"{where}: {in_one_line(error)[:_MOST]} [{own_log()}]")


@dataclass(frozen=True)
class Cause:
    """The cause of a failure.

    Attributes:
        line: What happened, in one line.
        log: The log of the worker that failed, as `MACHINE:PATH`; None if it is not known.
        located: True if the line names the place in the work.
    """

    line: str
    log: str | None = None
    located: bool = False


def own_log() -> str:
    """Return machine and path of the file that gets this worker's output, as `MACHINE:PATH`. The worker must run in Ray."""
    import ray

    return f"{ray.util.get_node_ip_address()}:{ray._private.worker.global_worker.get_err_file_path()}"


def cause(error: BaseException) -> Cause:
    """Return the innermost message of Ray's nested errors, without its traceback.

    Example:
        >>> found = cause(WorkerError("stage maps, shard 3: OSError: disk full [10.0.0.1:/tmp/worker.err]"))
        >>> found.line, found.log
        ('stage maps, shard 3: OSError: disk full', '10.0.0.1:/tmp/worker.err')
    """
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        failures = getattr(error, "worker_failures", None)
        inner = next(iter(failures.values())) if failures else getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = [line.strip() for one in seen for line in _RETRIES.split(str(one))[0].splitlines() if line.strip()]
    if type(error).__name__ == "UserCodeException":  # it does not name the error; only the tracebacks do
        lines = [line for line in lines if _NAMED.match(line) and "UserCodeException" not in line] or lines
    last = lines[-1] if lines else ""
    line = last if _NAMED.match(last) else f"{type(error).__name__}: {last}"
    if ours := _OURS.fullmatch(line):
        return Cause(ours[2], ours[3], located=True)
    died = _DIED.search("\n".join(map(str, seen)))
    if died is None:
        return Cause(line)
    pid, machine, detail = died.groups()
    what = f"a worker died, process {pid} on {machine}: {detail} The kernel kills processes when memory is short; see dmesg."
    return Cause(what, f"{machine}:{worker_logs()}/worker-*-{pid}.err")
