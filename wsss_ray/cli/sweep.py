"""Run a job with a sweep: show its trials before, and their ranking after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from wsss_ray.cli.console import Until, count_done, exit_on_stage_error, fail, plan_trials, table

if TYPE_CHECKING:
    from wsss_ray.config.job import Listed, LoadedJob, TrialJob
    from wsss_ray.config.sweep import Sweep
    from wsss_ray.core.graph import Plan
    from wsss_ray.storage.store import RunStore
    from wsss_ray.storage.trials import TrialRow


def submit_sweep(loaded: LoadedJob, store: RunStore, until: Until, listed: Listed) -> None:
    """Run the trials of a job's sweep and print their results.

    Args:
        loaded: The job with the sweep.
        store: Run store.
        until: Kind of stage after which to stop (see `core.plan.until`); None for whole plans.
        listed: Data of the job itself, as `plan_here` fills it.

    Raises:
        SystemExit: if the sweep or any of its trials fails.

    Example:
        >>> listed = {}
        >>> _, _, store = plan_here(loaded, None, None, listed)
        >>> submit_sweep(loaded, store, None, listed)
    """
    from wsss_ray.config.paths import located
    from wsss_ray.config.sweep import result_table
    from wsss_ray.reporting.progress import Display
    from wsss_ray.runners.sweep import run_sweep
    from wsss_ray.runners.trial import SweepRun
    from wsss_ray.storage.claims import attempt

    sweep, trials = loaded.sweep, plan_trials(loaded, until, listed)
    say_trials(sweep, trials, store)
    with exit_on_stage_error(store):
        try:
            work = SweepRun(
                sweep_job=loaded,
                trials=tuple(trials),
                store=store,
                data=listed[located(loaded.job).data] if sweep.learns else None,
                attempt=f"{attempt()} {time.time_ns()}",  # a restarted container may have the same process id
                cut=until,
            )
            rows = run_sweep(work, Display())
        except ValueError as error:
            fail(f"{loaded.document.path}: {error}")
    if sweep.trials:
        by_name = {trial.name: trial for trial in sweep.trials}
        if sweep.paper:
            typer.echo(sweep.paper)
        table(*result_table(sweep, [(by_name[row.name], row.metrics) for row in rows]))
    else:
        say_ranking(rows, sweep.metrics)
    folder = store.run_path(loaded.job.name)
    if store.exists(f"{folder}/best.yaml"):
        typer.echo(f"best: {folder}/best.yaml")
    typer.echo(f"table: {folder}/trials.parquet\nreport: {folder}/report.html")
    failed = [row for row in rows if row.state in ("failed", "missing")]
    if failed:
        what = "\n".join(f"trial {row.name!r}, seed {row.seed}: {row.error or 'did not come to its end'}" for row in failed)
        fail(f"{what}\nlogs: {work.logs}")


def say_trials(sweep: Sweep, trials: list[tuple[TrialJob, Plan]], store: RunStore) -> None:
    """Print the trials of a sweep and how many stages they share.

    Args:
        sweep: The sweep.
        trials: The trials with their plans; none if they are chosen as results come in.
        store: Run store, which has the stages that are done.

    Example:
        >>> say_trials(loaded.sweep, plan_trials(loaded, None, {}), store)
    """
    if not trials:
        fields = ", ".join(sweep.space)
        how = "bred in generations" if sweep.search == "random" else f"chosen by {sweep.search} as results come in"
        typer.echo(f"{sweep.samples} trials over {fields}, {how}")
        return
    rows, seen = [], set()
    for one, plan in trials:
        new = [stage for stage in plan if stage.id not in seen]
        seen |= {stage.id for stage in plan}
        rows.append([one.trial.name, str(one.seed), f"{count_done(plan, store)}/{len(plan.stages)}", str(len(new))])
    table(["trial", "seed", "stages done", "stages of its own"], rows)
    typer.echo(f"{len(trials)} jobs, {sum(len(plan.stages) for _, plan in trials)} stages, {len(seen)} of them distinct")


def say_ranking(rows: list[TrialRow], metrics: tuple[str, ...]) -> None:
    """Print the trials from best to worst, by the first metric."""
    from wsss_ray.storage.trials import ranking

    shown = []
    for place, row in enumerate(ranking(rows, metrics[0]), start=1):
        scores = [f"{100 * row.metrics[name]:.1f}" if name in row.metrics else "-" for name in metrics]
        shown.append([str(place), row.name, str(row.seed), *scores, row.state, f"{row.seconds:.0f} s"])
    table(["rank", "trial", "seed", *metrics, "state", "time"], shown)
