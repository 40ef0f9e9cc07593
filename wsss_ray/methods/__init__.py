"""The plug-in folder: one paper, one file. The file's name is the method's name in job files; nothing else is registered."""

from __future__ import annotations

import importlib
import pkgutil

from wsss_ray.core.contracts import SeedScore
from wsss_ray.core.method import Method
from wsss_ray.core.plan import Data, Stage, walk


def names() -> list[str]:
    """The methods there are, sorted."""
    return sorted(methods())


def methods() -> dict[str, type[Method]]:
    """Every method by name. Importing them also registers their parts, so that a job file can mix parts of several papers."""
    found = {}
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        loaded = importlib.import_module(module.name)
        for value in vars(loaded).values():
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == loaded.__name__:
                found[value.kind()] = value
    return found


def outline(method: Method) -> list[str]:
    """The stages that a method plans on data with tags, masks and saliency maps, in order; alike ones counted: `seeds x 12`."""
    weak, val, saliency = (Stage("ingest", name, SeedScore(), seed=k) for k, name in enumerate(("weak", "val", "saliency")))
    data = Data(classes=("object",), weak=weak, val=val, saliency=saliency, weak_has_masks=True)
    names = [stage.name.partition("-")[0] for stage in walk(method.plan(data)) if stage.kind not in ("ingest", "evaluate")]
    counts = {name: names.count(name) for name in names}
    return [name if count == 1 else f"{name} x {count}" for name, count in counts.items()]
