"""HTML as values: every string that is not markup already is escaped where it enters the page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


Child = str | None
"""What stands inside an element: `Markup` as it is, other text escaped, None left out."""

DASH = "\N{EN DASH}"


def escape(text: Child) -> Markup:
    """Text as HTML, for contents and for quoted attributes; characters that HTML forbids become U+FFFD."""
    if text is None or isinstance(text, Markup):
        return text or Markup()
    return Markup(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)))


def join(parts: Iterable[Child], separator: str = "") -> Markup:
    """The parts one after the other."""
    return Markup(escape(separator).join(escape(part) for part in parts))


def tag(name: str, *children: Child, **attributes: Child) -> Markup:
    """An element. `class_` is the attribute class, `aria_label` is aria-label, and None leaves an attribute out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    head = name + "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Markup(f"<{head}>") if name in ("img", "input") else Markup(f"<{head}>{join(children)}</{name}>")


def section(anchor: str, title: str, *children: Child) -> Markup:
    """A part of the page that its navigation can point to."""
    return tag("section", tag("h2", title, id=f"{anchor}-title"), *children, id=anchor, aria_labelledby=f"{anchor}-title")


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[Child]], *, numeric: Sequence[int] = ()) -> Markup:
    """A table in a box of its own that scrolls, by keyboard too; the first cell of a row is its header."""

    def align(column: int) -> str | None:
        return "n" if column in numeric else None

    top = join(tag("th", text, scope="col", class_=align(i)) for i, text in enumerate(head))
    body = join(
        tag("tr", *(tag("td", cell, class_=align(i)) if i else tag("th", cell, scope="row") for i, cell in enumerate(row)))
        for row in rows
    )
    inner = tag("table", tag("thead", tag("tr", top)), tag("tbody", body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label)


def bar(value: float | None) -> Markup:
    """A share of one as a number with a line of that length below it."""
    if value is None or not math.isfinite(value):
        return Markup(DASH)
    return tag("span", number(value), class_="bar", style=f"--v:{100 * min(max(value, 0.0), 1.0):.1f}%")


def swatch(color: Sequence[int]) -> Markup:
    """A small square of a class's colour."""
    return tag("i", class_="swatch", style="background:rgb({},{},{})".format(*color), aria_hidden="true")


def number(value: object) -> str:
    """Three decimals; a dash for what is missing or not a number."""
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else DASH


def whole(value: object) -> str:
    """An integer with its thousands apart."""
    return f"{value:,}" if isinstance(value, int) else DASH


def duration(seconds: object) -> str:
    """Seconds as a person says them."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
