"""Put rates, times, sizes and shares into words, alike in all commands, messages and reports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from wsss_ray.core.counted import counted


def pace(rate: float, unit: str) -> str:
    """Format a rate; per minute or per hour if it is low.

    Args:
        rate: items per second.
        unit: name of the items, such as "images".

    Example:
        >>> pace(88.0, "images"), pace(0.05, "shards")
        ('88.0 images/s', '3.0 shards/min')
    """
    for seconds, name in ((1, "s"), (60, "min")):
        if rate * seconds >= 0.1:
            return f"{rate * seconds:.1f} {unit}/{name}"
    return f"{rate * 3600:.1f} {unit}/h"


def span(seconds: float) -> str:
    """Format seconds as h:mm:ss.

    Example:
        >>> span(75.4)
        '0:01:15'
    """
    return str(timedelta(seconds=round(max(0.0, seconds))))


def roughly(seconds: float) -> str:
    """Format an estimate of a duration.

    Example:
        >>> roughly(75.4), roughly(480), roughly(8000)
        ('75 s', '8 min', '2 h 13 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def size(num_bytes: float) -> str:
    """Format bytes with a unit.

    Example:
        >>> size(1_500_000), size(12)
        ('1.5 MB', '12 B')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def percent(share: float, digits: int = 0) -> str:
    """Format a share of one as a percentage, for people. `report/markup.py` has the form that CSS and SVG need.

    Example:
        >>> percent(0.614), percent(0.0204, digits=1)
        ('61 %', '2.0 %')
    """
    return f"{100 * share:.{digits}f} %"


def work_done(counts: Mapping[str, Any]) -> str:
    """Say how much work a stage was, from the `counts` of its record; nothing for a stage without a record.

    Example:
        >>> work_done({"steps": 621}), work_done({"images": 1, "errors": 0})
        ('621 steps', '1 image')
    """
    if not counts:
        return ""
    return counted(counts["steps"], "step") if "steps" in counts else counted(counts["images"], "image")
