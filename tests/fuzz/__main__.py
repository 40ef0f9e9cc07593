"""Read mutated inputs for a given time, and print what was found: `python -m tests.fuzz --seconds 600`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.fuzz.limits import Finding, outcome
from tests.fuzz.mutations import recipe_number
from tests.fuzz.readers import Reader, chosen

_AT_A_TIME = 100  # inputs of a reader before the next one has its turn
_SHOWN = 3  # findings of one kind


def main() -> int:
    """Run the readers in turn. Return 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**9, help="end after so many inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument("--reader", default="", help="a part of the names of the readers")
    parser.add_argument("--input", type=int, default=None, help="read this one input, and show its traceback")
    parser.add_argument("--attacks", action="store_true", help="the hostile files, before the mutations")
    options = parser.parse_args()
    readers = chosen(options.reader)
    warnings.simplefilter("ignore")
    os.environ["XDG_CACHE_HOME"] = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        if options.input is not None:
            for name, reader in readers.items():
                print(name)
                outcome(reader.read, reader.input(recipe_number(options.input, len(reader.corpus))), Path(folder))
            return 0
        return _search(readers, options, Path(folder))


def _search(readers: dict[str, Reader], options: argparse.Namespace, folder: Path) -> int:
    began, inputs, found = time.monotonic(), 0, Counter[str]()
    ends: dict[str, Counter[str]] = {name: Counter() for name in readers}
    folders = {name: folder / name.replace(" ", "-") for name in readers}
    for own in folders.values():
        own.mkdir()
    for name, reader in readers.items() if options.attacks else ():
        for place, data in enumerate((*reader.attacks(), *reader.large())):
            inputs += _try(reader, data, folders[name], f"{name}, attack {place}", found, ends[name])
    first = options.first
    while time.monotonic() - began < options.seconds and inputs < options.inputs:
        for name, reader in readers.items():
            for number in range(first, first + _AT_A_TIME):
                recipe = recipe_number(number, len(reader.corpus))
                inputs += _try(reader, reader.input(recipe), folders[name], f"{name} --input {number}", found, ends[name])
        first += _AT_A_TIME
    for name, counts in ends.items():
        read = f"{counts['value']:8} read, {counts['refused']:8} refused, {counts['found']} findings"
        print(f"{name:20} {counts.total():8} inputs, {read}")
    print(f"{inputs} inputs in {time.monotonic() - began:.0f} s, up to number {first}")
    print(f"{found.total()} findings of {len(found)} kinds")
    return int(bool(found))


def _try(reader: Reader, data: bytes, folder: Path, what: str, found: Counter[str], ends: Counter[str]) -> int:
    try:
        ends[outcome(reader.read, data, folder)] += 1
    except Finding as finding:
        ends["found"] += 1
        kind = f"{what.partition(' --')[0].partition(',')[0]}: {re.sub('[0-9]+|0x[0-9a-f]+', '#', str(finding))[:40]}"
        found[kind] += 1
        if found[kind] <= _SHOWN:
            print(f"{what}: {finding}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
