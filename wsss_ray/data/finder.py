"""Find files by the names that tables, lists and annotations use for them: one rule for all data sources.

A name is a path below the folder of the images. A backslash is a slash, and `./` in front is left out. Accents may be stored in
either way (macOS stores a letter and its accent apart). An image's ending may be missing if only one file fits. Upper and lower
case count. A name from the root of a disk, or out of the folder by `..`, is of the machine that wrote the file: what all such
names of a file have in common is taken away.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from wsss_ray.core.errors import shown
from wsss_ray.data.flat import Places, in_order
from wsss_ray.data.image_files import SUFFIXES, alike, bare, image_names, nfc
from wsss_ray.data.lookup import file_state

_UNCLEAN = re.compile(r"\\|//|(^|/)\.{1,2}(/|$)|/$")
_FOREIGN = re.compile(r"(file://+|[A-Za-z]:/|/|(\.\./)+)")


def clean(name: str) -> str:
    r"""Return a name with slashes, and without what changes nothing, such as `./`.

    Example:
        >>> clean(".\\cat\\1.jpg")
        'cat/1.jpg'
    """
    return posixpath.normpath(name.replace("\\", "/")) if _UNCLEAN.search(name) else name


def home(names: Iterable[str]) -> str:
    """Return the folder, with a slash at its end, that clean names have in common if all are of another machine; "" if not.

    Example:
        >>> home(["/home/me/pets/cat/1.jpg", "/home/me/pets/dog/2.jpg"])
        '/home/me/pets/'
    """
    common: str | None = None
    for name in names:
        if not _FOREIGN.match(name):
            return ""
        common = name[: name.rfind("/") + 1] if common is None else _shared(common, name)
    return common[: common.rfind("/") + 1] if common else ""


def _shared(one: str, other: str) -> str:
    """Return the letters that two texts begin with."""
    end = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:end]


def relative(name: str, folder: str, other: str) -> str:
    """Return a clean name relative to a folder of this machine, or to `other`, the folder that `home` found."""
    if not _FOREIGN.match(name):
        return name
    here = f"{os.path.abspath(folder)}/"
    start = here if name.startswith(here) else other
    return name[len(start) :] if start and name.startswith(start) else name


class FoundFiles:
    """The images below a folder, `names` in order, and found by a name that may lack the extension. About 30 bytes and a name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names, self._places = in_order(names), Places()
        for name in self.names:
            self._places.add(_key(name))

    def named(self, image: str) -> list[str]:
        """Return the files that a name may mean: accents in any spelling, any extension."""
        key = _key(image)
        found = (self.names[place] for place in self._places.find(key))
        return [name for name in found if name == image or _key(name) == key]

    def meant(self, image: str, *, where: str) -> str | None:
        """Return the file that a name means, or None.

        Args:
            image: The name.
            where: The place of the name, for the message.

        Raises:
            ValueError: if several files differ from the name only in their endings.
        """
        named = self.named(image)
        same = [name for name in named if nfc(name) == nfc(image)]
        if same or not named or image != bare(image):
            return same[0] if same else None
        if len(named) > 1:
            several = shown(" or ".join(sorted(named)), 500)
            raise ValueError(f"{where}: image {shown(repr(image), 300)} may be {several}; give the extension")
        return named[0]

    def near(self, image: str) -> str | None:
        """Return a file whose name differs only in folder, ending or case, or in leading zeros; None if none does."""
        key, number = alike(image), PurePosixPath(image).name.lstrip("0")
        alikes = (name for name in self.names if alike(name) == key)
        return next(alikes, None) or next(
            (name for name in self.names if number.isdigit() and PurePosixPath(bare(name)).name.lstrip("0") == number), None
        )

    def remedy(self, image: str) -> str:
        """Say how to mend a name that is not found in a table."""
        near = self.near(image)
        if near is not None:
            return f"did you mean {shown(repr(near), 300)}?"
        return f"add it or remove the row; formats: {' '.join(SUFFIXES)}"


def _key(name: str) -> str:
    return nfc(bare(name))


class Finder:
    """Find the images below a folder by name. The folder is only listed if a name is not that of a file.

    Args:
        folder: The folder.
        suffixes: Endings to try before the folder is listed.
    """

    def __init__(self, folder: str, suffixes: Sequence[str] = ()) -> None:
        self.folder, self._suffixes = folder, suffixes

    @cached_property
    def files(self) -> FoundFiles:
        """List the images of the folder. There are none if there is no such folder."""
        return FoundFiles(image_names(self.folder) if os.path.isdir(self.folder) else ())

    def find(self, name: str, *, where: str) -> tuple[str, int, float] | None:
        """Find an image by a clean name. Return its path, its size and when it was last written, or None.

        Raises:
            ValueError: if several files differ from the name only in their endings. It begins with `where`.
        """
        for suffix in ("", *(self._suffixes if name == bare(name) else ())):
            path = f"{self.folder}/{name}{suffix}"
            if (state := file_state(path)) is not None:
                return path, *state
        meant = self.files.meant(name, where=where)
        if meant is None or (state := file_state(f"{self.folder}/{meant}")) is None:
            return None
        return f"{self.folder}/{meant}", *state


def beside(folder: str, image_id: str, ending: str = ".png") -> tuple[str, tuple[int, float] | None]:
    """Return the path of a file that is named like an image, such as a mask, with its size and time; None if it is missing.

    Accents in the name may be stored in either way.

    Example:
        >>> beside("masks", "cat/1")
        ('masks/cat/1.png', (1234, 1700000000.0))
    """
    path = f"{folder}/{image_id}{ending}"
    state = file_state(path)
    if state is None and not image_id.isascii():
        for form in ("NFC", "NFD"):
            other = f"{folder}/{unicodedata.normalize(form, image_id)}{ending}"
            if (found := file_state(other)) is not None:
                return other, found
    return path, state
