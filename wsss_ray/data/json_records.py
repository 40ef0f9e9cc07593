"""Read the records of a large JSON text one by one, with their places in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = "\xef\xbb\xbf"  # the byte order mark of UTF-8, read as Latin-1


class _Cursor:
    """A position in a JSON text. Its methods raise JSONDecodeError if the text is not what they expect."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = len(_BOM) if text.startswith(_BOM) else 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Skip white space; return the next character, or an empty string at the end."""
        space = _SPACE.match(self.text, self.at)
        assert space is not None
        self.at = space.end()
        return self.text[self.at : self.at + 1]

    def mark(self, allowed: str) -> str:
        """Read one character, which must be in `allowed`."""
        found = self.peek()
        if not found or found not in allowed:
            raise json.JSONDecodeError(f"Expecting {' or '.join(allowed)}", self.text, self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """Read a whole value."""
        self.peek()
        value, self.at = self._decode(self.text, self.at)
        return value

    def members(self, start: str, end: str) -> Iterator[None]:
        """Yield before every member of an object or list; the caller must read the member."""
        self.mark(start)
        if self.peek() == end:
            self.at += 1
            return
        while True:
            yield
            if self.mark("," + end) == end:
                return


def records_of(text: str, lists: Sequence[str]) -> Iterator[tuple[str, int, Any, int, int]]:
    """Yield every record of the lists of an object: name of the list, index in it, the record, its start and its end in the text.

    Args:
        text: The text. It may be UTF-8 read as Latin-1, so that places in the text are places in the file.
        lists: The names of the lists. Other members of the object are skipped.

    Raises:
        JSONDecodeError: if the text is no JSON, or a list is none.
        ValueError: if a list is missing.

    Example:
        >>> list(records_of('{"a": [7]}', ["a"]))
        [('a', 0, 7, 7, 8)]
    """
    cursor, missing = _Cursor(text), list(lists)
    for _ in cursor.members("{", "}"):
        key = cursor.value()
        cursor.mark(":")
        if key not in missing:
            cursor.value()
            continue
        missing.remove(key)
        for place, _ in enumerate(cursor.members("[", "]")):
            cursor.peek()
            start = cursor.at
            yield key, place, cursor.value(), start, cursor.at
    if cursor.peek():
        raise json.JSONDecodeError("Extra data", text, cursor.at)
    if missing:
        raise ValueError(f"there is no {missing[0]!r}; expected {', '.join(lists)}, as in COCO's instances_*.json")
