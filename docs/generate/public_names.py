"""Write the page of the Python API: directives of mkdocstrings for the public names."""

from __future__ import annotations

import wsss_ray

RETURNED = ("wsss_ray.inference.predictor.Predictor",)


def markdown() -> str:
    """Return a directive for each public name, then for the classes that the functions return."""
    names = [name for name in getattr(wsss_ray, "__all__", ("load",)) if not name.startswith("_")]
    return "\n".join(f"::: {name}\n" for name in (*(f"wsss_ray.{name}" for name in names), *RETURNED))
