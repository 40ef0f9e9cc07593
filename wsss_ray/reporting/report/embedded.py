"""Write the data of the page's script as small JSON: maps as the store has them, label maps and cues as runs of equal values."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss_ray.core.values import Maps
from wsss_ray.data import codecs
from wsss_ray.reporting.headings import stage_words
from wsss_ray.reporting.report.thresholds import Curve, Rule

SHARE = 48_000
"""Characters that the maps of one image may take. The page draws no seeds for an image with more."""


def runs(label_HW: NDArray[np.uint8] | NDArray[np.bool_]) -> str:
    """Encode a label map by runs: Base64 of pairs of bytes, a value and its count, row by row. A run has at most 255 pixels.

    Args:
        label_HW: labels, or a mask of True and False, as 1 and 0.

    Example:
        >>> list(base64.b64decode(runs(np.array([[7, 7, 7], [0, 0, 0]]))))
        [7, 3, 0, 3]
    """
    flat = label_HW.ravel().astype(np.uint8)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.zeros(0, np.intp)
    lengths = np.diff(np.append(starts, flat.size))
    pieces = -(-lengths // 255)
    counts = np.full(int(pieces.sum()), 255)
    counts[pieces.cumsum() - 1] = lengths - (pieces - 1) * 255
    return _text(np.stack([np.repeat(flat[starts], pieces), counts.astype(np.uint8)], axis=1).astype(np.uint8).tobytes())


def maps_json(maps: Maps, *, mean: bool) -> dict[str, Any] | None:
    """Pack the maps of an image in float16, as stored, so that the page has the same numbers.

    Args:
        maps: maps of the image.
        mean: True packs the means too, if they differ from the peaks.

    Returns:
        JSON for the page's script; None if the maps are too large.

    Example:
        >>> found = maps_json(maps, mean=False)
        >>> found["mean"] is None
        True
    """
    row = codecs.encode_maps(maps)
    found = {key: row[key] for key in ("classes", "height", "width", "grid")} | {"peak": _text(row["peak"]), "mean": None}
    if mean and row["mean"] != row["peak"]:
        found["mean"] = _text(row["mean"])
    return found if len(found["peak"]) + len(found["mean"] or "") <= SHARE else None


def rule_json(rule: Rule, curve: Curve | None) -> dict[str, Any]:
    """Pack what the page needs of a rule. Figures have four digits.

    Args:
        rule: the rule.
        curve: its scores over the threshold; None if there are no masks.

    Returns:
        JSON for the page's script.

    Example:
        >>> rule_json(rule, None)["theta"]
        0.3
    """
    lines = curve.figures.items() if curve else ()
    figures = {name: [None if value is None else round(value, 4) for value in line] for name, line in lines}
    return {
        "stage": rule.stage.id,
        "name": stage_words(rule.stage.name),
        "theta": rule.theta,
        "symbol": rule.symbol,
        "recipe": asdict(rule.recipe) if rule.recipe else None,
        "crf": rule.crf,
        "maps": rule.stage.input("maps").id,
        "curve": figures or None,
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
