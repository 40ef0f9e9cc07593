"""Try a job before its long run: run two batches of each stage, and estimate time, memory and disk of the whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_ray.cli.console import (
    JobFile,
    Override,
    StoreUri,
    Until,
    display_errors,
    exit_on_job_error,
    fail,
    load,
    plan_here,
    table,
)
from wsss_ray.cli.own import Include, import_own
from wsss_ray.cli.signals import unwound_by_sigterm

if TYPE_CHECKING:
    from wsss_ray.config.job import JobConfig
    from wsss_ray.core.graph import Plan
    from wsss_ray.preflight.dry_run import Measure
    from wsss_ray.preflight.forecast import Forecast
    from wsss_ray.preflight.survey.sizes import Machine
    from wsss_ray.storage.store import RunStore

Images = Annotated[int, typer.Option("--images", min=2, help="Images to try from each split.")]
Memory = Annotated[
    float | None, typer.Option("--memory", metavar="GB", min=0, help="Memory to use at most. Default: what is free.")
]

_ENOUGH = 5  # failed images that are named


def check(
    job_file: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Until = None,
    images: Images = 6,
    memory: Memory = None,
    include: Include = None,
) -> None:
    """Run two batches of each stage and estimate the whole job.

    Finds mistakes before the long run, and estimates time, memory and disk. Needs no Ray. Keeps only the times, in the store.
    """
    from wsss_ray.config.planning import check_loggers

    import_own(include)
    planned = plan_here(load(job_file, override), store, until)
    job, plan, run_store = planned.job, planned.plan, planned.store
    with exit_on_job_error():
        check_loggers(job)
        for line in planned.data:
            typer.echo(line)
    with display_errors().still("loading what tries a job"):
        from wsss_ray.preflight.advice import advice
        from wsss_ray.preflight.forecast import forecast
        from wsss_ray.preflight.memory import free_memory
        from wsss_ray.preflight.survey.sizes import Machine
        from wsss_ray.storage.finished import Finished

    machine = Machine.here()
    missing = {stage.name for stage in plan.missing(Finished(run_store).is_done)}
    display = display_errors()
    try:
        with unwound_by_sigterm(), display.meters():
            meter, before = display.meter("checking", len(plan.stages), "stages"), count()
            found = forecast(
                job,
                plan,
                machine,
                images=images,
                memory=1e9 * memory if memory is not None else free_memory(),
                done={stage.name for stage in plan} - missing,
                until=lambda short: short.cut(until),
                begin=lambda stage: meter.to(next(before), stage.name),
            )
    except ValueError as error:
        fail(f"{job_file}: {error}")
    except OSError as error:
        fail(f"the temporary store: {error.strerror or error}; TMPDIR names the folder for temporary files")
    except KeyboardInterrupt:
        fail("interrupted; nothing is left of it", code=130)
    _show(found)
    for line in advice(job, plan, found.estimates, gpu=found.resources.gpus > 0):
        typer.echo(line)
    for note in (*_notes(job, machine, found), *_warnings(found, run_store)):
        typer.echo(note)
    _keep(run_store, job.name, found, plan)
    _say_failed(job_file, found.measures, images, job.run.max_bad_fraction)


def _keep(store: RunStore, run: str, found: Forecast, plan: Plan) -> None:
    """Keep the expected times in the store, from which `submit` and `status` say how long the whole job takes."""
    from wsss_ray.reporting.remaining import keep_expected

    ids = {stage.name: stage.id for stage in plan}
    try:
        keep_expected(store, run, {ids[one.name]: one.seconds for one in found.estimates})
    except OSError as error:
        typer.echo(f"note: {store.uri}: the times cannot be kept for submit: {error.strerror or error}")


def _notes(job: JobConfig, machine: Machine, found: Forecast) -> list[str]:
    """Say how this machine differs from one that suits the job, and what a trial on one machine cannot predict."""
    notes, resources, problem = list[str](), found.resources, found.problem
    if job.sweep is not None:
        notes.append("The job has a sweep. The check ran one trial, with the values of the job file. Trials share stages.")
    if job.run.gpu and not resources.gpus:
        notes.append("run.gpu: is true, but this machine has no GPU. Times are for its CPUs; GPU memory is not checked.")
    elif not machine.gpus:
        notes.append("This machine has no GPU. With a GPU, trainings and maps are much faster.")
    if problem is not None:
        notes.append(f"The job does not fit this machine: {problem} The estimate assumes enough machines like it.")
    workers, threads = resources.workers, resources.threads
    if workers * threads > machine.cpus:
        many = f"{workers} workers with {threads} CPUs each"
        notes.append(f"{many} need more CPUs than the {machine.cpus} here, so workers share them.")
    busy = os.getloadavg()[0]
    if busy > 1.5 * (os.cpu_count() or 1):
        notes.append(f"This machine is busy (load {busy:.0f} on {os.cpu_count()} CPUs). The estimates are too high.")
    cluster = workers > 1 or "://" in job.run.store or os.environ.get("RAY_ADDRESS")
    others = ", the speed of other machines, or that of the network and the store" if cluster else ""
    notes.append(f"The check does not predict the model's quality{others}, and can miss rare large or broken images.")
    return notes


def _show(found: Forecast) -> None:
    """Print the table of stages and their total."""
    from wsss_ray.preflight.estimate import RAY_START, total_bytes
    from wsss_ray.reporting.words import roughly, size

    gpu = any(one.on_gpu for one in found.estimates)
    header = ["stage", "work", "each", "time", "memory", *(["GPU memory"] if gpu else []), "disk"]
    rows = []
    for one in found.estimates:
        each = f"{one.each:.2f} s" if one.each >= 1 else f"{1000 * one.each:.1f} ms"
        memory = f"{one.processes} x {size(one.resident)}"
        time = "done" if one.done else roughly(one.seconds)
        on_gpu = [size(one.on_gpu)] if gpu else []
        rows.append([one.name, f"{one.work} {one.unit}", each, time, memory, *on_gpu, size(one.num_bytes)])
    table(header, rows, right=header[1:])
    typer.echo(
        f"in all about {roughly(found.seconds)} (with {RAY_START:.0f} s for the start of Ray) and "
        f"{size(total_bytes(found.estimates))} of disk, on this machine, if nothing else runs on it"
    )


def _warnings(found: Forecast, store: RunStore) -> list[str]:
    """Return a warning for each resource that the job exceeds on this machine."""
    from wsss_ray.preflight.estimate import free_disk, memory_shortage, total_bytes
    from wsss_ray.preflight.memory import free_memory
    from wsss_ray.reporting.words import size

    warnings, free, left = [], free_memory(), free_disk(store)
    if free is not None and (largest := memory_shortage(found.estimates, free)) is not None:
        field = "run.workers or run.micro_batch" if largest.unit == "steps" else "run.image_workers"
        need = f"{largest.processes} processes of {size(largest.resident)}"
        warnings.append(f"warning: {largest.name} takes {need}, and {size(free)} are free here; lower {field}")
    if left is not None and total_bytes(found.estimates) > left:
        warnings.append(f"warning: the store {store.uri} has {size(left)} free; put it elsewhere by --store")
    return warnings


def _say_failed(job_file: Path, measures: Sequence[Measure], images: int, allowed: float) -> None:
    """Name the images that failed, or that lack a usable mask. Exit if so many failures would end the run."""
    for measure in measures:
        if measure.bare.first is not None:
            what, reason = measure.bare.first
            tried = f"{measure.bare.count} of the images that were tried"
            typer.echo(f"warning: {measure.stage.name}: {tried} are packed without a mask, such as {what}: {reason}")
    failed = [one for measure in measures for one in measure.failed]
    for one in failed[:_ENOUGH]:
        typer.echo(f"warning: {one.what}: {one.reason} (stage {one.stage})")
    worst = max(measures, key=lambda measure: len(measure.failed))
    if len(worst.failed) > allowed * images:
        first, count = worst.failed[0], len(worst.failed)
        fail(
            f"{job_file}: stage {worst.stage.name}: {count} of at most {images} images failed, such as {first.what}: "
            f"{first.reason}; mend or remove it: more than run.max_bad_fraction ({allowed:g}) of the images end the run"
        )
