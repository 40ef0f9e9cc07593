"""Commit stages with a record: what was made, from which inputs, by which code and machine, how long it took, and the result."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wsss_ray.core.counted import counted
from wsss_ray.core.plan import Stage
from wsss_ray.core.plugins import installed
from wsss_ray.core.version import PACKAGE, __version__
from wsss_ray.engine.listing import StoredListing
from wsss_ray.engine.notes import without_mask
from wsss_ray.engine.scoring import metrics_of
from wsss_ray.engine.shard_worker import NOTES, data_split
from wsss_ray.storage.finished import READERS, FileDigest
from wsss_ray.storage.shards import count_rows, present_shards, read_shard, shard_path
from wsss_ray.storage.store import RunStore

_PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "pillow", "pydensecrf2", "scipy")


class StageError(RuntimeError):
    """Raised when a stage cannot be made.

    Args:
        what: Name of the stage, and the cause; the first line of the message.
        stages: Ids of the stages that cannot be made.
        logs: Where to find the logs; the second line of the message.

    Example:
        >>> print(StageError("stage seed: the disk is full", [stage.id], logs="runs/pets/logs"))
        stage seed: the disk is full
        logs: runs/pets/logs; what was done is kept
    """

    def __init__(self, what: str, stages: Sequence[str] = (), logs: str | None = None) -> None:
        super().__init__(f"{what}\nlogs: {logs}; what was done is kept" if logs else what)
        self.what, self.stages, self.logs = what, tuple(stages), logs


def make_record(
    stage: Stage, *, started: float, finished: float, counts: dict[str, int], metrics: dict[str, Any], **extra: Any
) -> dict[str, Any]:
    """Build the record of a stage.

    Args:
        stage: The stage.
        started: Start in seconds since the epoch.
        finished: End in seconds since the epoch.
        counts: Numbers of what was made, such as images and errors.
        metrics: The result, such as `miou`.
        extra: Further fields.

    Returns:
        The record, ready for `RunStore.commit`.

    Example:
        >>> counts = {"images": 100, "steps": 10, "errors": 0}
        >>> store.commit(stage, make_record(stage, started=began, finished=time.time(), counts=counts, metrics={}))
    """
    return {
        "id": stage.id,
        "name": stage.name,
        "kind": stage.kind,
        "identity": stage.identity(),
        "inputs": [[role, source.id] for role, source in stage.inputs],
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "finished": datetime.fromtimestamp(finished, timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(finished - started, 3),
        "counts": counts,
        "metrics": metrics,
        "versions": versions(),
        "machine": {"system": platform.platform(), "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "git": git_commit(),
    } | extra


def commit_shards(
    store: RunStore,
    stage: Stage,
    *,
    started: float,
    finished: float,
    max_bad_fraction: float,
    readers: Sequence[Stage] = (),
    made: Mapping[int, int] | None = None,
    known: Mapping[str, FileDigest] | None = None,
) -> None:
    """Commit a per-image stage whose shards all exist.

    Args:
        store: The store of the stage.
        stage: The stage to commit.
        started: Start in seconds since the epoch.
        finished: End in seconds since the epoch.
        max_bad_fraction: Largest allowed share of failed images.
        readers: Later stages of the same pipeline that are not committed yet.
        made: Number of images by shard, as far as known. The footers of other shards are read.
        known: Digests of the stage's files, by their path in its folder, as far as known. Other files are read.

    Raises:
        StageError: if a shard is missing, if more images failed, or if most mask files are wrong. The shards with failures are
            then deleted, first those of `readers`, so that the next submit makes them again.

    Example:
        >>> commit_shards(store, stage, started=began, finished=time.time(), max_bad_fraction=0.01)
        >>> store.is_done(stage)
        True
    """
    shards, failed = list(range(data_split(stage).num_shards)), present_shards(store, stage, "errors")
    counted, lost = made or {}, missing_shards(store, stage)
    if lost:
        raise StageError(f"stage {stage.name}: shard {lost[0]} was lost while the stage was made. Submit again.", [stage.id])
    with ThreadPoolExecutor(READERS) as pool:
        images = sum(pool.map(lambda shard: counted.get(shard) or count_rows(store, stage, shard), shards))
        errors = sum(pool.map(lambda shard: count_rows(store, stage, shard, "errors"), failed))
    seen = images + (errors if stage.kind == "ingest" else 0)
    bare, message = without_mask(store, stage), None
    if errors > max_bad_fraction * seen:
        message = _describe_failures(store, stage, failed, seen, max_bad_fraction)
    elif bare.problem is not None:
        message, failed = bare.problem, list(bare.shards)
    if message is not None:
        for reader in (*reversed(readers), stage):
            for folder in ("errors", NOTES, "shards"):
                for shard in set(failed) & set(present_shards(store, reader, folder)):
                    store.delete(shard_path(store, reader, shard, folder))
        raise StageError(message)
    counts = {"images": images, "errors": errors, "shards": len(shards)}
    if bare.count:
        counts["without_mask"] = bare.count
    metrics = metrics_of(store, stage)
    if stage.kind == "ingest":
        StoredListing(store, stage).remove()
    store.commit(stage, make_record(stage, started=started, finished=finished, counts=counts, metrics=metrics), known)


def _describe_failures(store: RunStore, stage: Stage, failed: Sequence[int], seen: int, max_bad_fraction: float) -> str:
    """Write the message on failed images: how many there are, and the first one with the most common reason."""
    reasons, first = Counter[str](), dict[str, str]()
    for shard in failed:
        for row in read_shard(store, stage, shard, "errors", folder="errors"):
            reasons[row["reason"]] += 1
            first.setdefault(row["reason"], row["path"] or row["image_id"])
    reason, count = reasons.most_common(1)[0]
    needed = math.ceil(100 * reasons.total() / seen) / 100
    allow = f"; allow them by --set run.max_bad_fraction={needed:g}" if needed < 1 else ""
    return (
        f"stage {stage.name}: {reasons.total()} of {counted(seen, 'image')} failed, more than run.max_bad_fraction allows "
        f"({max_bad_fraction:g}{allow}); {count} of them like {first[reason]}: {reason}"
    )


def missing_shards(store: RunStore, stage: Stage) -> list[int]:
    """List the shards of a per-image stage that do not exist yet.

    Args:
        store: The store of the stage.
        stage: The per-image stage.

    Returns:
        The numbers of the shards, in ascending order.

    Example:
        >>> for shard in missing_shards(store, stage):
        ...     worker_class(stage)(store, stage)(shard)
    """
    return sorted(set(range(data_split(stage).num_shards)) - set(present_shards(store, stage)))


@lru_cache
def versions() -> dict[str, str]:
    """Return the versions of this package, of the packages that its numbers depend on, and of the installed plug-ins.

    A package that is missing has the version `not installed`.

    Example:
        >>> sorted(versions())[:3]
        ['numpy', 'pillow', 'pyarrow']
    """
    found = {"wsss-ray": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {plugin.package: plugin.version for plugin in installed()}


@lru_cache
def git_commit() -> str | None:
    """Return the commit of the running code; None if it does not run from a git checkout.

    The commit has 40 digits, and ends in `-dirty` if files of the checkout were changed.
    """
    folder = PACKAGE.parent
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
