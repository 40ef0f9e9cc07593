"""Name the run of a job, so that two folders of one name do not become one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from wsss_ray.config.run import Execution
from wsss_ray.preflight.survey.jobtext import run_name

_LARGEST = 1 << 20  # bytes of a job file


def name_for(folder: Path, root: str, out: Path) -> str:
    """Return the name of the run: that of the folder, unless a run or a job file of that name has other data.

    Args:
        folder: The user's folder.
        root: `data.root` of the job.
        out: The job file to write. Other job files beside it are looked at, and the default store.

    Example:
        >>> name_for(Path("b/photos"), "b/photos", Path("b.yaml"))
        'b-photos'
    """
    folder = folder.absolute()
    first = run_name(folder.name)
    others = {name for name, data in _named(out) if os.path.realpath(data) != os.path.realpath(root)}
    wanted = (first, run_name(f"{folder.parent.name}-{folder.name}"))
    free = next((name for name in wanted if name not in others), None)
    return free or next(name for number in count(2) if (name := f"{first}-{number}") not in others)


def _named(out: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the `data.root` of the job files beside `out`, and of the runs in the default store."""
    store = Path(str(Execution.model_fields["store"].default))
    beside = [path for path in sorted(out.absolute().parent.glob("*.y*ml")) if path != out.absolute()]
    for path in (*beside, *sorted(store.glob("runs/*/job.yaml"))):
        job = _read(path)
        data = job.get("data")
        if isinstance(job.get("name"), str) and isinstance(data, dict) and isinstance(data.get("root"), str):
            yield job["name"], str(Path(data["root"]).expanduser())


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_bytes()) if path.stat().st_size <= _LARGEST else None
    except (OSError, yaml.YAMLError, RecursionError, ValueError):
        return {}  # no job file
    return value if isinstance(value, dict) else {}
