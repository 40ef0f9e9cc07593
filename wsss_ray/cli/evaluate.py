"""Score a trained model on new images with masks: the command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_ray.cli.console import Model, OpenStore, fail, figure, open_store, table
from wsss_ray.cli.predict import Crf, Images, ModelOf
from wsss_ray.core.counted import counted


def evaluate(
    run: ModelOf,
    images: Images,
    masks: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the masks, <image>.png: 0 background, 1 the first class, 255 not scored."),
    ],
    model: Model = None,
    crf: Crf = None,
    store: OpenStore = "runs",
) -> None:
    """Score a trained model on images with masks that the run has not seen.

    Exits with 1 if some images could not be scored, and with 2 if none could.
    """
    from wsss_ray.inference.scoring import score_images
    from wsss_ray.inference.trained import find_trained
    from wsss_ray.reporting.progress import Display

    if "/" not in run:
        open_store(store, must_exist=True)
    display = Display()
    try:
        trained = find_trained(run, store, model).with_crf(crf)
        with display.meters():
            meter = display.meter("evaluate", 0, "images")

            def step(done: int, total: int) -> None:
                meter.total = total
                meter.to(done)

            found = score_images(trained, images, masks, step=step)
    except (OSError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", code=130)
    score = found.score
    typer.echo(found.model)
    names = ("miou", "precision", "recall", "coverage", "accuracy")
    table(["images", "mIoU", *names[1:]], [[str(score.images), *(figure(getattr(score, name)) for name in names)]])
    table(["class", "IoU"], [[name, figure(value)] for name, value in score.iou.items()])
    if found.failed:
        (path, reason), total = found.failed[0], score.images + len(found.failed)
        fail(f"{len(found.failed)} of {counted(total, 'image')} could not be scored; {path}: {reason}", code=1)
