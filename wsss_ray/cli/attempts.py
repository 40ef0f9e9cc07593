"""List, follow and stop attempts on a cluster (ps, logs, stop), and send jobs there for submit and resume."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from wsss_ray.cli.console import fail, short, table
from wsss_ray.cli.status import at

if TYPE_CHECKING:
    from wsss_ray.runners.jobs import Attempt, JobServer

Server = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, such as http://HEAD:8265.",
    ),
]
AttemptName = Annotated[str, typer.Argument(metavar="ID", help="An attempt, or a run: the latest attempt at it.")]

T = TypeVar("T")

_END = {"SUCCEEDED": 0, "FAILED": 2, "STOPPED": 130}


@dataclass(frozen=True)
class Shipment:
    """A command to run on a cluster, with everything that it needs there.

    Attributes:
        run: Name of the run.
        store: URI of the run's store, as the machines of the cluster see it.
        arguments: Arguments of the command.
        again: Arguments of the command that resumes the run, for messages.
        texts: Contents of further files, by their path in the working folder.
        includes: Modules and packages of the user to send along.
        plugins: Modules that must be installed on the cluster.
        excludes: Patterns of files not to send, such as `mine/data/*`.
        python: Interpreter on the cluster; None for the default.

    Example:
        >>> texts = {"job.yaml": "name: pets"}
        >>> Shipment("pets", "s3://bucket/runs", arguments=("submit", "job.yaml"), again=("resume", "pets"), texts=texts)
    """

    run: str
    store: str
    arguments: tuple[str, ...]
    again: tuple[str, ...]
    texts: dict[str, str]
    includes: tuple[Path, ...] = ()
    plugins: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    python: str | None = None


def ps(
    address: Server = None, all_jobs: Annotated[bool, typer.Option("--all", help="List the jobs of other programs too.")] = False
) -> None:
    """List the attempts on a cluster, oldest first.

    An attempt is one submission of a run. The progress of a running attempt is shown if this machine can read its store.
    """
    server = connect(address)
    rows, closed = [], set[str]()
    for one in _or_fail(lambda: server.attempts(all_jobs=all_jobs)):
        started = one.started.astimezone().strftime("%Y-%m-%d %H:%M:%S") if one.started else "-"
        rows.append([one.id, one.run or "-", one.state, *_at(one, closed), started, _duration(one), short(one.summary)])
    table(["attempt", "run", "state", "stages", "stage", "progress", "rate", "left", "started", "duration", "message"], rows)


def logs(
    attempt: AttemptName,
    address: Server = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the output until the attempt ends; exit as submit does.")
    ] = False,
) -> None:
    """Print the output of an attempt."""
    server = connect(address)
    found = _or_fail(lambda: server.find(attempt))
    if not follow:
        typer.echo(_or_fail(lambda: server.log(found.id)), nl=False)
        return
    try:
        found = _tail(server, found.id)()
    except KeyboardInterrupt:
        fail(f"{found.id} is still running", code=130)
    raise SystemExit(_END[found.state])


def stop(attempt: AttemptName, address: Server = None) -> None:
    """Stop an attempt and wait until it has ended.

    What it has finished stays in the store; resume continues from there.
    """
    server = connect(address)
    found = _or_fail(lambda: server.find(attempt))
    if found.is_over:
        typer.echo(f"{found.id} had already ended: {found.state}")
        return
    found = _or_fail(lambda: server.stop(found.id))
    typer.echo(f"{found.id} has ended: {found.state}; what was done is kept")


def send(shipment: Shipment, address: str, *, detach: bool, force: bool) -> NoReturn:
    """Submit a command to a cluster, follow it unless `detach`, and end this process.

    Args:
        shipment: Command, files and options to send.
        address: URL of the job server.
        detach: Return once the cluster has accepted the job.
        force: Submit even if another attempt at the run is running.

    Raises:
        SystemExit: always. The code is 0 after success or when detached, 2 after a failure, 130 if stopped.

    Example:
        >>> send(shipment, "http://head:8265", detach=True, force=False)  # prints the id of the attempt, then exits
    """
    import getpass
    from contextlib import suppress
    from tempfile import TemporaryDirectory

    from wsss_ray.core.plugins import PLUGINS
    from wsss_ray.core.version import __version__
    from wsss_ray.deploy import bundle
    from wsss_ray.deploy.address import parse_address

    try:
        files = bundle.gather(shipment.includes, shipment.excludes)
        bundle.check_size(files)
    except bundle.BundleError as error:
        fail(str(error))
    server = connect(address)
    from wsss_ray.runners import jobs
    from wsss_ray.storage.filesystems import shown

    store = shown(shipment.store)
    running = None if force else _or_fail(lambda: server.running(shipment.run, store))
    if running is not None:
        fail(
            f"run {shipment.run}: attempt {running.id} is {running.state}. "
            f"Stop it with `{_command(server, 'stop', running.id)}`, or submit another one with --force."
        )
    metadata = {jobs.RUN: shipment.run, jobs.STORE: store, jobs.VERSION: __version__}
    with suppress(KeyError, OSError):
        metadata[jobs.USER] = getpass.getuser()
    attempt = bundle.attempt_id(shipment.run)
    modules = [*map(bundle.module_name, shipment.includes), *shipment.plugins]
    plugins = {PLUGINS: ",".join(modules)} if modules else {}
    here = sys.executable if shipment.python is None and parse_address(address).is_loopback else None
    command = bundle.entrypoint(shipment.arguments, python=shipment.python or "python", here=here)
    with TemporaryDirectory(prefix="wsss-ray-") as folder:
        bundle.write(Path(folder), files, shipment.texts)
        environment = {"WSSS_RAY_ATTEMPT": attempt} | plugins
        _or_fail(
            lambda: server.submit(attempt, entrypoint=command, folder=Path(folder), environment=environment, metadata=metadata)
        )
    typer.echo(f"submitted {attempt}")
    if detach:
        _say_how(attempt, shipment.store, server)
        raise SystemExit(0)
    _follow(attempt, shipment, server)


def connect(address: str | None) -> JobServer:
    """Return the job server at an address, with its token. Exit if there is none or if it may not be used."""
    from wsss_ray.deploy.address import AddressError, job_server

    if not address:
        fail("no job server is named. Give the cluster's with --address http://HEAD:8265 or RAY_API_SERVER_ADDRESS.")
    try:
        access = job_server(address, os.environ, home=Path.home())
    except AddressError as error:
        fail(str(error))
    if access.warning:
        typer.echo(f"warning: {access.warning}", err=True)
    from wsss_ray.runners.jobs import JobServer

    return _or_fail(lambda: JobServer(access))


def _follow(attempt: str, shipment: Shipment, server: JobServer) -> NoReturn:
    """Print the log of an attempt until it ends or the user detaches, and end this process."""
    tail = _tail(server, attempt)
    while True:
        try:
            found = tail()
            break
        except KeyboardInterrupt:
            answer = _ask() if sys.stdin.isatty() else None
            if answer == "c":
                continue
            if answer == "s":
                found = _or_fail(lambda: server.stop(attempt))
                break
            typer.echo(f"detached; {attempt} is still running")
            _say_how(attempt, shipment.store, server)
            raise SystemExit(130 if answer is None else 0) from None
    if found.state == "SUCCEEDED":
        raise SystemExit(0)
    what = "was stopped" if found.state == "STOPPED" else "has failed"
    fail(f"{attempt} {what}; what was done is kept, resume with `{_command(server, *shipment.again)}`", _END[found.state])


def _tail(server: JobServer, attempt: str) -> Callable[[], Attempt]:
    """Return a function that follows an attempt's log. After an interrupt, calling it again continues where it was."""
    from wsss_ray.runners.jobs import LogTail

    tail = LogTail(server, attempt, write=lambda text: typer.echo(text, nl=False), note=lambda text: typer.echo(text, err=True))
    return lambda: _or_fail(tail.follow)


