"""Submit, list, follow and stop attempts through a cluster's job server (Ray Jobs), over HTTP from any machine."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from wsss_ray.deploy.address import Access, Address

RUN, STORE, VERSION, USER = "wsss_ray_run", "wsss_ray_store", "wsss_ray_version", "wsss_ray_user"
_TIMEOUT_S = (10.0, 60.0)  # to connect; between two bytes of an answer
_QUIET_S = 60.0  # after this silence, ask for the log again: the connection may be dead
_LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")


class ClusterError(RuntimeError):
    """The job server refused a request. The message is one line."""


class UnreachableError(ClusterError):
    """The job server does not answer, or answers with an error of its own. It may work again later."""


@dataclass(frozen=True)
class Attempt:
    """One submission to a cluster.

    Attributes:
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: What the job server says about the state. It may have several lines.
        run: Name of the run; None for a job of another program.
        store: URI of the run's store; None for a job of another program.
    """

    id: str
    state: str
    message: str
    run: str | None = None
    store: str | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Return True if nothing of the attempt runs any more."""
        return self.state in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def summary(self) -> str:
        """Return the most useful line of the message. After a failure, that is the last one, except for a path of logs."""
        if self.state not in ("FAILED", "PENDING"):
            return ""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return next((line for line in reversed(lines) if not line.startswith("logs: ")), "")


