"""Commands that make things: submit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wsss_ray.cli.console import (
    INTERRUPTED,
    JobFile,
    Override,
    StoreUri,
    Until,
    count_done,
    fail,
    load_plan,
    load_sweep,
    say_data,
    score_table,
    table,
)
from wsss_ray.cli.look import say_trials


def submit(job: JobFile, override: Override = None, store: StoreUri = None, until: Until = None) -> None:
    """Run a job, or the trials of its sweep: every stage that is not done yet. Submit again to resume."""
    from wsss_ray.progress import Display
    from wsss_ray.records import StageError

    loaded, plan, run_store = load_plan(job, override, store, until)
    if loaded.sweep is not None:
        _submit_sweep(job, override, loaded, run_store, until)
        return
    display = Display()
    display.say(f"{loaded.name}: {len(plan.stages)} stages, {count_done(plan, run_store)} done, store {run_store.uri}")
    say_data(plan)
    from wsss_ray.runners.execute import execute

    try:
        report = execute(loaded, plan, run_store, display)
    except StageError as error:
        fail(str(error))
    except OSError as error:
        fail(f"store {run_store.uri}: {error}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, code=130)
    records = [(stage.name, run_store.record(stage)) for stage in plan if stage.kind == "evaluate"]
    score_table([(name, record) for name, record in records if record])
    typer.echo(f"report: {report}")


def _submit_sweep(job: Path, override: list[str] | None, loaded: Any, store: Any, until: str | None) -> None:
    from wsss_ray.progress import Display
    from wsss_ray.runners.sweep import run_trials, scores
    from wsss_ray.sweep import result_table

    trials = load_sweep(job, override, until)
    say_trials(trials, store)
    try:
        failed = run_trials(trials, store, Display())
    except OSError as error:
        fail(f"store {store.uri}: {error}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, code=130)
    header, rows = result_table(loaded.sweep, [(one.trial, scores(plan, store)) for one, plan in trials])
    if loaded.sweep.paper:
        typer.echo(loaded.sweep.paper)
    table(header, rows)
    if failed:
        fail("\n".join(f"trial {one.trial.name!r}, seed {one.seed}: {error}" for one, error in failed))
