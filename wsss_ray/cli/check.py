"""Try a job before its long run: run two batches of each stage, and estimate time, memory and disk of the whole."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from wsss_ray.cli.console import JobFile, Override, StoreUri, Until, check_loggers, fail, load, plan_here, say_data, table
from wsss_ray.cli.signals import unwound_by_sigterm

Images = Annotated[int, typer.Option("--images", min=2, help="Images to try from each split.")]
Memory = Annotated[
    float | None, typer.Option("--memory", metavar="GB", min=0, help="Memory to use at most. Default: what is free.")
]

_ENOUGH = 5  # failed images that are named


def check(
    job: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Until = None,
    images: Images = 6,
    memory: Memory = None,
) -> None:
    """Run two batches of each stage and estimate the whole job.

    Finds mistakes before the long run, and estimates time, memory and disk. Needs no Ray and leaves no files behind.
    """
    from rich.console import Console

    from wsss_ray.preflight.dry_run import CheckError, try_job
    from wsss_ray.preflight.estimate import estimate
    from wsss_ray.preflight.memory import free_memory
    from wsss_ray.reporting.progress import Display

    loaded, plan, run_store = plan_here(load(job, override), store, until)
    check_loggers(loaded)
    say_data(plan)
    resources, notes = _places(loaded)
    if loaded.sweep is not None:
        notes.append("the job has a sweep: this is one trial of it, as the file stands; trials share stages (see plan)")
    display = Display(Console(stderr=True, highlight=False))
    try:
        with unwound_by_sigterm(), display.meters():
            meter = display.meter("checking", len(plan.stages), "stages")
            measures = try_job(
                loaded,
                plan,
                images=images,
                workers=resources.workers,
                threads=resources.threads,
                gpu=resources.gpus > 0,
                memory=1e9 * memory if memory is not None else free_memory(),
                until=lambda short: short.cut(until),
                begin=lambda stage: meter.add(1, stage.name),
            )
    except CheckError as error:
        fail(f"{job}: {error}")
    except ValueError as error:
        fail(f"{job}: {error}")
    except OSError as error:
        fail(f"the temporary store: {error.strerror or error}; TMPDIR names the folder for temporary files")
    except KeyboardInterrupt:
        fail("interrupted; nothing is left of it", code=130)
    done = {stage.name for stage in plan if run_store.record(stage) is not None}
    found = estimate(plan, measures, loaded.run, resources, done=done)
    _show(found)
    busy = os.getloadavg()[0]
    if busy > 1.5 * (os.cpu_count() or 1):
        notes.append(f"this machine is busy (load {busy:.0f} on {os.cpu_count()} CPUs): when it is not, all goes faster")
    for note in (*notes, *_unknown(loaded, resources), *_warnings(found, run_store)):
        typer.echo(note)
    _say_failed(job, measures, images, loaded.run.max_bad_fraction)


def _places(job: Any) -> tuple[Any, list[str]]:
    """Return the resources that the job gets on this machine, and notes for the user about them."""
    from wsss_ray.preflight.estimate import JobResources
    from wsss_ray.preflight.survey.sizes import Machine
    from wsss_ray.runners.admission import training_share
    from wsss_ray.runners.cluster import Node, Resources

    run, machine, notes = job.run, Machine.here(), []
    gpus = len(machine.gpus) if run.gpu is not False else 0
    if run.gpu and not gpus:
        notes.append("run.gpu is true and here is no GPU: these are the times of this CPU, and GPU memory was not tried")
    elif not machine.gpus:
        notes.append("here is no GPU: on a machine with one, trainings and maps take a fraction of this")
    workers = run.worker_range[1]
    cpus = int(max(machine.cpus, 2, workers * (run.cpus_per_worker or 1)))
    try:
        here = Resources((Node("here", "here", cpus + 1.0, float(gpus)),))
        share = training_share(run.model_copy(update={"gpu": gpus > 0}), here)
        threads = max(1, int(share.cpus))
    except ValueError as error:
        threads = max(1, int(run.cpus_per_worker or machine.cpus))
        notes.append(f"not on this machine: {error}. The figures are for machines like this one, as many as it takes")
    if workers * threads > machine.cpus:
        notes.append(f"{workers} workers with {threads} CPUs each: this machine has {machine.cpus}, on which they take turns")
    return JobResources(workers=workers, threads=min(threads, machine.cpus), cpus=cpus, gpus=gpus), notes


def _show(found: list[Any]) -> None:
    """Print the table of stages and their total."""
    from wsss_ray.preflight.estimate import RAY_START, total_bytes, total_seconds

    gpu = any(one.on_gpu for one in found)
    header = ["stage", "work", "each", "time", "memory", *(["GPU memory"] if gpu else []), "disk"]
    rows = []
    for one in found:
        each = f"{one.each:.2f} s" if one.each >= 1 else f"{1000 * one.each:.1f} ms"
        memory = f"{one.processes} x {_size(one.resident)}"
        time = "done" if one.done else _time(one.seconds)
        on_gpu = [_size(one.on_gpu)] if gpu else []
        rows.append([one.name, f"{one.work} {one.unit}", each, time, memory, *on_gpu, _size(one.num_bytes)])
    table(header, rows, right=header[1:])
    typer.echo(
        f"in all about {_time(total_seconds(found))} (with {RAY_START:.0f} s for the start of Ray) and "
        f"{_size(total_bytes(found))} of disk, on this machine, if nothing else runs on it"
    )


def _unknown(job: Any, resources: Any) -> list[str]:
    """Name what a trial on one machine cannot predict."""
    cluster = resources.workers > 1 or "://" in job.run.store or os.environ.get("RAY_ADDRESS")
    others = ", other machines' speed, the network between them and the store's" if cluster else ""
    return [f"not known: how good the model will be{others}; rare large or broken images, as a few were tried"]


def _warnings(found: list[Any], store: Any) -> list[str]:
    """Return a warning for each resource that the job exceeds on this machine."""
    import shutil
    from pathlib import Path

    from wsss_ray.preflight.estimate import total_bytes
    from wsss_ray.preflight.memory import free_memory

    warnings, free = [], free_memory()
    largest = max(found, key=lambda one: one.processes * one.resident)
    if free is not None and largest.processes * largest.resident > free:
        field = "run.workers or run.micro_batch" if largest.unit == "steps" else "run.image_workers"
        need = f"{largest.processes} processes of {_size(largest.resident)}"
        warnings.append(f"warning: {largest.name} takes {need}, and {_size(free)} are free here; lower {field}")
    if store.is_local:
        folder = next(path for path in (Path(store.path()), *Path(store.path()).parents) if path.exists())
        left, need_bytes = shutil.disk_usage(folder).free, total_bytes(found)
        if need_bytes > left:
            warnings.append(f"warning: the store {store.uri} has {_size(left)} free; put it elsewhere by --store")
    return warnings


def _say_failed(job: Any, measures: list[Any], images: int, allowed: float) -> None:
    """Name the images that failed. Exit if so many failures would end the run."""
    failed = [one for measure in measures for one in measure.failed]
    for one in failed[:_ENOUGH]:
        typer.echo(f"warning: {one.what}: {one.reason} (stage {one.stage})")
    worst = max(measures, key=lambda measure: len(measure.failed))
    if len(worst.failed) > allowed * images:
        first, count = worst.failed[0], len(worst.failed)
        fail(
            f"{job}: stage {worst.stage.name}: {count} of at most {images} images failed, such as {first.what}: {first.reason}; "
            f"mend or remove it: more than run.max_bad_fraction ({allowed:g}) of the images end the run"
        )


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _size(num_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
