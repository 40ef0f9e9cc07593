"""Export label maps and trained models from the store: the command export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_ray.cli.complete import label_stages, run_names
from wsss_ray.cli.console import Model, OpenStore, check_out, fail, open_store

if TYPE_CHECKING:
    from wsss_ray.inference.export_labels import LabelForm, Shapes
    from wsss_ray.inference.export_model import ModelForm
    from wsss_ray.inference.label_maps import LabelMaps
    from wsss_ray.reporting.history import Attempt
    from wsss_ray.storage.store import RunStore

ExportForm = Literal["voc", "coco", "label-studio", "torch", "onnx", "safetensors"]


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name of a run. For a model, also the id of a train stage.", autocompletion=run_names),
    ],
    form: Annotated[
        ExportForm,
        typer.Option(
            "--format",
            help="Label maps: voc (PNGs in VOC's colours; CVAT), coco (one JSON; FiftyOne, CVAT) or label-studio. "
            "A model: torch (torch.export), onnx or safetensors.",
        ),
    ],
    split: Annotated[
        Literal["train", "val"] | None,
        typer.Option(
            help="Label maps: train for the pseudo-labels of the training images, val for the predictions of the validation "
            "images. Default: train, unless the run makes no pseudo-labels."
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Stage whose label maps to export. Default: the last one of the split that is done.", autocompletion=label_stages
        ),
    ] = None,
    shapes: Annotated[
        Literal["rle", "polygons"] | None,
        typer.Option(help="Shapes of coco and label-studio: rle, one per class (default), or polygons, one per connected piece."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="For label-studio: what to put before an image's name. Default: /data/local-files/?d="),
    ] = None,
    model: Model = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image to compare the model's file on. Default: an image of the run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write. Default: RUN-STAGE-FORMAT.")] = None,
    store: OpenStore = "runs",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that holds files; other files stay.")
    ] = False,
) -> None:
    """Export the label maps or a trained model of a run as files.

    Label maps are pseudo-labels (seeds) or predictions, in the size of the image files. A model comes with a model card and is
    compared with the network on an image.
    """
    from wsss_ray.inference.attempts import known_attempts, labels_of

    run_store = open_store(store, must_exist=True)
    if out is not None:
        check_out(out)
    of_labels = {"--split": split, "--stage": stage, "--shapes": shapes, "--url": url}
    of_models = {"--model": model, "--image": image}
    try:
        if form == "voc" or form == "coco" or form == "label-studio":
            _refuse(of_models, "torch, onnx and safetensors")
            if split is not None and stage is not None:
                fail(f"--split {split}: goes without --stage, which names the label maps; leave one out")
            _refuse({"--shapes": shapes if form == "voc" else None}, "coco and label-studio")
            _refuse({"--url": url if form != "label-studio" else None}, "label-studio")
            attempt, maps = labels_of(run_store, known_attempts(run_store, run), stage, split)
            _export_labels(run_store, attempt, maps, out, form=form, shapes=shapes, url=url, overwrite=overwrite)
        else:
            _refuse(of_labels, f"voc, coco and label-studio; with {form} give --model")
            _export_model(run_store, run, form, model, image, out, overwrite=overwrite)
    except (OSError, ValueError) as error:
        fail(str(error))


def _refuse(given: Mapping[str, object], forms: str) -> None:
    """End the command if one of the options has a value. `forms` are the formats that they go with."""
    option = next((name for name, value in given.items() if value is not None), None)
    if option is not None:
        fail(f"{option}: goes with --format {forms}")


def _export_labels(
    store: RunStore,
    attempt: Attempt,
    maps: LabelMaps,
    out: Path | None,
    *,
    form: LabelForm,
    shapes: Shapes | None,
    url: str | None,
    overwrite: bool,
) -> None:
    from wsss_ray.inference.export_labels import export as write

    folder = out or Path(f"{attempt.run}-{maps.stage}-{form}")
    optional = {"url": url} if url is not None else {}
    done = write(store, maps, folder, form=form, shapes=shapes or "rle", overwrite=overwrite, **optional)
    note = f"; {done.skipped} skipped, which have no label map" if done.skipped else ""
    of = f"{attempt.title}: " if attempt.total > 1 else ""
    typer.echo(f"{of}{maps.stage} ({maps.id}): {done.images} {maps.what} to {done.path}{note}")
    for line in done.notes:
        typer.echo(f"note: {line}")
    if form != "voc":
        each = "connected piece" if shapes == "polygons" else "class"
        typer.echo(f"one shape for each {each} of an image; background and undecided pixels (255) have none")
    if maps.others:
        typer.echo(f"other label maps of this run: {', '.join(maps.others)}; choose by --split or --stage")


def _export_model(
    store: RunStore, run: str, form: ModelForm, model: str | None, image: Path | None, out: Path | None, *, overwrite: bool
) -> None:
    from wsss_ray.inference.trained import find_trained

    if "/" in run:
        raise ValueError(f"{run}: is a folder; give the run that it came from")
    trained = find_trained(run, store.uri, model)
    from wsss_ray.inference.export_model import example_image, export_model
    from wsss_ray.inference.model_card import write_card

    folder = out or Path(f"{trained.run}-{trained.stage}-{form}")
    done = export_model(trained, folder, form=form, image_HWC=example_image(store, trained, image), overwrite=overwrite)
    write_card(store, trained, done, folder)
    of = f"{trained.attempt.title}: " if trained.attempt is not None and trained.attempt.total > 1 else ""
    typer.echo(f"{of}{trained.stage} ({trained.id}): {folder / done.file}, takes {done.takes}; README.md is its model card")
    typer.echo(
        f"compared with the network: largest difference of logits {done.largest_difference:.2g}, the label differs on "
        f"{done.pixels_different} of {done.pixels} pixels"
    )
