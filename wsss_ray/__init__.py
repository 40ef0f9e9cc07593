"""Weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster.

The functions here do what the commands of `wsss-ray` do, by the same code:

    plan, submit, resume     lay out a job, and run what is missing
    submit_sweep             run the trials of a sweep
    open_run, open_sweep     look at what was made: status, scores, seeds, maps, predictions, data set, model, report
    compare                  runs side by side
    load, evaluate           use a trained model, and score it on images with masks
    remove, unused, free     remove runs, and free the disk of what no run refers to

Importing this package imports neither Ray nor torch: each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_ray.config.document import JobError
    from wsss_ray.config.planning import plan
    from wsss_ray.core.version import __version__
    from wsss_ray.engine.records import StageError
    from wsss_ray.inference.public import compare, evaluate, free, load, open_run, remove, unused
    from wsss_ray.inference.run import Run
    from wsss_ray.inference.sweep import Sweep, open_sweep
    from wsss_ray.runners.python import resume, submit, submit_sweep

__all__ = [
    "JobError",
    "Run",
    "StageError",
    "Sweep",
    "__version__",
    "compare",
    "evaluate",
    "free",
    "load",
    "open_run",
    "open_sweep",
    "plan",
    "remove",
    "resume",
    "submit",
    "submit_sweep",
    "unused",
]

_FOUND_IN = {
    "config.document": ("JobError",),
    "config.planning": ("plan",),
    "core.version": ("__version__",),
    "engine.records": ("StageError",),
    "inference.public": ("compare", "evaluate", "free", "load", "open_run", "remove", "unused"),
    "inference.run": ("Run",),
    "inference.sweep": ("Sweep", "open_sweep"),
    "runners.python": ("resume", "submit", "submit_sweep"),
}


def __getattr__(name: str) -> object:
    """Import a public name. Importing all of them above would take half a second."""
    from importlib import import_module

    for module, names in _FOUND_IN.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
