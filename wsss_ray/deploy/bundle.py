"""Bundle what a job needs on a cluster: this package, the resolved job file, and the user's own modules. No Ray.

The cluster's machines only need the dependencies. The bundle becomes the working folder of the job's driver and comes first on
the import path of its workers. So it takes precedence over a version of this package that is installed there.
"""

from __future__ import annotations

import atexit
import importlib
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path

from wsss_ray.config.document import to_yaml
from wsss_ray.config.job import JobConfig, LoadedJob, read_job
from wsss_ray.config.paths import local_paths
from wsss_ray.core.plugins import PLUGINS
from wsss_ray.core.version import PACKAGE
from wsss_ray.data.image_files import walk

MAX_BYTES = 100 * 1024**2
JOB_FILE = "job.yaml"


class BundleError(ValueError):
    """A job that cannot be shipped as it is. The message has one line per mistake, ready to print."""


def resolve(path: Path, overrides: Sequence[str]) -> tuple[LoadedJob, str]:
    """Read a job, and compose the job file to ship: base merged, overrides and environment variables filled in.

    Fields that may hold a secret keep `${NAME}`: the cluster's own environment must have it. The data is not listed, so it need
    not be on this machine.

    Args:
        path: The job file.
        overrides: The values of `--set`.

    Returns:
        The job with its document, and the text to ship.

    Raises:
        JobError: if the job is not valid. One line per mistake.
        BundleError: if a path is relative. One line per path.
    """
    loaded = read_job(path, overrides)
    problems = relative_paths([loaded.job, *(one.job for one in loaded.trials())])
    if problems:
        raise BundleError("\n".join(problems))
    return loaded, to_yaml(loaded.document.filled_in(loaded.job.kept()))


def gather(includes: Sequence[Path] = (), excludes: Sequence[str] = ()) -> dict[str, Path]:
    """List the files to ship: this package and the user's modules, without hidden files and caches.

    Args:
        includes: Modules and package folders.
        excludes: Patterns of files to leave out, such as `mine/data/*`.

    Returns:
        The files by their path in the bundle.

    Raises:
        BundleError: if an include is no module, or has the name of another one.
    """
    found = dict(_files(PACKAGE))
    for path in includes:
        name = module_name(path)
        if any(place == path.name or place.startswith(f"{path.name}/") for place in found):
            raise BundleError(f"--include {path}: there is already a module {name}; rename yours")
        found |= dict(_files(path))
    return {place: file for place, file in found.items() if not any(fnmatch(place, pattern) for pattern in excludes)}


def check_size(files: Mapping[str, Path], *, most: int = MAX_BYTES) -> int:
    """Return the bytes to ship. Raises BundleError, which names the largest files, if they are more than `most`."""
    sizes = {place: file.stat().st_size for place, file in files.items()}
    total = sum(sizes.values())
    if total > most:
        largest = sorted(sizes, key=lambda place: (-sizes[place], place))[:5]
        named = ", ".join(f"{place} ({_mib(sizes[place])})" for place in largest)
        raise BundleError(
            f"the job would ship {_mib(total)}, more than {_mib(most)}; the largest files: {named}. Leave out what is no code by "
            f"--exclude {shlex.quote(largest[0])}, and give data and weights as paths that every machine sees"
        )
    return total


def write(folder: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    """Write the bundle to an empty folder."""
    for place, file in files.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for place, text in texts.items():
        (folder / place).write_text(text, encoding="utf-8")


def import_includes(includes: Sequence[Path]) -> None:
    """Import the user's own modules in this process, so that a job file can name the kinds that they define.

    Raises:
        BundleError: if a module cannot be imported, or another module has its name.
    """
    for path in includes:
        name = module_name(path)
        parent = str(path.resolve().parent)
        if parent not in sys.path:
            sys.path.append(parent)
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise BundleError(f"--include {path}: {type(error).__name__}: {error}") from error
        file = Path(module.__file__ or "").resolve()
        if file != path.resolve() and path.resolve() not in file.parents:
            raise BundleError(f"--include {path}: there is another module {name} ({file}); rename yours")
        named = [known for known in os.environ.get(PLUGINS, "").split(",") if known and known != name]
        os.environ[PLUGINS] = ",".join([*named, name])
        _offer_to_workers(path.resolve())


def _offer_to_workers(path: Path) -> None:
    """Let the workers of a private Ray import a module.

    The module gets a folder of its own on the path, because files beside it may have the names of installed packages.
    """
    folder = tempfile.mkdtemp(prefix="wsss-ray-include-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.symlink(path, os.path.join(folder, path.name))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))


def module_name(path: Path) -> str:
    """Return the name under which an included file or folder is imported. Raises BundleError if it is no module."""
    is_module = path.suffix == ".py" and path.is_file()
    if not is_module and not (path / "__init__.py").is_file():
        raise BundleError(f"--include {path}: is neither a module (a .py file) nor a package (a folder with __init__.py)")
    name = path.stem if is_module else path.resolve().name
    if not name.isidentifier() or name == "wsss_ray" or name in sys.stdlib_module_names:
        raise BundleError(f"--include {path}: {name!r} cannot be a module's name here; rename it")
    return name


def relative_paths(jobs: Iterable[JobConfig]) -> list[str]:
    """Return a line for every relative path in the jobs, because other machines cannot resolve it."""
    problems = []
    for job in jobs:
        for field, value in local_paths(job):
            if not Path(value).is_absolute():
                problems.append(
                    f"{field}: {value} is relative; machines of a cluster share no working folder: "
                    "give an absolute path that all of them see"
                )
    return list(dict.fromkeys(problems))


def is_local_store(uri: str) -> bool:
    """Return True if a store's URI is a relative path."""
    return "://" not in uri and not Path(uri).is_absolute()


def attempt_id(run: str, *, now: datetime | None = None) -> str:
    """Make a submission id for a run: its name, the time in UTC, and four hexadecimal digits."""
    return f"{run}-{(now or datetime.now(timezone.utc)).strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"


def entrypoint(arguments: Sequence[str], *, python: str, here: str | None = None) -> str:
    """Compose the shell command that the cluster runs.

    Args:
        arguments: The arguments of `wsss-ray`.
        python: The interpreter on the cluster.
        here: An interpreter to prefer if the cluster has it.
    """
    command = shlex.join([python, "-m", "wsss_ray", *arguments])
    if here is None:
        return command
    chosen = f'"$(command -v {shlex.quote(here)} || command -v {shlex.quote(python)})"'
    return f"{chosen} -m wsss_ray {shlex.join(arguments)}"


def _files(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a package, or the one of a module, with their paths relative to the folder that holds it."""
    top = top.resolve()
    if top.is_file():
        yield top.name, top
        return
    for name, what in sorted(walk(top)):
        if what in ("image", "file") and not any(map(_is_left, name.split("/"))):
            yield f"{top.name}/{name}", top / name


def _is_left(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".pyo"))


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
