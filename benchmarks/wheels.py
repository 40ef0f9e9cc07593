"""Carry the packages that `make gpu` needs to a machine without a network, and install there those that it lacks.

    python benchmarks/wheels.py download --python 3.12 [--only pydantic]     # with a network: into wheels/
    python benchmarks/wheels.py install                                      # on the machine with the GPU: into .gpu-packages/

torch and torchvision are not among them. `install` changes nothing outside its folder, which stands first in `make gpu`'s
PYTHONPATH. It takes only what the machine lacks, so that the packages beside its torch stay as they are. `--only` downloads some
packages (with what they need), where it is known that the machine has the rest. Only the standard library and pip are used.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS, WHEELS, PACKAGES = HERE / "gpu-requirements.txt", HERE.parent / "wheels", HERE.parent / ".gpu-packages"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def requirements(only: list[str] | None) -> list[str]:
    """The lines of the list; those of some packages if they are named. Raise SystemExit if one is not in the list."""
    lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    if only is None:
        return lines
    chosen = [line for line in lines if line.partition(">")[0] in only]
    if len(chosen) < len(only):
        raise SystemExit(f"--only: {' '.join(only)}: not all are in {REQUIREMENTS.name}. Take names from there.")
    return chosen


def download(python: str, only: list[str] | None) -> None:
    """Download wheels for a Python on this machine's kind of processor, and say how large they are."""
    machine = platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)] + [f"manylinux2014_{machine}"]
    options = [option for name in platforms for option in ("--platform", name)]
    target = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python, "--dest", str(WHEELS)]
    subprocess.run([*PIP, "download", "--quiet", *target, *options, *requirements(only)], check=True)
    files = sorted(WHEELS.glob("*.whl"))
    size = sum(file.stat().st_size for file in files) / 2**20
    print(f"{len(files)} wheels for Python {python} in {WHEELS.name}/, {size:.0f} MiB")


def install() -> None:
    """Install what is missing. Raise SystemExit if a package is neither here nor in wheels/."""
    source = ["--no-index", "--find-links", str(WHEELS)]
    report = subprocess.run(
        [*PIP, "install", "--quiet", "--dry-run", "--report", "-", *source, "--requirement", str(REQUIREMENTS)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if report.returncode:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SystemExit(
            f"{WHEELS.name}/: a package is missing here and there (see above). "
            f"Run `make gpu-wheels GPU_PYTHON_VERSION={version}` where there is a network, and bring the folder."
        )
    missing = [one["download_info"]["url"] for one in json.loads(report.stdout)["install"]]
    names = [one["metadata"]["name"] for one in json.loads(report.stdout)["install"]]
    print(f"missing packages: {', '.join(names) or 'none'}")
    if missing:
        where = ["--no-deps", "--no-index", "--upgrade", "--target", str(PACKAGES)]
        subprocess.run([*PIP, "install", "--quiet", *where, *missing], check=True)


def main() -> None:
    """Download or install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("download")
    fetch.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", help="version of the other machine")
    fetch.add_argument("--only", nargs="+", help="some packages of the list")
    commands.add_parser("install")
    options = parser.parse_args()
    if options.command == "download":
        download(options.python, options.only)
    else:
        install()


if __name__ == "__main__":
    main()
