"""The plug-in folder: one paper, one file. The file's name is the method's name in job files; nothing else is registered."""

from __future__ import annotations

import importlib
import pkgutil

from wsss_ray.contracts import Method


def names() -> list[str]:
    """The methods there are, sorted."""
    return sorted(methods())


def methods() -> dict[str, type[Method]]:
    """Every method by name. Importing them also registers their parts, so that a job file can mix parts of several papers."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for value in vars(loaded).values():
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == loaded.__name__:
                found[value.kind()] = value
    return found
