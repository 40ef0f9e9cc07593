"""Show the progress of runs: the command status. `ps` uses its cells too."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_ray.cli.complete import run_names
from wsss_ray.cli.console import OpenStore, fail, open_store, table

if TYPE_CHECKING:
    from wsss_ray.reporting.status import RunStatus, StageStatus, SweepStatus

AnyRun = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="Run whose stages, or sweep whose trials, are shown.", autocompletion=run_names),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def status(run: AnyRun = None, store: OpenStore = "runs", as_json: AsJson = False) -> None:
    """Show the progress of all runs of a store, or of one run.

    Shows rate, time left, failures, and which process works on it.
    """
    from wsss_ray.core.errors import DamagedFile
    from wsss_ray.reporting.history import refuse_lost
    from wsss_ray.reporting.status import RunStatus, Seen, SweepStatus, run_status, sweep_status

    run_store = open_store(store, must_exist=True)
    names = run_store.names(run_store.path("runs"))
    if run is not None:
        if run not in names:
            fail(f"no run {run!r} in {run_store.uri}; `wsss-ray status --store {run_store.uri}` lists them")
        is_sweep = run_store.exists(run_store.run_path(run, "sweep.json"))
        names = [name for name in names if name == run or (is_sweep and name.startswith(f"{run}."))]
    seen: Seen = {}
    damage: dict[str, str] = {}
    sweeps, runs = list[SweepStatus](), list[RunStatus]()
    for name in names:
        try:
            sweeps += filter(None, [sweep_status(run_store, name)])
            runs += filter(None, [run_status(run_store, name, seen)])
        except DamagedFile as error:
            if name == run:
                raise
            damage[name] = str(error)
    if run is not None and not sweeps and not runs:
        refuse_lost(run_store, run)
    if as_json:
        found = {"sweeps": list(map(asdict, sweeps)), "runs": list(map(_json, runs))}
        all_of_it = {"store": run_store.uri, **found, "damage": damage}
        typer.echo(json.dumps(all_of_it, indent=2))
        return
    if run is not None and not sweeps:
        for one in runs:
            _say_stages(one)
        return
    header = ["run", "state", "stages", "stage", "progress", "rate", "left", "errors", "by", "sign of life"]
    rows = [[one.name, "sweep", *at(one), "", "", ""] for one in sweeps]
    rows += [[one.name, one.state, *at(one), _count(one.errors), *_maker(one.now)] for one in runs]
    rows += [[name, "damaged", *[""] * (len(header) - 2)] for name in damage]
    table(header, sorted(rows, key=lambda row: row[0]))
    for one in runs:
        if one.now is not None and one.now.error is not None and one.state == one.now.state:
            typer.echo(f"{one.name}: {_why(one.now)}")
    for name, what in damage.items():
        typer.echo(f"{name}: damaged: {what}")


def at(found: RunStatus | SweepStatus) -> list[str]:
    """Return the progress cells of a run or sweep.

    Returns:
        Stages done, the current stage, its progress, its rate, and the time left. A sweep has only its trials.

    Example:
        >>> at(run_status(store, "pets"))
        ['2/5', 'segmenter', '40/90 steps', '11.2 steps/s', '0:00:04']
    """
    from wsss_ray.reporting.status import SweepStatus

    if isinstance(found, SweepStatus):
        return ["", "", f"{found.ended}/{found.total} trials", "", ""]
    name = found.now.name if found.now is not None else ""
    return [f"{found.done}/{len(found.stages)}", name, *(_progress(found.now) if found.now is not None else ["", "", ""])]


def _say_stages(run: RunStatus) -> None:
    from wsss_ray.reporting.words import roughly

    header = ["stage", "id", "state", "progress", "rate", "left", "time", "errors", "by", "sign of life"]
    rows = []
    for stage in run.stages:
        time = f"{stage.seconds:.1f} s" if stage.seconds is not None else ""
        rows.append([stage.name, stage.id, stage.state, *_progress(stage), time, _count(stage.errors), *_maker(stage)])
    table(header, rows)
    if run.left_s is not None:
        typer.echo(f"whole run: about {roughly(run.left_s)} left, by the times of check and the pace of the training")
    for stage in run.stages:
        if stage.error is not None:
            typer.echo(_why(stage))


def _why(stage: StageStatus) -> str:
    """Say why a stage failed, with the place of the logs, or what of it is damaged."""
    return f"{stage.state}: {stage.error}" + (f"\n  logs: {stage.logs}" if stage.state == "failed" else "")


def _progress(stage: StageStatus) -> list[str]:
    """Return cells for progress, rate and time left. `-` marks what is unknown of a running stage."""
    from wsss_ray.reporting.words import pace, span

    unknown = "-" if stage.state == "running" else ""
    made = f"{stage.made}/{'-' if stage.work is None else stage.work} {stage.unit}"
    rate = pace(stage.rate, stage.unit) if stage.rate is not None else unknown
    return [made if stage.state != "waiting" else "", rate, span(stage.left_s) if stage.left_s is not None else unknown]


def _maker(stage: StageStatus | None) -> list[str]:
    if stage is None:
        return ["", ""]
    return [stage.holder or "", f"{stage.silent_s:.0f} s ago" if stage.silent_s is not None else ""]


def _count(number: int) -> str:
    return str(number) if number else ""


def _json(run: RunStatus) -> dict[str, Any]:
    return asdict(run) | {"state": run.state, "done": run.done, "errors": run.errors}
