"""Describe the parameters of a sweep: their values in words, and axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsss_ray.core.component import canonical
from wsss_ray.core.names import shortest_ends
from wsss_ray.reporting.report.charts import round_step
from wsss_ray.reporting.report.markup import is_finite
from wsss_ray.storage.trials import TrialRow

_LOG_FROM = 50.0  # ratio of the largest to the smallest value above which an axis is logarithmic
_PAD = 0.05  # share of the range that an axis adds on either side
_LABELS = 14  # texts on one axis, at most
UNSET = "not set"


@dataclass(frozen=True)
class SweepAxis:
    """An axis of a chart, for numbers or texts. It gives the place of a value as a share from the low end, and the ticks.

    Attributes:
        low: value at the low end; its logarithm (base 10) if the axis is logarithmic.
        high: value at the high end, likewise.
        logarithmic: True if equal ratios are equally far apart.
        places: places of texts, from 0; None for numbers.

    Example:
        >>> axis = SweepAxis.of_texts(["poly", "constant"])
        >>> axis.at("poly"), axis.at("constant")
        (0.75, 0.25)
    """

    low: float
    high: float
    logarithmic: bool = False
    places: Mapping[str, int] | None = None

    @classmethod
    def of_numbers(cls, values: Iterable[float], *, logarithmic: bool | None = None) -> SweepAxis:
        """Make an axis for finite numbers, padded so that no point lies on its end.

        Args:
            values: the numbers.
            logarithmic: True or False chooses; None makes the axis logarithmic if the numbers spread far.

        Example:
            >>> SweepAxis.of_numbers([1e-4, 1e-1]).logarithmic
            True
        """
        values = list(values) or [0.0, 1.0]
        least, most = min(values), max(values)
        log = least > 0 and most / least > _LOG_FROM if logarithmic is None else logarithmic
        low, high = (math.log10(least), math.log10(most)) if log else (float(least), float(most))
        pad = max(_PAD * (high - low), 1e-4 * abs(high)) if high > low else 0.1 * abs(high) or 0.1
        return cls(low - pad, high + pad, log)

    @classmethod
    def of_texts(cls, values: Iterable[str]) -> SweepAxis:
        """Make an axis on which each text has its own place. The first text is the highest."""
        places = {value: i for i, value in enumerate(reversed(list(dict.fromkeys(values))))}
        return cls(-0.5, max(len(places), 1) - 0.5, False, places)

    def at(self, value: Any) -> float:
        """Return the place of a value as a share of the axis."""
        number = value if self.places is None else self.places[value]
        return ((math.log10(number) if self.logarithmic else number) - self.low) / (self.high - self.low)

    def ticks(self, count: int = 6) -> list[tuple[float, str]]:
        """List the places and labels of the ticks, lowest first. An axis of numbers has about `count` ticks."""
        if self.places is not None:
            every = math.ceil(len(self.places) / _LABELS)
            return [(self.at(text), text) for i, text in enumerate(self.places) if i % every == 0]
        values = self._logarithmic(count) if self.logarithmic else round_values(self.low, self.high, count)
        return [(self.at(value), f"{value:g}") for value in values]

    def _logarithmic(self, count: int) -> list[float]:
        first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
        decades = last - first + 1
        steps = (1,) if decades >= 4 else (1, 3) if decades >= 3 else (1, 2, 5)
        every = max(1, math.ceil(decades / count))
        start = first if steps == (1,) else first - 1
        values = (float(f"{step}e{power}") for power in range(start, last + 1, every) for step in steps)
        return [value for value in values if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]


def round_values(low: float, high: float, count: int = 6) -> list[float]:
    """Return about `count` round values within [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    step = round_step(high - low, count)
    return [float(f"{i * step:.12g}") for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Parameter:
    """A field that trials set. `parameters` makes it.

    Attributes:
        name: dotted name of the field.
        label: shortest end of the name that no other field shares.
        numeric: True if all values are numbers.
        texts: distinct values in words, sorted.
        varies: True if trials have different values, or only some set it.
        common: the part that all values share, if they are mappings; `words` leaves it out.
    """

    name: str
    label: str
    numeric: bool
    texts: tuple[str, ...]
    varies: bool
    common: Any = None

    def value(self, row: TrialRow) -> Any:
        """Return the value for the axis: a number if all values are numbers, else words. The trial must have set the field."""
        return self.given(row) if self.numeric else self.words(row)

    def words(self, row: TrialRow) -> str:
        """Return the value in words, without the part that it shares with those of all other trials."""
        value = self.given(row)
        return in_words(_without(value, self.common) or value if self.common else value)

    def given(self, row: TrialRow) -> Any:
        """Return the value that the trial set."""
        return row.method if self.name == "method" and self.name not in row.parameters else row.parameters[self.name]

    def has(self, row: TrialRow) -> bool:
        """Return True if the trial set the field."""
        return self.name == "method" or self.name in row.parameters

    def axis(self, rows: Iterable[TrialRow]) -> SweepAxis:
        """Make an axis for the values of the rows that set the field."""
        rows = [row for row in rows if self.has(row)]
        return SweepAxis.of_numbers(self.value(row) for row in rows) if self.numeric else SweepAxis.of_texts(self.texts)


def parameters(rows: Sequence[TrialRow]) -> list[Parameter]:
    """List every field that a trial set, by name. The method comes first if there are several.

    Args:
        rows: rows of the trials, at least one.

    Example:
        >>> [(field.label, field.texts) for field in parameters(rows)]
        [('theta', ('0.2', '0.3'))]
    """
    names = sorted({name for row in rows for name in row.parameters} - {"method"})
    labels, found = shortest_ends(names), []
    if len({row.method for row in rows}) > 1 or any("method" in row.parameters for row in rows):
        names, labels = ["method", *names], {**labels, "method": "method"}
    for name in names:
        some = Parameter(name, labels[name], False, (), varies=False)
        having = [row for row in rows if some.has(row)]
        values = [some.given(row) for row in having]
        numeric = all(is_number(value) for value in values)
        differ = len({canonical(value) for value in values}) > 1
        common = _common(values) if differ else None
        some = replace(some, numeric=numeric, varies=differ or len(having) < len(rows), common=common)
        texts = sorted({some.words(row) for row in having}, key=float if numeric else str)
        found.append(replace(some, texts=tuple(texts)))
    return found


def in_words(value: Any) -> str:
    """Write a value on one line, as in a job file. Numbers get four digits."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_inner(part)}" for key, part in value.items()) or "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inner, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else canonical(value)


def is_number(value: Any) -> bool:
    """Return True if a value has a place on an axis of numbers. Booleans have none."""
    return is_finite(value) and not isinstance(value, bool)


def _common(values: Sequence[Any]) -> dict[str, Any]:
    """Return the part that all mappings share; empty if one value is not a mapping."""
    if not all(isinstance(value, dict) for value in values):
        return {}
    found = {}
    for key, part in values[0].items():
        parts = [value[key] for value in values if key in value]
        if len(parts) == len(values) and (same := part if all(other == part for other in parts) else _common(parts)):
            found[key] = same
    return found


def _without(value: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    rest = {}
    for key, part in value.items():
        if key not in common:
            rest[key] = part
        elif part != common[key]:
            rest[key] = _without(part, common[key])
    return rest


def _inner(value: Any) -> str:
    return "{" + in_words(value) + "}" if isinstance(value, dict) and value else in_words(value)
