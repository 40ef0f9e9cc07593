"""Import the user's own modules: the option --include."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wsss_ray.cli.console import fail

Include = Annotated[
    list[Path] | None,
    typer.Option("--include", metavar="PATH", help="Module or package with your own methods or data sources. Repeatable."),
]


def import_own(includes: list[Path] | None, *, remote: bool = False) -> None:
    """Import the user's own modules, so that the job can name their classes here and in the workers of a private Ray.

    Args:
        includes: The modules and packages; None if there are none.
        remote: True if the job is sent to a job server, with these modules.

    Raises:
        SystemExit: if one cannot be imported, or if the job runs on a cluster that has its own modules.

    Example:
        >>> import_own([Path("mine.py")])
    """
    if not includes:
        return
    if not remote and os.environ.get("RAY_ADDRESS"):
        fail("--include: the machines of a running cluster have their own modules; install yours there, or submit by http://")
    from wsss_ray.deploy.bundle import BundleError, import_includes

    try:
        import_includes(includes)
    except BundleError as error:
        fail(str(error))
