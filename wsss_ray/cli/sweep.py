"""Run a job with a sweep: show its trials before, and their ranking after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from wsss_ray.cli.console import exit_on_job_error, exit_on_stage_error, fail, table
from wsss_ray.core.counted import counted

if TYPE_CHECKING:
    from wsss_ray.config.job import TrialJob
    from wsss_ray.config.planning import PlannedJob
    from wsss_ray.config.sweep import Sweep
    from wsss_ray.core.graph import Plan
    from wsss_ray.storage.store import RunStore
    from wsss_ray.storage.trials import TrialRow


def submit_sweep(planned: PlannedJob) -> None:
    """Run the trials of a job's sweep and print their results.

    Args:
        planned: The job with the sweep.

    Raises:
        SystemExit: if the sweep or any of its trials fails.

    Example:
        >>> submit_sweep(plan("jobs/sweeps/demo_theta.yaml", until="seed"))
    """
    from wsss_ray.config.sweep import result_table
    from wsss_ray.reporting.progress import Display
    from wsss_ray.runners.submit import run_planned_sweep

    store, sweep = planned.store, planned.loaded.sweep
    with exit_on_job_error():
        trials = planned.trials()
    say_trials(sweep, trials, store)
    with exit_on_stage_error(store), exit_on_job_error():
        swept = run_planned_sweep(planned, trials, Display())
    rows = swept.rows
    if sweep.trials:
        by_name = {trial.name: trial for trial in sweep.trials}
        if sweep.paper:
            typer.echo(sweep.paper)
        table(*result_table(sweep, [(by_name[row.name], row.metrics) for row in rows]))
    else:
        say_ranking(rows, sweep.metrics)
    folder = store.run_path(planned.name)
    if store.exists(f"{folder}/best.yaml"):
        typer.echo(f"best: {folder}/best.yaml")
    typer.echo(f"table: {folder}/trials.parquet\nreport: {folder}/report.html")
    failed = [row for row in rows if row.state in ("failed", "missing")]
    if failed:
        what = "\n".join(f"trial {row.name!r}, seed {row.seed}: {row.error or 'did not come to its end'}" for row in failed)
        fail(f"{what}\nlogs: {swept.logs}")


def say_trials(sweep: Sweep, trials: Sequence[tuple[TrialJob, Plan]], store: RunStore) -> None:
    """Print the trials of a sweep and how many stages they share.

    Args:
        sweep: The sweep.
        trials: The trials with their plans; none if they are chosen as results come in.
        store: Run store, which has the stages that are done.

    Example:
        >>> say_trials(planned.loaded.sweep, planned.trials(), planned.store)
    """
    if not trials:
        fields = ", ".join(sweep.space)
        how = "bred in generations" if sweep.search == "random" else f"chosen by {sweep.search} as results come in"
        typer.echo(f"{counted(sweep.samples, 'trial')} over {fields}, {how}")
        return
    from wsss_ray.storage.finished import Finished

    finished = Finished(store)  # one for all: trials share stages
    finished.look_at({stage.id: stage for _, plan in trials for stage in plan}.values())
    rows, seen = [], set()
    for one, plan in trials:
        new = [stage for stage in plan if stage.id not in seen]
        seen |= {stage.id for stage in plan}
        rows.append([one.trial.name, str(one.seed), f"{sum(map(finished.is_done, plan))}/{len(plan.stages)}", str(len(new))])
    table(["trial", "seed", "stages done", "stages of its own"], rows)
    stages = counted(sum(len(plan.stages) for _, plan in trials), "stage")
    typer.echo(f"{counted(len(trials), 'job')}, {stages}, {len(seen)} of them distinct")


def say_ranking(rows: Sequence[TrialRow], metrics: tuple[str, ...]) -> None:
    """Print the trials from best to worst, by the first metric."""
    from wsss_ray.storage.trials import ranking

    shown = []
    for place, row in enumerate(ranking(rows, metrics[0]), start=1):
        scores = [f"{100 * row.metrics[name]:.1f}" if name in row.metrics else "-" for name in metrics]
        shown.append([str(place), row.name, str(row.seed), *scores, row.state, f"{row.seconds:.0f} s"])
    table(["rank", "trial", "seed", *metrics, "state", "time"], shown)
