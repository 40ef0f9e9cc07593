"""Put a count into words."""

from __future__ import annotations

from typing import Literal

Verb = Literal["are", "have", "were", "belong"]
"""The form of several; `counted` knows that of one."""

_OF_ONE: dict[Verb, str] = {"are": "is", "have": "has", "were": "was", "belong": "belongs"}


def counted(count: int, noun: str, verb: Verb | None = None) -> str:
    """Format a count with its noun, and the verb that follows it.

    Args:
        count: how many there are.
        noun: the name of one of them, whose plural is regular.
        verb: the verb of several of them.

    Example:
        >>> counted(1, "image"), counted(20, "class"), counted(1, "image", "have")
        ('1 image', '20 classes', '1 image has')
    """
    plural = f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
    words = f"{count} {noun if count == 1 else plural}"
    return f"{words} {_OF_ONE[verb] if count == 1 else verb}" if verb else words