class JobServer:
    """The job server of one cluster.

    Args:
        access: URL and token of the server.

    Raises:
        ClusterError: if the server refuses a request or does not answer. This holds for every method too.

    Example:
        >>> server = JobServer(job_server("http://head:8265", os.environ, home=Path.home()))
        >>> [(attempt.run, attempt.state) for attempt in server.attempts()]
        [('pets', 'SUCCEEDED')]
    """

    def __init__(self, access: Access) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.access = access
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        with self._clear(), _without_addresses():
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
            self.client = _Client(address=access.url, headers=headers, verify=verify)

    def attempts(self, *, all_jobs: bool = False) -> list[Attempt]:
        """List the attempts that the cluster remembers, oldest first. `all_jobs` includes jobs of other programs."""
        with self._clear():
            found = [_attempt(job) for job in self.client.list_jobs() if job.submission_id]
        mine = [one for one in found if all_jobs or one.run is not None]
        return sorted(mine, key=lambda one: (one.started or datetime.max.replace(tzinfo=timezone.utc), one.id))

    def attempt(self, submission_id: str) -> Attempt:
        """Return the current state of an attempt."""
        with self._clear():
            return _attempt(self.client.get_job_info(submission_id))

    def find(self, name: str) -> Attempt:
        """Return the attempt with this id, or the latest attempt at the run with this name.

        Raises:
            ClusterError: if the cluster knows neither.
        """
        everything = self.attempts(all_jobs=True)
        found = [one for one in everything if one.id == name] or [one for one in everything if one.run == name]
        if not found:
            raise ClusterError(f"{self.access.url} knows no attempt and no run {name!r}; `wsss-ray ps` lists them")
        return found[-1]

    def running(self, run: str, store: str) -> Attempt | None:
        """Return an attempt at this run that has not ended, or None. `store` is the URI that it was submitted with."""
        return next((one for one in self.attempts() if (one.run, one.store) == (run, store) and not one.is_over), None)

    def submit(
        self, submission_id: str, *, entrypoint: str, folder: Path, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Upload a folder and start a command in it.

        Args:
            submission_id: The id of the new attempt.
            entrypoint: The command, as a shell reads it.
            folder: The folder to upload, which is the working folder of the command.
            environment: Environment variables of the command.
            metadata: Facts that the server keeps with the attempt. The keys RUN and STORE of this module name its run and store.

        Example:
            >>> metadata = {RUN: "pets", STORE: "s3://bucket/runs"}
            >>> server.submit("pets-1", entrypoint="wsss-ray plan job.yaml", folder=pets, environment={}, metadata=metadata)
            >>> server.stop("pets-1").is_over
            True
        """
        with self._clear():
            self.client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env={"working_dir": str(folder), "env_vars": dict(environment)},
                metadata=dict(metadata),
            )

    def log(self, submission_id: str) -> str:
        """Return everything that an attempt has printed so far."""
        with self._clear():
            return str(self.client.get_job_logs(submission_id))

    def stop(self, submission_id: str, *, patience: float = 120.0) -> Attempt:
        """Ask an attempt to end, and return it once it has ended.

        Args:
            submission_id: The id of the attempt.
            patience: Seconds to wait.

        Raises:
            ClusterError: if the attempt has not ended by then.
        """
        deadline = time.monotonic() + patience
        with self._clear():
            self.client.stop_job(submission_id)
        while not (attempt := self.attempt(submission_id)).is_over:
            if time.monotonic() > deadline:
                raise ClusterError(f"{submission_id} was asked to stop and is still {attempt.state}; check it with `wsss-ray ps`")
            time.sleep(0.5)
        return attempt

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """Turn errors of Ray's client, HTTP and the network into a ClusterError of one line."""
        url = self.access.url
        try:
            yield
        except AuthenticationError as error:
            what = "rejects the token. Give this cluster's token" if self.access.token else "asks for a token. Give it"
            raise ClusterError(f"{url} {what} by RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN") from error
        except requests.exceptions.JSONDecodeError as error:
            raise ClusterError(f"{url}: what answers there is no job server of Ray; check the port") from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            if any(isinstance(one, requests.exceptions.SSLError) for one in (error, error.__context__)):
                raise ClusterError(f"{url}: its certificate is not trusted; give its authority by REQUESTS_CA_BUNDLE") from error
            port = "its default port is 8265"
            raise UnreachableError(f"{url}: no job server answers there; is the cluster up? ({port})") from error
        except (RuntimeError, KeyError, TypeError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            kind = UnreachableError if "failed with status code 5" in str(error) else ClusterError
            raise kind(f"{url}: {lines[-1] if lines else type(error).__name__}") from error


class LogTail:
    """The growing log of one attempt. After an interrupt, `follow` continues where it was.

    Args:
        server: The job server of the attempt.
        submission_id: The id of the attempt.
        write: Gets each new piece of the log, which need not end with a line.
        note: Gets a line that is not of the log, such as why the attempt has not started.

    Example:
        >>> tail = LogTail(server, "pets-1", write=sys.stdout.write, note=print)
        >>> tail.follow().state
        'SUCCEEDED'
    """

    def __init__(self, server: JobServer, submission_id: str, write: Callable[[str], None], note: Callable[[str], None]) -> None:
        self.server, self.id, self.write, self.note = server, submission_id, write, note
        self.shown = 0  # characters

    def follow(self, *, patience: float = 900.0, pause: float = 1.0) -> Attempt:
        """Write the log until the attempt ends, and return the attempt.

        Args:
            patience: Seconds to retry if the server is away.
            pause: Seconds between two questions for the state.

        Raises:
            ClusterError: if the server refuses a request, or is away for longer than `patience`.
        """
        began = last = time.monotonic()
        waiting = ""
        while True:
            try:
                attempt = self.server.attempt(self.id)
                if attempt.is_over:
                    self._show(0, self.server.log(self.id))
                    return attempt
                if attempt.state == "PENDING":
                    if time.monotonic() - began > 10 and attempt.summary != waiting:
                        waiting = attempt.summary
                        self.note(f"waiting: {waiting}")
                else:
                    asyncio.run(self._read())
                    self._show(0, self.server.log(self.id))  # what a gateway without web sockets did not pass on
                last = time.monotonic()
            except UnreachableError as error:
                if time.monotonic() - last > patience:
                    raise ClusterError(f"{error}; {self.id} may still be running") from error
            time.sleep(pause)

    async def _read(self) -> None:
        """Write what arrives until the connection ends, breaks, or is silent too long."""
        position = 0
        with suppress(aiohttp.ClientError, OSError, RuntimeError, asyncio.TimeoutError, StopAsyncIteration):
            async with aclosing(self.server.client.tail_job_logs(self.id)) as lines:
                while True:
                    text = await asyncio.wait_for(anext(lines), _QUIET_S)
                    self._show(position, text)
                    position += len(text)

    def _show(self, position: int, text: str) -> None:
        """Write the part of `text` that is new. `text` begins at `position` of the log."""
        fresh = text[max(0, self.shown - position) :]
        self.shown = max(self.shown, position + len(text))
        if fresh:
            self.write(fresh)


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client with timeouts, and without a proxy to this machine. Without timeouts, a laptop that slept waits for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        address = Address("jobs", self._address)
        proxies = {"http": None, "https": None} if address.is_loopback else None
        return super()._do_request(method, endpoint, timeout=_TIMEOUT_S, proxies=proxies, **options)


@contextmanager
def _without_addresses() -> Iterator[None]:
    """Hide the variables with which Ray's client would override the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _attempt(job: JobDetails) -> Attempt:
    about = job.metadata or {}
    return Attempt(
        id=job.submission_id or "",
        state=str(job.status),
        message=job.message or "",
        run=about.get(RUN),
        store=about.get(STORE),
        started=_time(job.start_time),
        ended=_time(job.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc) if milliseconds else None
