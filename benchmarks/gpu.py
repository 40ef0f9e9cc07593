"""Test and measure on one GPU, in a few minutes, without Ray and without a network.

    make gpu                              # or: python -m benchmarks.gpu [--minutes 6] [--out gpu.md]

First the tests marked `gpu`: losses fall, two trainings end in equal bytes, CUDA agrees with the CPU. Then a table of what the
card does in a second, against one core and against its limits. Where there is no GPU, this says so and runs what needs none: the
same tests on the stand-in for another device, and the table's code at tiny sizes. The exit code is 0 if the tests pass.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.device import FULL, HEAD, TINY, Size, limits
from benchmarks.device_table import figures, trunks
from benchmarks.measure import machine
from benchmarks.side_by_side import processes

ON_GPU = ("-m", "gpu", "tests/contract/test_gpu.py", "tests/parity/test_selection.py")
WITHOUT = ("-m", "not gpu", "tests/contract/test_devices.py", "tests/parity/test_selection.py")
FOR_TABLE, AT_END = 150.0, 15.0
"""Seconds that the tests leave to the table, and the table to its last line."""


def without_gpu() -> str | None:
    """Why there is no GPU; None if there is one."""
    if torch.cuda.is_available():
        return None
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"no GPU: torch {torch.__version__} is {built} and sees none. What needs none runs; nothing here is a GPU's."


def tests(*chosen: str, seconds: float) -> tuple[bool, str]:
    """Run tests in a process of their own. Returns whether they passed, and their last line."""
    command = [sys.executable, "-m", "pytest", "-q", "--durations=5", *chosen]
    env = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        last = "no output"
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            output += f"\nended after {seconds:.0f} s"
        print(output, flush=True)
        last = output.strip().splitlines()[-1] if output.strip() else last
        return process.returncode == 0, last


def table(device: torch.device, size: Size, *, until: float) -> Iterator[str]:
    """The lines of the table, until the time `until` of the monotonic clock; what is left out is named."""
    yield HEAD
    found, first = limits(device, size)
    yield from map(str, first)
    first_trunk = next(iter(trunks(size)))
    measures = figures(device, size, found) | {"processes side by side": partial(processes, first_trunk, device, size)}
    for name, measure in measures.items():
        if time.monotonic() > until:
            yield f"| {name} | left out: no time | | | | |"
            continue
        try:
            yield str(measure())
        except torch.OutOfMemoryError:
            yield f"| {name} | out of memory | | | | |"
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> int:
    """Run the tests, print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="the most that all of it takes")
    parser.add_argument("--out", type=Path, help="write the results here too")
    parser.add_argument("--no-tests", action="store_true", help="only the table")
    options = parser.parse_args()
    began, whole = time.monotonic(), 60 * options.minutes
    missing = without_gpu()
    lines = [machine(), "", missing or "Times are medians, images are made, weights are random."]
    print("\n".join(lines), flush=True)
    passed = True
    if not options.no_tests:
        passed, last = tests(*(WITHOUT if missing else ON_GPU), seconds=whole - FOR_TABLE)
        lines += ["", f"Tests {'without a GPU' if missing else 'on the GPU'}: {last}"]
    lines += ["", "Tiny sizes on the CPU, to show that the code runs:", ""] if missing else [""]
    device = torch.device("cpu" if missing else "cuda")
    for line in table(device, TINY if missing else FULL, until=began + whole - AT_END):
        print(line, flush=True)
        lines.append(line)
    lines += ["", f"{(time.monotonic() - began) / 60:.1f} minutes."]
    print("\n".join([lines[-1], *([missing] if missing else [])]))
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
