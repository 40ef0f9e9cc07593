"""What a worker that fails says of itself, and how the driver tells it in one line, whatever Ray has put around it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsss_ray.runners.cluster import worker_logs

_RETRIES = re.compile(r"^Failed to .* after \d+/\d+ attempts", re.MULTILINE)  # Ray Data's advice behind the message of an error
_NAMED = re.compile(r"(\w+\.)*\w*(Error|Exception): ")
_OURS = re.compile(r"(\w+\.)*WorkerError: (.*) \[([^\[\]]*)\]")
_DIED = re.compile(r"(?ms)^\s*pid: (\d+)$.*?^\s*ip: (\S+)$.*?Worker exit detail: (.*?)(?= Some common causes|$)")
_MOST = 1000  # characters of a message: some libraries append pages of advice


class WorkerError(RuntimeError):
    """A failure in a worker, in one line: where in the work, what it was, and in brackets where the worker's log is."""

    @classmethod
    def of(cls, error: Exception, where: str) -> WorkerError:
        """What is to be raised in this worker from `error`."""
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return cls(f"{where}: {line[:_MOST]} [{own_log()}]")


@dataclass(frozen=True)
class Cause:
    """Why something failed, in one line. Of a failure in a worker, its log, as `MACHINE:PATH`.

    `located`: the line says where in the work it was.
    """

    line: str
    log: str | None = None
    located: bool = False


def own_log() -> str:
    """Where the output of this worker goes."""
    import ray

    return f"{ray.util.get_node_ip_address()}:{ray._private.worker.global_worker.get_err_file_path()}"


def cause(error: BaseException) -> Cause:
    """The innermost message of Ray's nested errors, without its traceback."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        failures = getattr(error, "worker_failures", None)
        inner = next(iter(failures.values())) if failures else getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = [line.strip() for one in seen for line in _RETRIES.split(str(one))[0].splitlines() if line.strip()]
    if type(error).__name__ == "UserCodeException":  # it says only that there was one; what it was stands in the tracebacks
        lines = [line for line in lines if _NAMED.match(line) and "UserCodeException" not in line] or lines
    last = lines[-1] if lines else ""
    line = last if _NAMED.match(last) else f"{type(error).__name__}: {last}"
    if ours := _OURS.fullmatch(line):
        return Cause(ours[2], ours[3], located=True)
    died = _DIED.search("\n".join(map(str, seen)))
    if died is None:
        return Cause(line)
    pid, machine, detail = died.groups()
    what = f"a worker died, process {pid} on {machine}: {detail} The kernel ends processes where memory is short; dmesg tells."
    return Cause(what, f"{machine}:{worker_logs()}/worker-*-{pid}.err")
