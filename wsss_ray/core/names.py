"""Shorten dotted names of fields."""

from __future__ import annotations

from collections.abc import Iterable


def shortest_ends(names: Iterable[str]) -> dict[str, str]:
    """Return for each dotted name its shortest end that no other name ends in; the name itself if there is none.

    Example:
        >>> shortest_ends(["method.a.lr", "method.b.lr", "method.b.steps"])
        {'method.a.lr': 'a.lr', 'method.b.lr': 'b.lr', 'method.b.steps': 'steps'}
    """
    known = tuple(names)
    return {name: _shortest_end(name, [other for other in known if other != name]) for name in known}


def _shortest_end(name: str, others: Iterable[str]) -> str:
    parts = name.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), name)
