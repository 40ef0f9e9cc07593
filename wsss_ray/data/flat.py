"""Hold millions of texts in few bytes each: a listing is as large as its names, not as Python's objects.

Plain Python and no numpy, because a plan of a small folder must not wait for an import. Nothing here depends on the values of
hashes, which differ from process to process: texts of one hash are compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import accumulate, islice, pairwise
from typing import overload

_PIECE = 16_384  # texts held as objects at a time
_FIRST_SLOTS = 64  # a power of two


class Texts(Sequence[str]):
    """Texts in one buffer, to which one can only append. A text takes its bytes in UTF-8 and 8 more.

    Example:
        >>> names = Texts(["a.png", "b.png"])
        >>> names.append("c.png")
        >>> names[2], len(names)
        ('c.png', 3)
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._data, self._ends = bytearray(), array("q", [0])
        self.extend(texts)

    def append(self, text: str) -> None:
        """Append a text. Names of files that are not UTF-8 stay as they are."""
        data = self._data
        data += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(data))

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts, which is quicker than one by one."""
        rest = iter(texts)
        while piece := [text.encode("utf-8", "surrogatepass") for text in islice(rest, _PIECE)]:
            sizes = accumulate(map(len, piece), initial=len(self._data))
            self._data += b"".join(piece)
            self._ends.extend(islice(sizes, 1, None))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self._data[self._ends[place] : self._ends[place + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for start, end in pairwise(self._ends):
            yield self._data[start:end].decode("utf-8", "surrogatepass")


class Places:
    """The places at which texts were added, by the hash of the text: 14 to 20 bytes for each text, and none for its letters.

    Different texts may have the same hash, so whoever finds a place must compare the text that is there.

    Example:
        >>> places = Places()
        >>> places.add("cat"), places.add("dog"), places.add("cat")
        (False, False, True)
        >>> places.find("cat")
        [0, 2]
    """

    def __init__(self) -> None:
        self._hashes = array("q")  # by place
        self._slots = array("I", [0]) * _FIRST_SLOTS  # place + 1; 0 if free

    def add(self, text: str) -> bool:
        """Add a text at the next place. Return True if a text of the same hash, most likely the same text, was there before."""
        value, hashes, slots = hash(text), self._hashes, self._slots
        mask, known = len(slots) - 1, False
        slot = value & mask
        while place := slots[slot]:
            known = known or hashes[place - 1] == value
            slot = (slot + 1) & mask
        hashes.append(value)
        count = slots[slot] = len(hashes)
        if 3 * count > 2 * mask:
            self._grow()
        return known

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, text: str) -> list[int]:
        """Return the places of all texts with the hash of this one, in the order in which they were added."""
        value, hashes, slots = hash(text), self._hashes, self._slots
        mask, found = len(slots) - 1, list[int]()
        slot = value & mask
        while place := slots[slot]:
            if hashes[place - 1] == value:
                found.append(place - 1)
            slot = (slot + 1) & mask
        return found

    def _grow(self) -> None:
        slots = array("I", [0]) * (2 * len(self._slots))
        mask = len(slots) - 1
        for place, value in enumerate(self._hashes, start=1):
            slot = value & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = place
        self._slots = slots


def in_order(texts: Iterable[str]) -> Texts:
    """Return texts in the order of `sorted`, which would hold them all as objects.

    Example:
        >>> list(in_order(["b", "a"]))
        ['a', 'b']
    """
    rest, pieces = iter(texts), list[Texts]()
    while piece := sorted(islice(rest, _PIECE)):
        pieces.append(Texts(piece))
    return pieces[0] if len(pieces) == 1 else Texts(merge(*pieces))
