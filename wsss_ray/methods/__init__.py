"""Hold the methods: one paper is one file. A job file picks a method by the name of its file; nothing else is registered."""

from __future__ import annotations

import importlib
import pkgutil

from wsss_ray.core import Data, Method, SeedScore, Stage
from wsss_ray.core.graph import walk

_NO_PARTS = ("ingest", "classify", "evaluate")  # kinds of stages that are data or scores


def methods() -> dict[str, type[Method]]:
    """Import all methods of this folder and return them by name. A job file can then mix the parts of several papers."""
    found = {}
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        loaded = importlib.import_module(module.name)
        for value in vars(loaded).values():
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == loaded.__name__:
                found[value.kind()] = value
    return found


def outline(method: Method) -> list[str]:
    """Return the names of the stages that a method plans on data with tags, masks and saliency maps, without data and scores.

    Raises:
        ValueError: if the method refuses this data.

    Example:
        >>> outline(MultiEstimations())
        ['classifier x 2', 'maps x 6', 'seeds x 12', 'segmenter']
    """
    weak, val, saliency = (Stage("ingest", name, SeedScore(), seed=k) for k, name in enumerate(("weak", "val", "saliency")))
    data = Data(classes=("object",), weak=weak, val=val, saliency=saliency, weak_has_masks=True)
    names = [stage.name.partition("-")[0] for stage in walk(method.plan(data)) if stage.kind not in _NO_PARTS]
    counts = {name: names.count(name) for name in names}
    return [name if count == 1 else f"{name} x {count}" for name, count in counts.items()]
