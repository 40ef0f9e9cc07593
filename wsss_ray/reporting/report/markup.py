"""Build HTML elements for the charts, and format figures. All other markup is in `templates/`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TypeGuard

import markupsafe
from markupsafe import Markup

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Child = str | None
"""The content of an element. `Markup` stays as it is, other text is escaped, None is left out."""

DASH = "\N{EN DASH}"


def escape(value: object) -> Markup:
    """Escape a value for contents and quoted attributes. Characters that HTML forbids become U+FFFD.

    `Markup` stays as it is, and None is empty.

    Example:
        >>> print(escape("a < b"))
        a &lt; b
    """
    if value is None or isinstance(value, Markup):
        return value or Markup()
    return markupsafe.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def tag(name: str, *children: Child, **attributes: Child) -> Markup:
    """Build an element.

    Args:
        name: name of the element.
        children: its content, in order.
        attributes: its attributes. `class_` sets the attribute class, `aria_label` sets aria-label, and None leaves one out.

    Example:
        >>> print(tag("p", "a < b", class_="note"))
        <p class="note">a &lt; b</p>
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    head = name + "".join(f' {key}="{escape(value)}"' for key, value in given.items())
    return Markup(f"<{head}>{Markup().join(map(escape, children))}</{name}>")


def is_finite(value: object) -> TypeGuard[float]:
    """Return True for a number that is neither infinite nor NaN.

    Example:
        >>> is_finite(1), is_finite(math.nan), is_finite(None)
        (True, False, False)
    """
    return isinstance(value, int | float) and math.isfinite(value)


def average(values: Iterable[object]) -> float | None:
    """Return the mean of the finite numbers among the values; None if there are none.

    Example:
        >>> average([1.0, None, math.nan, 2.0])
        1.5
    """
    known = [value for value in values if is_finite(value)]
    return sum(known) / len(known) if known else None


def number(value: object, digits: int = 3) -> str:
    """Format a number with a fixed count of decimals; a dash if it is missing or not finite.

    Example:
        >>> number(0.12345), number(None) == DASH
        ('0.123', True)
    """
    return f"{value:.{digits}f}" if is_finite(value) else DASH


def whole(value: object) -> str:
    """Format an integer with thousands separators; a dash if it is missing.

    Example:
        >>> whole(10582)
        '10,582'
    """
    return f"{value:,}" if isinstance(value, int) else DASH


def significant(value: float) -> str:
    """Format a positive number with three significant digits; a number from 100 on as an integer.

    Example:
        >>> significant(0.12345), significant(12345.6)
        ('0.123', '12,346')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def css_percent(share: float, digits: int = 1) -> str:
    """Format a share of one as CSS and SVG read it, kept within 0% and 100%. For people, see `reporting/words.py`.

    Example:
        >>> css_percent(0.1234), css_percent(1.2, digits=0)
        ('12.3%', '100%')
    """
    return f"{100 * min(max(share, 0.0), 1.0):.{digits}f}%"


def shorten(text: str, limit: int, *, tail: bool = False) -> str:
    """Cut a text to at most `limit` characters.

    Args:
        text: the text.
        limit: number of characters, with the ellipsis.
        tail: True keeps the end of the text, which tells dotted names apart.

    Example:
        >>> shorten("method.seed_rule.theta", 12, tail=True)
        '…_rule.theta'
    """
    if len(text) <= limit:
        return text
    return "…" + text[len(text) - limit + 1 :] if tail else text[: limit - 1].rstrip() + "…"


def duration(seconds: object) -> str:
    """Format seconds in words; a dash if they are missing.

    Example:
        >>> duration(1.5), duration(75), duration(7384)
        ('1.500 s', '1 min 15 s', '2 h 03 min')
    """
    if not is_finite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
