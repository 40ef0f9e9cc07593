"""List the images that a command line names by files, folders and patterns. Each gets a name below one common folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_ray.data.image_files import SUFFIXES, bare, image_names

_BAD = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Found:
    """An image file.

    Attributes:
        name: Its path below the common folder, without the extension, with forward slashes.
        path: Its absolute path.
        size: Bytes.
        mtime_ns: The time of its last change, in nanoseconds.
    """

    name: str
    path: str
    size: int
    mtime_ns: int

    @property
    def stamp(self) -> str:
        """Return what tells this file from another one of its name. Masks hold it, so that a stale mask is noticed."""
        return f"{self.size} bytes, {self.mtime_ns} ns"


@dataclass(frozen=True)
class InputImages:
    """The images of a command line.

    Attributes:
        root: The common folder.
        images: The images, sorted by path.
        refused: Path and reason, for images whose names cannot be written.
    """

    root: str
    images: tuple[Found, ...]
    refused: tuple[tuple[str, str], ...] = ()


def list_images(patterns: Sequence[str], *, out: Path) -> InputImages:
    """List every image that the patterns name, once.

    A folder names all images below it and behind links in it, except hidden ones and those below `out`. A pattern
    (`photos/**/*.jpg`) names the images that match it. A file names itself, with any extension. Names are relative to the folder
    that all patterns have in common: `photos` gives names below it, `a/x.jpg b/x.jpg` gives a/x and b/x.

    Args:
        patterns: Files, folders and patterns.
        out: The folder that will be written to.

    Raises:
        ValueError: if a pattern names no image, if a named image lies in `out`, or if two images have the same name.
    """
    bases: list[str] = []
    paths: dict[str, None] = {}
    beyond = os.path.abspath(out)
    for pattern in patterns:
        base, files = _expand(pattern, beyond)
        bases.append(base)
        paths |= dict.fromkeys(files)
    root = os.path.commonpath(bases)
    images: dict[str, Found] = {}
    refused = []
    for path in sorted(paths):
        if _is_below(path, beyond):
            raise ValueError(f"{path}: lies in --out {out}, where the labels would be written; give another folder")
        name = bare(os.path.relpath(path, root).replace(os.sep, "/"))
        if _BAD.search(path):
            # Python reads bytes that are not UTF-8 as U+DC80 and above.
            shown = _BAD.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", path)
            refused.append((shown, "its name holds a backslash, a control character or bytes that are not UTF-8; rename it"))
            continue
        if name in images:
            both = f"{images[name].path} and {path} would both be written as {name}"
            raise ValueError(f"{both}; rename one, or call twice with two --out")
        about = os.stat(path)
        images[name] = Found(name, path, about.st_size, about.st_mtime_ns)
    return InputImages(root, tuple(images.values()), tuple(refused))


def _expand(pattern: str, beyond: str) -> tuple[str, list[str]]:
    """Return the folder that names are relative to, and the files. Raises ValueError if there are no files."""
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isfile(path):
        return os.path.dirname(path), [path]
    if os.path.isdir(path):
        base, files = path, list(_walk(path, beyond))
        if not files:
            raise ValueError(f"{pattern}: no image in this folder; formats: {' '.join(SUFFIXES)}")
        return base, files
    if not glob.has_magic(pattern):
        raise ValueError(f"{pattern}: there is no such file or folder; correct the path")
    base = os.path.abspath(path[: re.search(r"[*?\[]", path).start()].rpartition(os.sep)[0] or os.sep)  # type: ignore[union-attr]
    found = (file for file in glob.glob(path, recursive=True) if _is_image(file) and not _is_below(file, beyond))
    files = [file for file in found if not _is_round(file, base)]
    if not files:
        raise ValueError(f"{pattern}: matches no image; formats: {' '.join(SUFFIXES)}")
    return base, files


def _walk(folder: str, beyond: str) -> Iterator[str]:
    """Yield the images below a folder, also behind links, but not those below `beyond`."""
    return (os.path.join(folder, name) for name in image_names(folder, skip={os.path.realpath(beyond)}))


def _is_round(path: str, base: str) -> bool:
    """Return True if a path leads through a link to a folder that holds the link."""
    folder, left = base, list[str]()
    for part in os.path.relpath(os.path.dirname(path), base).split(os.sep) if os.path.realpath(path) != path else ():
        left.append(os.path.realpath(folder))
        folder = os.path.join(folder, part)
        if os.path.islink(folder) and any(_is_below(one, os.path.realpath(folder)) for one in left):
            return True
    return False


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES) and os.path.isfile(path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
