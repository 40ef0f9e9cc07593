"""Tell whether the report of a finished run is still what a new one would be. Building one reads pixels; this reads no shard.

A report ends with a comment: a digest of what it was made from, and one of the page itself, so that a damaged one is made again.
"""

from __future__ import annotations

import hashlib
from functools import cache

from wsss_ray.core.component import digest
from wsss_ray.core.graph import Plan
from wsss_ray.core.version import PACKAGE, __version__
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.store import RunStore

_START = b"<!-- made from "


def basis(store: RunStore, run: str, plan: Plan, job_yaml: str) -> str | None:
    """Return a digest of all that a report is made from: the records, which name every shard's digest, the logs and the job.

    Args:
        store: store of the run.
        run: name of the run.
        plan: stages of the run.
        job_yaml: text of the job file.

    Returns:
        64 hexadecimal digits; None if a stage is missing or damaged, as what there is of it is not known by its record.

    Example:
        >>> basis(store, "demo", plan, job_yaml)  # doctest: +SKIP
        '5f2b...'
    """
    finished = Finished(store)
    finished.look_at(plan)
    records = [(stage.name, finished.record(stage)) for stage in plan]
    if any(record is None for _, record in records):
        return None
    logs = [(ascii(file.name), file.size, file.written) for file in store.files(store.run_path(run, "logs"))]
    return digest([__version__, _sources(), run, job_yaml, records, sorted(logs)])


def stamped(page: bytes, made_from: str) -> bytes:
    """Return a report with the comment at its end.

    Example:
        >>> is_current(stamped(b"<p>mIoU .5</p>", "5f2b"), "5f2b")
        True
    """
    return page + _comment(page, made_from)


def is_current(report: bytes, made_from: str) -> bool:
    """Return True if a report is whole and was made from the same.

    Example:
        >>> is_current(stamped(b"<p>mIoU .5</p>", "5f2b"), "77aa")
        False
    """
    page, start, _ = report.rpartition(_START)
    return bool(start) and report == stamped(page, made_from)


def _comment(page: bytes, made_from: str) -> bytes:
    return _START + f"{made_from}, sha256 of what stands above: {hashlib.sha256(page).hexdigest()} -->\n".encode()


@cache
def _sources() -> str:
    """Return a digest of this package's own files, so that a report follows a change of its templates."""
    found = [path for path in (PACKAGE / "reporting").rglob("*") if path.suffix in (".py", ".css", ".js", ".html")]
    return digest([[str(path.relative_to(PACKAGE)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in sorted(found)])
