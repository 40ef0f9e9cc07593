"""Plug-ins: packages of others that add methods, parts, trunks and data sources, found by their entry points.

An entry point of the group `wsss_ray.plugins` names a module; importing it defines the components, and that is all. Workers
import a component's module by its name, so the machines of a cluster need the package too.
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

GROUP = "wsss_ray.plugins"
PLUGINS = "WSSS_RAY_PLUGINS"
"""The environment variable with the modules, comma-separated, that are loaded too, installed as plug-ins or not."""

_log = logging.getLogger("wsss_ray")


@dataclass(frozen=True, order=True)
class Plugin:
    """An installed package and the module of it to import."""

    package: str
    version: str
    module: str


@cache
def installed() -> tuple[Plugin, ...]:
    """The plug-ins of this machine, sorted. Imports none of them."""
    found = ((one.dist, one.value.partition(":")[0]) for one in entry_points(group=GROUP) if one.dist)
    return tuple(sorted(Plugin(package.name, package.version, module) for package, module in found))


def load_plugins() -> None:
    """Import the installed plug-ins, once, and what WSSS_RAY_PLUGINS names. Raises ValueError if one of the latter fails.

    An installed one that fails is left out, with one line that names it: who has no need of it is not to be stopped by it.
    """
    _load_installed()
    for name in filter(None, os.environ.get(PLUGINS, "").split(",")):
        if why := _failure(name):
            raise ValueError(f"{PLUGINS}: importing {name}: {why}; install it on this machine")


@cache
def _load_installed() -> None:
    for plugin in installed():
        if why := _failure(plugin.module):
            gc.collect()  # a module that failed halfway has defined components, which only leave with it
            _log.warning("plug-in %s %s is left out: importing %s: %s", plugin.package, plugin.version, plugin.module, why)
    for kind, several in Component.by_kind().items() if installed() else ():
        if len(several) > 1:
            _log.warning("%s; rename one, or uninstall its plug-in", twice(kind, several))


def _failure(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  it is another's code
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def origin(component: type[Component]) -> str:
    """Where a component comes from: this package, a plug-in and its version, or the module that was named by hand."""
    plugin = _plugin_of(component)
    if plugin is not None:
        return f"{plugin.package} {plugin.version}"
    return "wsss-ray" if _shared(__name__, component.__module__) else component.__module__


def behind(components: Iterable[Component]) -> dict[str, Plugin]:
    """The plug-ins that components, or parts in them, come from, by the names of their packages."""
    found = {_plugin_of(type(part)) for one in components for part in one.parts()}
    return {plugin.package: plugin for plugin in sorted(one for one in found if one is not None)}


def lacking(needed: Mapping[str, str]) -> str | None:
    """What this machine has not of the packages and versions `needed`; None if it has all."""
    have = {plugin.package: plugin.version for plugin in installed()}
    for package, version in sorted(needed.items()):
        if have.get(package) != version:
            what = f"has {package} {have[package]}" if package in have else "has no plug-in"
            return f"{what}, the job needs {package} {version}; install it on all machines"
    return None


def _plugin_of(component: type[Component]) -> Plugin | None:
    """The plug-in whose module has most of its dotted name in common with the component's."""
    nearest = max(installed(), key=lambda plugin: _shared(plugin.module, component.__module__), default=None)
    return nearest if nearest and _shared(nearest.module, component.__module__) else None


def _shared(name: str, other: str) -> int:
    """How many parts two dotted names share from the beginning."""
    parts = list(zip(name.split("."), other.split("."), strict=False))
    return next((place for place, (one, two) in enumerate(parts) if one != two), len(parts))
