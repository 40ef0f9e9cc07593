"""Commands that carry artifacts out of the store: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_ray.cli.console import OpenStore, RunName, fail, known_run, open_store


def export(
    run: RunName,
    form: Annotated[Literal["voc", "coco"], typer.Option("--format", help="PNGs in VOC's colours, or one JSON of COCO's RLE.")],
    stage: Annotated[str | None, typer.Option(help="Stage with seeds or predictions; by default the last that is done.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write; by default RUN-STAGE-FORMAT.")] = None,
    store: OpenStore = "runs",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds files; others stay.")] = False,
) -> None:
    """Write the label maps of a run as files: seeds, relabelled seeds, or a model's predictions."""
    from wsss_ray.export import export as write
    from wsss_ray.export import find_labels

    run_store = open_store(store, must_exist=True)
    try:
        maps = find_labels(run_store, known_run(run_store, run), stage)
        folder = out or Path(f"{run}-{maps.stage}-{form}")
        done = write(run_store, maps, folder, form=form, overwrite=overwrite)
    except (OSError, ValueError) as error:
        fail(str(error))
    note = f"; {done.skipped} skipped, which have no label map" if done.skipped else ""
    typer.echo(f"{maps.stage} ({maps.id}): {done.images} images to {done.path}{note}")
    if form == "coco":
        typer.echo("one annotation per class and image; background and undecided pixels (255) have none")
