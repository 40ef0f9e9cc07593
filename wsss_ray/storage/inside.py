"""Stay inside a local store: nothing below its root is reached through a link, for reading, writing or deleting."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

from wsss_ray.core.errors import DamagedFile


def refuse_links(root: str, path: str) -> None:
    """Raise DamagedFile if a part of a path below the store's root is a symbolic link, or leads up.

    The root itself may be a link, or lie behind one. Parts that do not exist yet are no links.

    Args:
        root: The folder of the store.
        path: A path below it.

    Example:
        >>> refuse_links("/nfs/runs", "/nfs/runs/stages/seed-0123456789abcdef/record.json")
    """
    below = path[len(root) :].strip("/")
    if not path.startswith(root) or ".." in below.split("/"):
        raise DamagedFile(f"{path}: does not lie in the store {root}. Was the store edited by hand?")
    place = root
    for part in below.split("/"):
        place = f"{place}/{part}"
        try:
            mode = os.lstat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(mode):
            raise DamagedFile(f"{place}: is a link, and a store follows none. Put there what it points to, or remove the link.")


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
