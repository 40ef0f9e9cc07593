"""Label new images with a trained model: the command predict."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_ray.cli.complete import run_names
from wsss_ray.cli.console import Model, OpenStore, check_out, fail, open_store
from wsss_ray.cli.guard import guard, join, parse_address_or_exit
from wsss_ray.core.counted import counted

Crf = Annotated[
    bool | None,
    typer.Option("--crf/--no-crf", help="Refine labels with a dense CRF, or not. Default: as the job's metric does."),
]
ModelOf = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run, id of a train stage, or exported folder (a path with a /).", autocompletion=run_names
    ),
]
Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="Image files, folders, or quoted patterns.")]


def predict(
    run: ModelOf,
    images: Images,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write. Run again to resume.")],
    form: Annotated[
        Literal["voc", "parquet"], typer.Option("--format", help="PNGs in VOC's colours, or Parquet shards.")
    ] = "voc",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write each image with its labels drawn over it.")] = False,
    model: Model = None,
    crf: Crf = None,
    store: OpenStore = "runs",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: chosen by the speed of the first images.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Cluster to use: auto or HOST:PORT. All its machines must see the same paths."),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the largest image; larger ones fail. Default: the limit of the job's data."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Label all images again, also in a folder that holds files.")
    ] = False,
) -> None:
    """Label images with a trained model.

    Exits with 1 if some images failed (errors.csv says why), and with 2 if nothing was done.
    """
    from wsss_ray.inference.inputs import list_images
    from wsss_ray.inference.trained import find_trained

    if overlay and form == "parquet":
        fail("--overlay: goes with --format voc")
    if address is not None:
        cluster = parse_address_or_exit(address)
        if cluster.kind == "jobs":
            fail(f"--address {address}: predict drives the cluster itself; run it on one of its machines with --address auto")
        join(cluster)
    guard()
    if "/" not in run:
        open_store(store, must_exist=True)
    try:
        trained = find_trained(run, store, model).with_crf(crf)
        listing = list_images(images, out=out)
    except (OSError, ValueError) as error:
        fail(str(error))
    check_out(out)
    if max_pixels is not None:
        trained = replace(trained, max_pixels=max_pixels)
    from wsss_ray.inference.batch import Prediction, begin, finish
    from wsss_ray.reporting.progress import Display
    from wsss_ray.runners.causes import cause
    from wsss_ray.runners.predict import predict as make

    began = time.monotonic()
    try:
        work, parts = begin(Prediction(trained, out.absolute(), form, overlay), listing, overwrite=overwrite)
        wanted = sum(len(part.images) for part in parts)
        failures = make(work, parts, Display(), workers=workers)
        errors = finish(work, listing, failures, made=wanted - len(failures), seconds=time.monotonic() - began)
    except (OSError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Interrupted. Written labels are kept. Run the command again to continue.", code=130)
    except Exception as error:  # noqa: BLE001  Ray wraps our errors in classes of its own
        fail(cause(error).line)
    there = len(listing.images) - wanted
    note = f", {there} {'was' if there == 1 else 'were'} there already" if there else ""
    typer.echo(f"{trained.title}: {counted(wanted - len(failures), 'image')} to {out}{note}")
    if errors:
        (path, reason), named = errors[0], len(listing.images) + len(listing.refused)
        fail(f"{len(errors)} of {counted(named, 'image')} failed, see {out / 'errors.csv'}; {path}: {reason}", code=1)
