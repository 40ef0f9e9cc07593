"""Bring corrected label maps back: the command import-masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_ray.cli.console import check_out, fail
from wsss_ray.core.counted import counted


def import_masks(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="What the tool exported: COCO's JSON, Label Studio's JSON, or the folder of CVAT's Segmentation mask.",
        ),
    ],
    like: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of `wsss-ray export` that the tool read: it names classes and images.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write: masks, list.txt and classes.txt.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that holds files; other files stay.")
    ] = False,
) -> None:
    """Turn label maps that were corrected in CVAT, FiftyOne or Label Studio into masks for data.masks and data.strong."""
    from wsss_ray.inference.import_masks import import_masks as bring

    check_out(out)
    try:
        done = bring(labels, like, out, overwrite=overwrite)
    except (OSError, ValueError) as error:
        fail(str(error))
    left = f"; {counted(done.missing, 'image')} of {like} without one" if done.missing else ""
    typer.echo(f"{counted(done.masks, 'mask')} to {out}{left}")
    typer.echo(f"to train on them: data.masks: {out} and data.strong: masks (kind folder) or {out / 'list.txt'} (kind voc)")