def _ask() -> str:
    """Ask what to do with the attempt after Ctrl-C. Another Ctrl-C, or no answer, means detach."""
    while True:
        typer.echo("\n[d]etach, [s]top or [c]ontinue? ", nl=False, err=True)
        try:
            answer = input().strip().lower()
        except (EOFError, KeyboardInterrupt):
            return "d"
        if answer[:1] in ("d", "s", "c"):
            return answer[0]


def _say_how(attempt: str, store: str, server: JobServer) -> None:
    typer.echo(f"  {_command(server, 'logs', attempt, '--follow')}")
    typer.echo(f"  {shlex.join(['wsss-ray', 'status', '--store', store])}")
    typer.echo(f"  {_command(server, 'stop', attempt)}")


def _command(server: JobServer, *arguments: str) -> str:
    return shlex.join(["wsss-ray", *arguments, "--address", server.access.url])


def _or_fail(call: Callable[[], T]) -> T:
    """Return the result of a call to the job server. Exit with its one-line message if it fails."""
    from wsss_ray.runners.jobs import ClusterError

    try:
        return call()
    except ClusterError as error:
        fail(str(error))


def _at(attempt: Attempt, closed: set[str]) -> list[str]:
    """Return the progress cells of a running attempt from its store. `closed` collects stores that cannot be read from here."""
    from wsss_ray.reporting.status import run_status, sweep_status
    from wsss_ray.storage.store import RunStore

    if attempt.is_over or attempt.run is None or attempt.store is None:
        return [""] * 5
    try:
        store = RunStore(attempt.store) if attempt.store not in closed else None
        found = [look(store, attempt.run) for look in (run_status, sweep_status)] if store is not None else []
    except (OSError, ValueError):
        closed.add(attempt.store)
        found = []
    mine = [one for one in found if one is not None and (one.attempt or "").startswith(attempt.id)]
    return at(mine[0]) if mine else ["-"] * 5


def _duration(attempt: Attempt) -> str:
    from wsss_ray.reporting.words import span

    if attempt.started is None:
        return "-"
    return span(((attempt.ended or datetime.now(timezone.utc)) - attempt.started).total_seconds())
