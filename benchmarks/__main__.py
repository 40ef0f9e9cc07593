"""Run the benchmarks and print one table.

    python -m benchmarks [--full] [--only NAME ...] [--out FILE]

Without --full the sizes are small: under 15 minutes on 2 cores. Each ratio is taken within one run. A benchmark is a module of
this folder with `rows(full)`; it can be run alone with --only.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from benchmarks.measure import HEAD, machine

NAMES = ("selection", "crf", "energy", "inference", "frozen", "training", "precision", "start", "seeds", "digests", "scale")


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the real sizes")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, help="write the table here too")
    options = parser.parse_args()
    lines = [machine(), "", HEAD]
    print("\n".join(lines), flush=True)
    began = time.perf_counter()
    for name in options.only:
        for row in importlib.import_module(f"benchmarks.{name}").rows(options.full):
            lines.append(str(row))
            print(row, flush=True)
    lines += ["", f"{'Full' if options.full else 'Small'} sizes, {(time.perf_counter() - began) / 60:.1f} minutes."]
    print(lines[-1])
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
