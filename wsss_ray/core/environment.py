"""Fill in ${NAME} from the environment, and remember what was written.

A job file may take a secret, such as a token in the address of a server, from the environment. What is stored, shown or sent
keeps `${NAME}`; only the code that uses the value gets the secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BeforeValidator

_NAME = re.compile(r"\$\{(\w+)\}")


class Filled(str):
    """A text in which variables have been filled in. `written` is the text with `${NAME}`."""

    __slots__ = ("written",)
    written: str


def fill(text: str) -> str:
    """Return a text with each ${NAME} replaced by the environment variable, as `Filled` if there is any.

    Raises:
        ValueError: if a variable is not set.

    Example:
        >>> os.environ["WHERE"] = "/data"
        >>> fill("${WHERE}/voc")
        '/data/voc'
    """
    if "${" not in text or not _NAME.search(text):
        return text

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"environment variable {match[1]} is not set (used as {match[0]}). Set it.")
        return os.environ[match[1]]

    filled = Filled(_NAME.sub(replace, text))
    filled.written = text
    return filled


def as_written(value: Any) -> Any:
    """Return the text as it was written, if variables have been filled in; else the value."""
    return value.written if isinstance(value, Filled) else value


AsWritten = BeforeValidator(as_written)
"""Mark a field that keeps `${NAME}`, because it may hold a secret. Call `fill` where the value is used.

Example:
    server: Annotated[str, AsWritten] = "https://${TOKEN}@host"
"""


def hidden(message: str, value: Any) -> str:
    """Return a message in which the filled-in texts of a value, at any depth, stand as they were written.

    Example:
        >>> hidden("https://tok3n@host: no such server", fill("https://${TOKEN}@host"))
        'https://${TOKEN}@host: no such server'
    """
    for filled in sorted(_filled_in(value), key=len, reverse=True):
        message = message.replace(repr(str(filled))[1:-1], filled.written).replace(filled, filled.written)
    return message


def _filled_in(value: Any) -> Iterator[Filled]:
    if isinstance(value, Filled) and value:
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _filled_in(part)


def restore(value: Any, written: str) -> Any:
    """Return a value made from a filled-in text, such as an absolute path, with `${NAME}` where the text had it.

    Args:
        value: The value: a text, or a block or list with texts.
        written: The text in the job file.

    Example:
        >>> os.environ["WHERE"] = "data"
        >>> restore("/home/me/data/voc", "${WHERE}/voc")
        '/home/me/${WHERE}/voc'
    """
    if isinstance(value, dict):
        return {key: restore(part, written) for key, part in value.items()}
    if isinstance(value, list):
        return [restore(part, written) for part in value]
    filled = fill(written)
    if not isinstance(value, str) or not value or not filled:
        return value
    if value.endswith(filled):
        return value.removesuffix(filled) + written
    for name in sorted(set(_NAME.findall(written)), key=lambda name: -len(os.environ[name])):
        if os.environ[name]:
            value = value.replace(os.environ[name], f"${{{name}}}")
    return value
