"""Run the stamps benchmark and print its tables as Markdown.

    python benchmarks/stamps/table.py OUT [JOB ...] [--store runs] [--print-only]

JOB is the stem of a job file beside this script (all of them by default). Every run is a `wsss-ray submit` of such a file, a
sweep over its trials and seeds, as a user would type it. What is done is not done again: tables made once are printed in seconds,
and the second list of test scenes costs only its own scores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from wsss_ray.config.job import plans_of, read_job
from wsss_ray.runners.sweep import scores
from wsss_ray.storage.store import RunStore

HERE = Path(__file__).parent
METHODS = ("cam", "mdc", "dsrg", "ficklenet", "rrm", "multi_estimations", "full")
ABLATIONS = ("selection", "rrm_ratio", "noisy_masks")
COLUMNS = {
    "seed_quality": "seeds",
    "relabel_quality": "relabelled",
    "seen": "test, seen objects",
    "unseen": "test, unseen objects",
}


def settings(data: Path, split: str) -> list[str]:
    """What distinguishes a run from the job file."""
    return [f"data.root={data}", f"data.val=ImageSets/Segmentation/test_{split}.txt"]


def submit(job: Path, changes: list[str], store: str) -> None:
    """Run a job through the command line."""
    command = [sys.executable, "-m", "wsss_ray", "submit", str(job), "--store", store]
    subprocess.run([*command, *(part for change in changes for part in ("--set", change))], check=True)


def rows(job: Path, data: Path, store: RunStore) -> list[list[str]]:
    """A row for each trial that has a score: its name and the mean and deviation over the seeds of every column."""
    found: dict[str, dict[str, list[float]]] = {}
    for split in ("seen", "unseen"):
        trials = read_job(job, settings(data, split)).trials()
        for one, plan in zip(trials, plans_of(one.job for one in trials), strict=True):
            columns = found.setdefault(one.trial.name, {name: [] for name in COLUMNS})
            for name, value in scores(plan, store).items():
                column = split if name == "miou" else name
                if column in columns and (split == "seen" or column == "unseen"):
                    columns[column].append(value)
    return [[name, *(cell(values) for values in columns.values())] for name, columns in found.items() if any(columns.values())]


def cell(values: list[float]) -> str:
    """Mean and sample standard deviation, and how many runs if they are not three."""
    if not values:
        return "-"
    few = "" if len(values) == 3 else f" (n={len(values)})"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") + few


def main() -> None:
    """Submit all runs, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="OUT", help="the built benchmark")
    parser.add_argument("jobs", nargs="*", metavar="JOB", default=[*METHODS, *ABLATIONS])
    parser.add_argument("--store", default="runs")
    parser.add_argument("--print-only", action="store_true", help="print what there is, run nothing")
    options = parser.parse_args()
    for name in options.jobs:
        job = HERE / f"{name}.yaml"
        if not options.print_only:
            for split in ("seen", "unseen") if name in METHODS else ("seen",):
                submit(job, settings(options.data, split), options.store)
        print(f"\n{name}\n\n| | {' | '.join(COLUMNS.values())} |")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for row in rows(job, options.data, RunStore(options.store)):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
