"""Run the benchmark on photographs of animals and print its tables as Markdown.

    python -m benchmarks.voc_animals.table OUT [JOB ...] [--store runs] [--seeds 0 1 2] [--print-only]

OUT is the folder that build.py made. JOB is the stem of a job file beside this script (all of them by default). Every run is a
`wsss-ray submit` of such a file, a sweep over its trials and seeds, as a user would type it. What is done is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from benchmarks.accuracy import Scores, cell, scores_of, submit, table
from wsss_ray.storage.store import RunStore

HERE = Path(__file__).parent
METHODS = ("full", "cam", "dsrg", "ficklenet", "mdc", "multi_estimations", "rrm", "psa")
ABLATIONS = ("selection", "rrm_ratio")
COMBINED = ("ficklenet_psa", "cam_voting", "ficklenet_voting", "mdc_voting")  # the last three need the extra segments
COLUMNS = {"seed_quality": "seeds", "miou": "model"}


def settings(data: Path, seeds: list[int]) -> list[str]:
    """Return what distinguishes a run from the job file."""
    folders = [f"data.root={data / 'images'}", f"data.tags={data / 'tags.csv'}", f"data.masks={data / 'masks'}"]
    return [*folders, f"sweep.seeds={seeds}"]


def rows(found: Scores, full: float | None) -> list[list[str]]:
    """Write a row for each trial: its scores, and the model's share of full supervision."""
    made = []
    for name, row in found.items():
        share = f"{mean(row['model']) / full:.2f}" if full and row["model"] else "-"
        made.append([name, *(cell(row[column]) for column in COLUMNS.values()), share])
    return made


def main() -> None:
    """Submit all runs, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="OUT", help="the built benchmark")
    parser.add_argument("jobs", nargs="*", metavar="JOB", default=[*METHODS, *ABLATIONS, *COMBINED])
    parser.add_argument("--store", default="runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--print-only", action="store_true", help="print what there is, run nothing")
    options = parser.parse_args()
    changes, store = settings(options.data, options.seeds), RunStore(options.store)
    for name in options.jobs:
        if not options.print_only:
            submit(HERE / f"{name}.yaml", changes, options.store)
        masked = scores_of(HERE / "full.yaml", changes, store, COLUMNS)
        full = [value for row in masked.values() for value in row["model"]]
        found = scores_of(HERE / f"{name}.yaml", changes, store, COLUMNS)
        print(f"\n{name}\n\n{table([*COLUMNS.values(), 'of full'], rows(found, mean(full) if full else None))}", flush=True)


if __name__ == "__main__":
    main()
