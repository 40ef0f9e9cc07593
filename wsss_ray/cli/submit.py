"""Run jobs: the commands submit and resume. `resume` submits the job file that the store keeps with a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_ray.cli.attempts import Shipment, send
from wsss_ray.cli.console import (
    JobFile,
    Override,
    RunName,
    StoreUri,
    Until,
    display_errors,
    exit_on_job_error,
    exit_on_stage_error,
    fail,
    load,
    open_store,
    plan_here,
)
from wsss_ray.cli.guard import guard, join, parse_address_or_exit
from wsss_ray.cli.own import Include, import_own
from wsss_ray.cli.scores import say_scores
from wsss_ray.cli.sweep import submit_sweep

if TYPE_CHECKING:
    from wsss_ray.config.planning import PlannedJob

Where = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Cluster to run on. http://HEAD:8265: Ray Jobs, from any machine. auto or HOST:PORT: this process drives it. "
        "Default: Ray starts on this machine.",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="With http://: return once the cluster has the job.")]
Force = Annotated[bool, typer.Option("--force", help="With http://: submit even if another attempt at the run is running.")]
Python = Annotated[
    str | None, typer.Option("--python", metavar="PATH", help="With http://: interpreter on the cluster. Default: python.")
]
ResumeUntil = Annotated[
    Literal["localize", "seed", "train", "all"] | None,
    typer.Option("--until", help="Stop after the last stage of this kind. Default: as submitted last. all: the whole job."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="With http://: files not to ship, such as mine/data/*. Repeatable."),
]


def submit(
    job_file: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Until = None,
    address: Where = None,
    detach: Detach = False,
    force: Force = False,
    python: Python = None,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Run every stage of a job that is not done yet.

    If the job has a sweep, runs its trials. Submit again to resume.
    """
    remote = _is_remote(address, detach=detach)
    import_own(include, remote=remote)
    if not remote:
        guard()
        _submit_here(plan_here(load(job_file, override), store, until))
        return
    assert address is not None
    from wsss_ray.config.document import JobError
    from wsss_ray.core.plugins import behind
    from wsss_ray.deploy.bundle import JOB_FILE, BundleError, resolve

    try:
        at_store = [f"run.store={json.dumps(store)}"] if store else []
        loaded, text = resolve(job_file, [*(override or ()), *at_store])
    except (JobError, BundleError) as error:
        fail(str(error))
    job = loaded.job
    shipment = _ship(
        ("submit", JOB_FILE),
        run=job.name,
        store=job.run.store,
        texts={JOB_FILE: text},
        until=until,
        python=python,
        include=include,
        exclude=exclude,
        plugins=tuple(plugin.module for plugin in behind((job.method, job.data, *job.run.loggers)).values()),
    )
    send(shipment, address, detach=detach, force=force)


def resume(
    run: RunName,
    store: Annotated[str, typer.Option("--store", metavar="URI", help="Run store that holds the run.")] = "runs",
    until: ResumeUntil = None,
    address: Where = None,
    detach: Detach = False,
    force: Force = False,
    python: Python = None,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Continue a run with the job that it was submitted with last.

    The store keeps that job with the run, and where it was to stop.
    """
    remote = _is_remote(address, detach=detach)
    import_own(include, remote=remote)
    if not remote:
        guard()
        _resume_here(run, store, until)
        return
    assert address is not None
    from wsss_ray.deploy.bundle import is_local_store
    from wsss_ray.storage.filesystems import CREDENTIALS, holds_credentials

    if holds_credentials(store):
        fail(f"--store: {CREDENTIALS}")
    if is_local_store(store):
        fail(f"--store {store}: is relative, and machines of a cluster share no working folder. Give the path as they see it.")
    shipment = _ship(
        ("resume", run, "--store", store),
        run=run,
        store=store,
        texts={},
        until=until,
        python=python,
        include=include,
        exclude=exclude,
    )
    send(shipment, address, detach=detach, force=force)


def _submit_here(planned: PlannedJob) -> None:
    """Run every missing stage of a job or its sweep, in this process or on the cluster that it drives."""
    from wsss_ray.config.planning import check_loggers

    with exit_on_job_error():
        check_loggers(planned.job)
    if planned.job.sweep is not None:
        submit_sweep(planned)
        return
    from wsss_ray.reporting.progress import Display

    with display_errors().still("loading what runs it"):
        from wsss_ray.runners.submit import finished_stages, run_planned
    with exit_on_stage_error(planned.store):
        report = run_planned(planned, Display())
    say_scores(finished_stages(planned))
    typer.echo(f"report: {report}")


def _resume_here(run: str, store: str, until: ResumeUntil) -> None:
    """Submit the job that the store keeps with a run or sweep."""
    from wsss_ray.runners.python import plan_again

    run_store = open_store(store, must_exist=True)
    try:
        planned = plan_again(run_store, run, until=None if until == "all" else until, whole=until == "all")
    except ValueError as error:
        fail(str(error))
    _submit_here(planned)


def _ship(
    command: tuple[str, ...],
    *,
    run: str,
    store: str,
    texts: dict[str, str],
    until: ResumeUntil,
    python: str | None,
    include: list[Path] | None,
    exclude: list[str] | None,
    plugins: tuple[str, ...] = (),
) -> Shipment:
    """Return the shipment of a command, with the command that resumes it."""
    stops = ("--until", until) if until else ()
    return Shipment(
        run=run,
        store=store,
        arguments=(*command, "--address", "auto", *stops),
        again=("resume", run, "--store", store, *stops, *_repeated(python, include, exclude)),
        texts=texts,
        includes=tuple(include or ()),
        plugins=plugins,
        excludes=tuple(exclude or ()),
        python=python,
    )


def _is_remote(address: str | None, *, detach: bool) -> bool:
    """Return True if the address is a job server. Join any other cluster from this process."""
    cluster = parse_address_or_exit(address) if address is not None else None
    if cluster is not None and cluster.kind == "jobs":
        return True
    if detach:
        fail("--detach: goes with --address http://HEAD:8265. Without a job server, the run ends with this process.")
    if cluster is not None:
        join(cluster)
    return False


def _repeated(python: str | None, includes: list[Path] | None, excludes: list[str] | None) -> Sequence[str]:
    """Return the options that another attempt needs too."""
    options = [("--python", python)] if python else []
    options += [("--include", str(path)) for path in includes or ()]
    options += [("--exclude", pattern) for pattern in excludes or ()]
    return [part for option in options for part in option]
