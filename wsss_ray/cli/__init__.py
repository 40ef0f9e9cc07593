"""Assemble the command line. Commands parse, call and print; each imports what is heavy inside its function."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss_ray.cli import (
    attempts,
    augment,
    check,
    clean,
    compare,
    console,
    evaluate,
    export,
    guard,
    import_masks,
    init,
    predict,
    render,
    show,
    signals,
    status,
    submit,
    verify,
)

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)

for command in (
    *(init.init, check.check),
    *(submit.submit, submit.resume, attempts.ps, attempts.logs, attempts.stop),
    *(show.plan, show.validate, show.methods, show.schema, status.status, show.show, verify.verify, render.render),
    *(compare.compare, export.export, import_masks.import_masks, predict.predict, evaluate.evaluate, clean.rm, clean.gc),
    augment.augment_voc,
):
    app.command()(command)


def main() -> None:
    """Run the command line. A mistake that the user can fix ends it with one clear message and exit code 2."""
    guard.BY_MAIN.set(True)
    with signals.heard():
        try:
            app()
        except OSError as error:  # of a command that reads: a store or a disk that fails
            console.fail(str(error))


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster.

    To begin: wsss-ray init FOLDER, then wsss-ray check job.yaml, then wsss-ray submit job.yaml.
    """
    if version:
        from wsss_ray.core.version import __version__

        typer.echo(f"wsss-ray {__version__}")
        raise typer.Exit
