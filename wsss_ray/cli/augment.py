"""Prepare Pascal VOC as the papers use it: the command augment-voc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_ray.cli.console import fail
from wsss_ray.cli.init import show_progress
from wsss_ray.core.counted import counted

VocFolder = Annotated[Path, typer.Argument(metavar="VOC", help="Folder VOCdevkit/VOC2012.")]
SbdFolder = Annotated[Path, typer.Argument(metavar="SBD", help="Folder benchmark_RELEASE, unpacked from benchmark.tgz.")]


def augment_voc(voc: VocFolder, sbd: SbdFolder) -> None:
    """Add the masks of SBD to a folder of Pascal VOC 2012.

    Writes SegmentationClassAug and train_aug.txt, on which the papers train.
    """
    from wsss_ray.data.sbd import LIST, augment

    try:
        with show_progress() as watch:
            found = augment(voc, sbd, watch=watch)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or voc}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail("interrupted; run it again to start over", code=130)
    typer.echo(f"{LIST}: {counted(found.train_aug, 'image')}, {found.train} of them VOC's own; {found.val} to score on")
