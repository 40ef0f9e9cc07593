"""Run the stamps benchmark and print its tables as Markdown.

    python -m benchmarks.stamps.table OUT [JOB ...] [--store runs] [--print-only]

JOB is the stem of a job file beside this script (all of them by default). Every run is a `wsss-ray submit` of such a file, a
sweep over its trials and seeds, as a user would type it. What is done is not done again: tables made once are printed in seconds,
and the second list of test scenes costs only its own scores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.accuracy import cell, scores_of, submit, table
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


def rows(job: Path, data: Path, store: RunStore) -> list[list[str]]:
    """A row for each trial that has a score: its name and the mean and deviation over the seeds of every column."""
    seen, unseen = (
        scores_of(job, settings(data, split), store, COLUMNS | {"miou": COLUMNS[split]}) for split in ("seen", "unseen")
    )
    found = [(name, row | {COLUMNS["unseen"]: unseen.get(name, {}).get(COLUMNS["unseen"], [])}) for name, row in seen.items()]
    return [[name, *(cell(row.get(column, [])) for column in COLUMNS.values())] for name, row in found]


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
        print(f"\n{name}\n\n{table(list(COLUMNS.values()), rows(job, options.data, RunStore(options.store)))}", flush=True)


if __name__ == "__main__":
    main()
