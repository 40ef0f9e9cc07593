"""Export label maps and trained models from the store: the command export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_ray.cli.complete import label_stages, run_names
from wsss_ray.cli.console import Model, OpenStore, check_out, fail, open_store

if TYPE_CHECKING:
    from wsss_ray.inference.export_labels import LabelForm
    from wsss_ray.inference.export_model import ModelForm
    from wsss_ray.storage.store import RunStore

ExportForm = Literal["voc", "coco", "torch", "onnx", "safetensors"]


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name of a run. For a model, also the id of a train stage.", autocompletion=run_names),
    ],
    form: Annotated[
        ExportForm,
        typer.Option(
            "--format",
            help="Label maps: voc (PNGs in VOC's colours) or coco (one JSON of RLE masks). "
            "A model: torch (torch.export), onnx or safetensors.",
        ),
    ],
    stage: Annotated[
        str | None,
        typer.Option(help="Stage whose label maps to export. Default: the last one that is done.", autocompletion=label_stages),
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

    Label maps are seeds or predictions. A model comes with a model card and is compared with the network on an image.
    """
    run_store = open_store(store, must_exist=True)
    if out is not None:
        check_out(out)
    try:
        if form == "voc" or form == "coco":
            if model is not None or image is not None:
                fail(f"--{'model' if model is not None else 'image'}: goes with --format torch, onnx and safetensors")
            _export_labels(run_store, run, form, stage, out, overwrite=overwrite)
        else:
            if stage is not None:
                fail(f"--stage: goes with --format voc and coco; with {form} give --model")
            _export_model(run_store, run, form, model, image, out, overwrite=overwrite)
    except (OSError, ValueError) as error:
        fail(str(error))


def _export_labels(store: RunStore, run: str, form: LabelForm, stage: str | None, out: Path | None, *, overwrite: bool) -> None:
    from wsss_ray.inference.attempts import known_attempts, labels_of
    from wsss_ray.inference.export_labels import export as write

    attempt, maps = labels_of(store, known_attempts(store, run), stage)
    done = write(store, maps, out or Path(f"{run}-{maps.stage}-{form}"), form=form, overwrite=overwrite)
    note = f"; {done.skipped} skipped, which have no label map" if done.skipped else ""
    of = f"{attempt.title}: " if attempt.total > 1 else ""
    typer.echo(f"{of}{maps.stage} ({maps.id}): {done.images} images to {done.path}{note}")
    if form == "coco":
        typer.echo("one annotation per class and image; background and undecided pixels (255) have none")


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
