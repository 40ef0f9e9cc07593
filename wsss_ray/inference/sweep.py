"""Look at a sweep from Python: the rows of its trials, and the best of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wsss_ray.config.planning import open_store
from wsss_ray.inference.run import Run
from wsss_ray.storage.documents import TRIAL
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.trials import TrialRow, ranking


@dataclass(frozen=True)
class Sweep:
    """A sweep of a store.

    Attributes:
        name: The name of the sweep.
        store: The store.
        rows: Its trials, the best one first: what they set, their scores, their states.

    Example:
        >>> sweep = wsss_ray.submit_sweep("jobs/sweeps/demo_theta.yaml", until="seed")
        >>> sweep.rows[0].parameters, sweep.rows[0].metrics
        ({'method.seed_rule.theta': 0.3}, {'seed_quality': 0.55})
    """

    name: str
    store: RunStore
    rows: tuple[TrialRow, ...]

    @property
    def best(self) -> Run | None:
        """Return the run of the best trial; None if no trial is done."""
        done = [row for row in self.rows if row.state == "done"]
        return Run(done[0].run, self.store.uri) if done else None

    @property
    def report(self) -> str:
        """Return the path of the sweep's HTML report."""
        return self.store.run_path(self.name, "report.html")

    def _repr_html_(self) -> str:
        from wsss_ray.reporting.notebook import report_html

        return report_html(self.store.read(self.report), self.report)


def open_sweep(name: str, store: str | os.PathLike[str] = "runs") -> Sweep:
    """Open a sweep that was submitted before.

    Args:
        name: The name of the sweep.
        store: Folder or URI of the store.

    Raises:
        ValueError: if the store has no such sweep, or none of its trials has ended. The message is one line.

    Example:
        >>> open_sweep("demo-theta").best.name
        'demo-theta.theta-0.3.0'
    """
    run_store = open_store(os.fspath(store), must_exist=True)
    is_name = name in run_store.names(run_store.path("runs"))
    if not is_name or not run_store.exists(run_store.run_path(name, "sweep.json")):
        raise ValueError(f"no sweep {name!r} in {run_store.uri}; `wsss-ray status --store {run_store.uri}` lists them")
    folder = run_store.run_path(name, "trials")
    rows = [TrialRow(**run_store.read_json(f"{folder}/{file}", TRIAL)) for file in run_store.names(folder)]
    if not rows:
        raise ValueError(f"sweep {name!r}: no trial has ended yet; wait for one, or submit it again")
    metric = next((name for row in rows for name in row.metrics), "")
    return Sweep(name, run_store, tuple(ranking(rows, metric)))
