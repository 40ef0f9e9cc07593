"""Hold the rows of tables of tags, read lists line by line, and check the names of classes. Errors name file and line."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

from wsss_ray.core.errors import shown
from wsss_ray.data.flat import Texts
from wsss_ray.data.image_files import nfc
from wsss_ray.data.list_lines import of_line

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPLIT_NAMES = ("weak", "val", "test")


class TagRow(NamedTuple):
    """One image of a table of tags. `split` is "weak", "val" or "test" (left out).

    `place` says in words where in `file` the row is, such as ":{line}" or ": {image}".
    """

    image: str
    tags: tuple[str, ...]
    split: str
    file: str = ""
    place: str = "{image}"
    line: int = 0

    @property
    def where(self) -> str:
        """Return file and line, for messages."""
        return self.file + self.place.format(line=self.line, image=shown(self.image))


class TagRows(Sequence[TagRow]):
    """The rows of a table, each made when it is asked for: a row takes the name of its image and 17 bytes."""

    def __init__(self, file: str, place: str) -> None:
        self._file, self._place = file, place
        self._images, self._lines, self._splits = Texts(), array("I"), bytearray()
        self._tags, self._known = array("I"), list[tuple[str, ...]]()  # a million rows have few different tags
        self._numbers = dict[tuple[str, ...], int]()

    def append(self, image: str, tags: tuple[str, ...], split: str, line: int) -> None:
        """Append a row."""
        number = self._numbers.setdefault(tags, len(self._known))
        if number == len(self._known):
            self._known.append(tags)
        self._images.append(image)
        self._tags.append(number)
        self._splits.append(_SPLIT_NAMES.index(split))
        self._lines.append(line)

    def of_split(self, split: str) -> Iterator[TagRow]:
        """Yield the rows of one split."""
        number = _SPLIT_NAMES.index(split)
        if number not in self._splits:
            return
        for image, tags, one, line in zip(self._images, self._tags, self._splits, self._lines, strict=True):
            if one == number:
                yield TagRow(image, self._known[tags], split, self._file, self._place, line)

    @property
    def names(self) -> set[str]:
        """Return all names that the tags mention."""
        return {name for tags in self._known for name in tags}

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> TagRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[TagRow]: ...
    def __getitem__(self, place: int | slice) -> TagRow | list[TagRow]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        tags, split = self._known[self._tags[place]], _SPLIT_NAMES[self._splits[place]]
        return TagRow(self._images[place], tags, split, self._file, self._place, self._lines[place])


@dataclass(frozen=True)
class Table:
    """The rows of a table of tags, all class names that it mentions, sorted, and the folder of its images on another machine."""

    rows: TagRows
    names: tuple[str, ...]
    home: str = ""


def read_text(path: Path, field: str) -> str:
    """Read a UTF-8 file. Raises ValueError that names the job's field and the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{field}: {path} is not UTF-8 text; save it as UTF-8") from err


def lines_of(path: Path, field: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends, without holding the file. Raises ValueError like `read_text`."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except OSError as err:
        raise ValueError(f"data.{field}: cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"data.{field}: {path} is not UTF-8 text; save it as UTF-8") from err


def numbered_lines(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each line of a list that is not empty, without its comment (see `list_lines`)."""
    lines = (line for some in lines_of(path, field) for line in some.splitlines())  # which knows more ends of lines
    for number, line in enumerate(lines, start=1):
        text = of_line(line)
        if text:
            yield number, text


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check class names and return them. Raises ValueError on no or too many classes, empty or repeated names, and background."""
    if not names:
        raise ValueError(f"{where}: no class is named; name at least one")
    if len(names) > 254:
        raise ValueError(f"{where}: {len(names)} classes; at most 254, as label maps have 8 bits and 255 means undecided")
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{where}: class {place} has no name; give it one")
        if name in names[:place]:
            raise ValueError(f"{where}: class {shown(repr(name))} is listed twice; remove one")
        if _SURROGATE.search(name):
            raise ValueError(f"{where}: class {shown(repr(name))} is no text in UTF-8; correct its name")
        if name.strip("_").lower() == "background":
            raise ValueError(f"{where}: leave {shown(repr(name))} out; background is label 0 by itself")
    return tuple(names)


def check_spelling(names: Iterable[str], where: str, field: str = "data.classes") -> None:
    """Check that no two class names differ only in case, spaces or the spelling of accents. Raises ValueError that names two."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[" ".join(nfc(name).casefold().replace("_", " ").split())].append(name)
    for group in alike.values():
        if len(group) > 1:
            both = shown(" and ".join(map(repr, group)), 300)
            raise ValueError(f"{where}: {both} are spelled alike; use one spelling, or list each in {field} to keep them apart")


def indices(tags: Sequence[str], classes: Sequence[str], where: str, others: Sequence[str] = ()) -> tuple[int, ...]:
    """Convert class names to sorted 0-based indices. Raises ValueError that lists the allowed names.

    Args:
        tags: The names.
        classes: The names that have an index.
        where: The place of the names, for the message.
        others: Names that are left out.
    """
    for tag in tags:
        if tag not in classes and tag not in others:
            raise ValueError(f"{where}: unknown class {shown(repr(tag))}; allowed: {shown(', '.join(classes), 1000)}")
    return tuple(sorted({classes.index(tag) for tag in tags if tag in classes}))
