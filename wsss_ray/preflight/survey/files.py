"""Read the headers of image files, find odd and broken files and copies, and decode a sample."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wsss_ray.data.images import normalise_image, read_header

T = TypeVar("T")
R = TypeVar("R")

SAMPLE = 100
"""The number of images, and of masks, to decode."""

_CHUNK = 1000
_ENDS = 4096

Progress = Callable[[int], None]
"""A callback that gets the number of files done since its last call."""


def _untold(_done: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Look:
    """One image file, by its header.

    Attributes:
        num_bytes: The size of the file.
        width: Pixels, after turning the image upright.
        height: Pixels, after turning the image upright.
        turned: True if EXIF rotates or flips the image.
        odd: Properties that ingest converts, such as CMYK.
        broken: Why ingest cannot pack the image, or None.
    """

    num_bytes: int
    width: int = 0
    height: int = 0
    turned: bool = False
    odd: tuple[str, ...] = ()
    broken: str | None = None


def look_at(paths: Sequence[str], *, max_pixels: int, progress: Progress = _untold) -> dict[str, Look]:
    """Read the headers of image files.

    Args:
        paths: The files.
        max_pixels: Images with more pixels are broken.
        progress: Called as files are done.

    Returns:
        One look for each path.
    """
    return dict(zip(paths, _threaded(lambda path: _look(path, max_pixels), paths, progress), strict=True))


def decode(paths: Sequence[str], *, max_pixels: int, progress: Progress = _untold) -> dict[str, str]:
    """Decode images in full, as ingest does.

    Args:
        paths: The files.
        max_pixels: Images with more pixels fail.
        progress: Called as files are done.

    Returns:
        The reason by path, for each image that fails.
    """

    def why(path: str) -> str | None:
        try:
            normalise_image(Path(path).read_bytes(), max_pixels=max_pixels)
        except (OSError, ValueError) as error:
            return _said(error)
        return None

    return {path: reason for path, reason in zip(paths, _threaded(why, paths, progress), strict=True) if reason is not None}


def same_content(sizes: Mapping[str, int], *, progress: Progress = _untold) -> list[list[str]]:
    """Group files that hold the same bytes.

    Only files of equal size are read: first their ends, then, if the ends agree, the whole files.

    Args:
        sizes: Bytes by path.
        progress: Called as files are done.

    Returns:
        Groups of two or more paths. Empty files are in none.
    """
    groups = [group for group in _grouped(sizes.__getitem__, sorted(sizes)) if sizes[group[0]] > 0]
    progress(len(sizes) - sum(map(len, groups)))
    for read, told in ((_ends, progress), (_whole, _untold)):
        paths = [path for group in groups for path in group]
        marks = dict(zip(paths, _threaded(read, paths, told), strict=True))
        readable = [[path for path in group if marks[path] is not None] for group in groups]
        groups = [part for group in readable for part in _grouped(marks.__getitem__, group)]
    return groups


def _look(path: str, max_pixels: int) -> Look:
    num_bytes = 0
    try:
        num_bytes = os.stat(path).st_size
        with open(path, "rb") as file:
            header = read_header(file)
    except (OSError, ValueError) as error:
        return Look(num_bytes, broken=_said(error))
    height, width = header.upright
    broken = None
    if header.width * header.height > max_pixels:
        broken = f"more than {max_pixels} pixels (data.max_pixels)"
    elif header.mode == "F":
        broken = "floating-point pixels"
    marks = {
        "animated (the first frame is taken)": header.animated,
        "CMYK": header.mode == "CMYK",
        "16-bit": header.depth == 16,
        "turned by EXIF": header.turned,
    }
    return Look(num_bytes, width, height, header.turned, tuple(name for name, found in marks.items() if found), broken)


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


def _ends(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            start = file.read(_ENDS)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
            return hashlib.blake2b(start + file.read(_ENDS), digest_size=16).digest()
    except OSError:
        return None  # `look_at` reports it


def _whole(path: str) -> bytes | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def _grouped(mark: Callable[[str], R], paths: Iterable[str]) -> list[list[str]]:
    found: dict[R, list[str]] = defaultdict(list)
    for path in paths:
        found[mark(path)].append(path)
    return [group for group in found.values() if len(group) > 1]


def _threaded(work: Callable[[T], R], things: Sequence[T], progress: Progress) -> Iterator[R]:
    """Yield the results in order. Threads hide the latency of disks and networks, and Pillow decodes without Python's lock."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for first in range(0, len(things), _CHUNK):  # a future for each of a million files would fill the memory
            part = things[first : first + _CHUNK]
            yield from pool.map(work, part)
            progress(len(part))
