"""Find and import plug-ins: other packages that add methods, parts, trunks and data sources.

A plug-in has an entry point of the group `wsss_ray.plugins` that names a module. Importing this module defines the components and
does nothing else. Workers import a component's module by its name, so every machine of a cluster needs the package.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from wsss_ray.core.component import Component, twice
from wsss_ray.core.errors import in_one_line

GROUP = "wsss_ray.plugins"
PLUGINS = "WSSS_RAY_PLUGINS"
"""Environment variable with more modules to import, comma-separated. They need not be installed as plug-ins."""

_log = logging.getLogger("wsss_ray")


@dataclass(frozen=True, order=True)
class Plugin:
    """An installed package, its version, and its module to import."""

    package: str
    version: str
    module: str


@cache
def installed() -> tuple[Plugin, ...]:
    """Return the plug-ins of this machine, sorted, without importing them."""
    found = ((one.dist, one.value.partition(":")[0]) for one in entry_points(group=GROUP) if one.dist)
    return tuple(sorted(Plugin(package.name, package.version, module) for package, module in found))


def load_plugins() -> None:
    """Import the installed plug-ins, once per process, and the modules that WSSS_RAY_PLUGINS names.

    An installed plug-in that fails is left out, and one line in the log names it. A broken plug-in does not stop jobs that do not
    use it.

    Raises:
        ValueError: if a module that WSSS_RAY_PLUGINS names cannot be imported.
    """
    _load_installed()
    for name in filter(None, os.environ.get(PLUGINS, "").split(",")):
        if why := _failure(name):
            raise ValueError(f"{PLUGINS}: importing {name}: {why}; install it on this machine")


@cache
def _load_installed() -> None:
    for plugin in installed():
        if why := _failure(plugin.module):
            gc.collect()  # a module that failed halfway may have defined components; they go when it is collected
            _log.warning("plug-in %s %s is left out: importing %s: %s", plugin.package, plugin.version, plugin.module, why)
    for kind, several in Component.by_kind().items() if installed() else ():
        if len(several) > 1:
            _log.warning("%s; rename one, or uninstall its plug-in", twice(kind, several))


def _failure(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  a plug-in may raise anything
        return in_one_line(error)
    return None


def origin(component: type[Component]) -> str:
    """Return the origin of a component: "wsss-ray", a plug-in and its version, or the module that was named by hand."""
    plugin = _plugin_of(component)
    if plugin is not None:
        return f"{plugin.package} {plugin.version}"
    return "wsss-ray" if _shared(__name__, component.__module__) else component.__module__


def behind(components: Iterable[Component]) -> dict[str, Plugin]:
    """Return the plug-ins that define the components or parts of them, by the names of their packages."""
    found = {_plugin_of(type(part)) for one in components for part in one.parts()}
    return {plugin.package: plugin for plugin in sorted(one for one in found if one is not None)}


def lacking(needed: Mapping[str, str]) -> str | None:
    """Return the first missing or mismatched plug-in as a message, or None if this machine has all of them.

    Args:
        needed: version by package.

    Example:
        >>> lacking({"wsss-ray-otsu": "0.1"})
        'has no plug-in, the job needs wsss-ray-otsu 0.1; install it on all machines'
    """
    have = {plugin.package: plugin.version for plugin in installed()}
    for package, version in sorted(needed.items()):
        if have.get(package) != version:
            what = f"has {package} {have[package]}" if package in have else "has no plug-in"
            return f"{what}, the job needs {package} {version}; install it on all machines"
    return None


def _plugin_of(component: type[Component]) -> Plugin | None:
    """Return the plug-in whose module shares most of its dotted name with the component's module, or None."""
    nearest = max(installed(), key=lambda plugin: _shared(plugin.module, component.__module__), default=None)
    return nearest if nearest and _shared(nearest.module, component.__module__) else None


def _shared(name: str, other: str) -> int:
    """Count the leading parts that two dotted names share."""
    parts = list(zip(name.split("."), other.split("."), strict=False))
    return next((place for place, (one, two) in enumerate(parts) if one != two), len(parts))
