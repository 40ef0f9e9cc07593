"""Run the stamps benchmark and print its table: three jobs, several seeds, both test splits.

    python benchmarks/stamps/table.py OUT [--seeds 0 1 2] [--store runs]

Every run is a `wsss-ray submit`, as a user would type it. Finished stages are used again, so a table that was made once is
printed in seconds, and the second test split costs only its own score.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from wsss_ray.job import load_job
from wsss_ray.plan import Plan
from wsss_ray.store import RunStore

HERE = Path(__file__).parent
JOBS = {"plain CAM": "cam.yaml", "FickleNet": "ficklenet.yaml", "full masks": "full.yaml"}
SPLITS = ("test_seen", "test_unseen")


def overrides(job: str, data: Path, split: str, seed: int) -> list[str]:
    """What distinguishes one run from the job file."""
    return [
        f"name=stamps-{Path(job).stem}-{split.removeprefix('test_')}-{seed}",
        f"data.root={data}",
        f"data.val=ImageSets/Segmentation/{split}.txt",
        f"run.seed={seed}",
    ]


def submit(job: str, changes: list[str], store: str) -> tuple[Plan, RunStore]:
    """Run a job through the command line."""
    settings = [part for change in changes for part in ("--set", change)]
    subprocess.run([sys.executable, "-m", "wsss_ray.cli", "submit", str(HERE / job), *settings, "--store", store], check=True)
    return load_job(HERE / job, changes).plan(), RunStore(store)


def figures(plan: Plan, store: RunStore) -> dict[str, float]:
    """The mIoU of every score of a plan by name, and the minutes that its stages took."""
    records = {stage.name: store.record(stage) for stage in plan}
    scores = {name: r["metrics"]["miou"] for name, r in records.items() if r and r["kind"] == "evaluate"}
    return scores | {"minutes": sum(r["seconds"] for r in records.values() if r) / 60}


def cell(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Submit all runs, then print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="OUT", help="the built benchmark")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", default="runs")
    options = parser.parse_args()
    rows = []
    for label, job in JOBS.items():
        found: dict[str, list[dict[str, float]]] = {split: [] for split in SPLITS}
        for seed in options.seeds:
            for split in SPLITS:
                found[split].append(figures(*submit(job, overrides(job, options.data, split, seed), options.store)))
        seen = found["test_seen"]
        quality = [cell([f[key] for f in seen]) if key in seen[0] else "-" for key in ("seed_quality", "relabel_quality")]
        tests = [cell([f["miou"] for f in found[split]]) for split in SPLITS]
        rows.append([label, *quality, *tests, f"{min(f['minutes'] for f in seen):.1f}"])  # other work only adds to a time
    print("| | seeds | relabelled | test, seen objects | test, unseen objects | minutes, quickest seed |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
