"""Stay inside a local store: nothing below its root is reached through a link, for reading, writing or deleting."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress

from wsss_ray.core.errors import DamagedFile

_PLACES = ((stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def refuse_links(root: str, path: str, *, file: bool = False) -> None:
    """Raise DamagedFile if a part of a path below the store's root is a symbolic link, or leads up.

    The root itself may be a link, or lie behind one. Parts that do not exist yet are no links.

    Args:
        root: The folder of the store.
        path: A path below it.
        file: Raise it too if something else than a regular file has the path, or something else than a folder is above it. A pipe
            must not be opened, because that waits for its other end.

    Example:
        >>> refuse_links("/nfs/runs", "/nfs/runs/stages/seed-0123456789abcdef/record.json")
    """
    below = path[len(root) :].strip("/")
    if not path.startswith(root) or ".." in below.split("/"):
        raise DamagedFile(f"{path}: does not lie in the store {root}. Was the store edited by hand?")
    place, parts = root, below.split("/")
    for depth, part in enumerate(parts, start=1):
        place = f"{place}/{part}"
        try:
            mode = os.lstat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(mode):
            raise DamagedFile(f"{place}: is a link, and a store follows none. Put there what it points to, or remove the link.")
        if file and not (stat.S_ISREG if depth == len(parts) else stat.S_ISDIR)(mode):
            wanted = "file" if depth == len(parts) else "folder"
            raise DamagedFile(f"{place}: is {_named(mode)}, not a {wanted}. Remove it, then submit the job again.")


def files_below(folder: str) -> dict[str, int]:
    """Return the size of every file below a local folder, by its path there. Links and what they point to are left out."""
    found: dict[str, int] = {}
    folders = [""]
    while folders:
        below = folders.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{below}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # another process deletes it at this moment
                        found[below + entry.name] = entry.stat(follow_symlinks=False).st_size
    return found


def _named(mode: int) -> str:
    return next((name for is_such, name in _PLACES if is_such(mode)), "a device")


def misplaced_below(folder: str, are_files: Callable[[str], bool]) -> list[str]:
    """Return what is below a local folder and neither a file, a folder nor a link, and the folders that have a file's name.

    Args:
        folder: The folder.
        are_files: Tells of a path in the folder whether a file should have it.

    Returns:
        Their paths in the folder, sorted. What is inside such a folder is left out.
    """
    found, left = [], [""]
    while left:
        below = left.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False) and not are_files(name):
                    left.append(f"{name}/")
                elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                    found.append(name)
    return sorted(found)


def remove_misplaced(path: str) -> bool:
    """Remove a pipe, a socket or an empty folder, and return True; leave anything else alone, and return False."""
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        with suppress(OSError):  # it is not empty
            os.rmdir(path)
            return True
    elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        os.unlink(path)
        return True
    return False


def links_below(folder: str) -> list[str]:
    """Return the links below a local folder, by their paths there, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in (*folders, *files)]
    return sorted(name for name in found if os.path.islink(os.path.join(folder, name)))


def remove_folder(folder: str) -> None:
    """Delete a local folder and its content, if it exists. Links in it are removed and not followed."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def remove_temporary(folder: str, prefix: str) -> int:
    """Delete the files below a local folder whose names begin with `prefix`, and return their number. No link is followed."""
    removed = 0
    for name in files_below(folder):
        if name.rpartition("/")[2].startswith(prefix):
            with suppress(OSError):  # another process was faster
                os.unlink(f"{folder}/{name}")
                removed += 1
    return removed


def sync_folders(folder: str) -> None:
    """Wait until the names in a local folder, those in it and the one around it are on the disk, to outlive a power failure.

    A file system that cannot wait for a folder is left alone.
    """
    inner = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)] if os.path.isdir(folder) else []
    for path in (*inner, *(outer for outer in (folder, os.path.dirname(folder)) if os.path.isdir(outer))):
        number = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):
                os.fsync(number)
        finally:
            os.close(number)
