"""Verify the files of a run: the command verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_ray.cli.complete import run_names
from wsss_ray.cli.console import OpenStore, display_errors, fail, open_store, table

if TYPE_CHECKING:
    from wsss_ray.storage.store import RunStore
    from wsss_ray.storage.verify import Examined, Finding

AnyRun = Annotated[str, typer.Argument(metavar="RUN", help="Run or sweep whose stages are read.", autocompletion=run_names)]
Repair = Annotated[
    bool, typer.Option("--repair", help="Remove what is damaged, so that the next submit makes it again, with the same bytes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def verify(run: AnyRun, store: OpenStore = "runs", repair: Repair = False, as_json: AsJson = False) -> None:
    """Read every file of a run and compare it with the records.

    Names what is damaged, lost, not ours, or made from something else. Exits with 2 if something is damaged and not repaired.
    """
    from wsss_ray.storage.claims import Claims, attempt
    from wsss_ray.storage.verify import Verification

    run_store = open_store(store, must_exist=True)
    names, others = _stages(run_store, run)
    display = display_errors()
    with display.meters():
        work = Verification(run_store, names)
        meter = display.meter("verifying", work.files, "files")
        examined = work.run(lambda: meter.add(1))
        meter.end()
        repaired: list[str] = []
        if repair and any(one.is_damaged for one in examined):
            with Claims(run_store, attempt()) as claims:
                for one in examined:
                    repaired += work.repair(one, claims)
    findings = [*others, *(found for one in examined for found in one.findings)]
    if as_json:
        stages = [_json(one, names[one.id]) for one in examined]
        about = {"store": run_store.uri, "run": run, "stages": stages, "repaired": repaired, "left": work.left}
        typer.echo(json.dumps(about | {"findings": list(map(asdict, findings))}, indent=2))
    else:
        _say(examined, names, findings, repaired)
        for line in work.left:
            typer.echo(f"not repaired: {line}")
    left = len(others) + len(work.left) if repair else sum(one.kind in ("damaged", "stale") for one in findings)
    if left:
        mend = "submit the job again" if repair else f"remove it by `wsss-ray verify {run} --repair`, then submit again"
        fail(f"run {run}: {left} of its files or stages are damaged; {mend}")


def _stages(store: RunStore, run: str) -> tuple[dict[str, str], list[Finding]]:
    """Return the names of the stages of a run, or of all trials of a sweep, by id; and what is damaged in the runs' folders."""
    from wsss_ray.core.errors import DamagedFile
    from wsss_ray.reporting.history import damaged_attempts
    from wsss_ray.storage.documents import SWEEP, TRIAL
    from wsss_ray.storage.verify import Finding

    folder, names, found = store.run_path(run), dict[str, str](), list[Finding]()
    runs = [run]
    if run in store.names(store.path("runs")) and store.exists(f"{folder}/sweep.json"):
        runs = [name for name in store.names(store.path("runs")) if name.startswith(f"{run}.")]
        documents = [(f"{folder}/sweep.json", SWEEP)]
        documents += [(f"{folder}/trials/{name}", TRIAL) for name in store.names(f"{folder}/trials")]
        for path, document in documents:
            try:
                store.read_json(path, document)
            except DamagedFile as error:
                found.append(Finding("damaged", "", path, str(error).removeprefix(f"{path}: ")))
    for name in runs:
        try:
            about = _about(store, name)
        except DamagedFile as error:
            if name == run:
                raise
            path, _, what = str(error).partition(": ")
            found.append(Finding("damaged", "", path, what))
            continue
        names |= {stage["id"]: stage["name"] for stage in about["stages"]}
        found += [Finding("damaged", "", path, what) for path, what in damaged_attempts(store, name)]
        path, digest = store.run_path(name, "job.yaml"), about.get("job")
        if digest is not None and (not store.exists(path) or _digest(store.read(path)) != digest):
            found.append(Finding("damaged", "", path, "is not the job that was submitted"))
    return names, found


def _about(store: RunStore, run: str) -> dict[str, Any]:
    """Return the content of a run's `run.json`. Exit if the store has no such run."""
    from wsss_ray.reporting.history import refuse_lost
    from wsss_ray.storage.documents import RUN

    path = store.run_path(run, "run.json")
    if run not in store.names(store.path("runs")):
        fail(f"no run {run!r} in {store.uri}; `wsss-ray status --store {store.uri}` lists them")
    refuse_lost(store, run)
    about: dict[str, Any] = store.read_json(path, RUN)
    return about


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _say(examined: list[Examined], names: dict[str, str], findings: list[Finding], repaired: list[str]) -> None:
    rows = [[names[one.id], one.id, _state(one), str(one.files), f"{one.bytes / 1e6:.1f}", _count(one)] for one in examined]
    table(["stage", "id", "state", "files", "MB", "findings"], rows, right=("files", "MB"))
    for found in findings:
        typer.echo(f"{found.kind}: {found.line}")
    for line in repaired:
        typer.echo(f"repaired: {line}")


def _count(one: Examined) -> str:
    return str(len(one.findings)) if one.findings else ""


def _state(one: Examined) -> str:
    """Return the state of a stage in one word: damaged, old, whole, unfinished or missing."""
    if one.is_damaged:
        return "damaged"
    if one.state.record is None:
        return "unfinished" if one.files else "missing"
    return "old" if any(found.kind == "old" for found in one.findings) else "whole"


def _json(one: Examined, name: str) -> dict[str, Any]:
    return {"name": name, "id": one.id, "state": _state(one), "files": one.files, "bytes": one.bytes}
