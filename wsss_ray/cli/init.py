"""Write a job file for a folder of images: the command init."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_ray.cli.console import display_errors, fail

if TYPE_CHECKING:
    from wsss_ray.core.plan import Stage
    from wsss_ray.preflight.survey.budget import Chosen
    from wsss_ray.preflight.survey.sizes import JobSizes
    from wsss_ray.preflight.survey.survey import Survey

FolderPath = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of images.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Job file to write.")]
Tags = Annotated[
    Path | None,
    typer.Option("--tags", metavar="FILE", help="Table of tags. Default: the one found in or beside FOLDER, if any."),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", metavar="FOLDER", help="Folder of masks. Default: the one found in or beside FOLDER, if any."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the job file, and the table or lists beside it.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Choose settings whose predicted time on this machine is at most TIME: 90s, 10m, 1h30m. Tries two batches first.",
    ),
]
ClipFile = Annotated[
    Path | None,
    typer.Option(
        "--clip", metavar="FILE", help="OpenAI's weights of CLIP ViT-B/16: CLIP makes the maps, no classifier is trained."
    ),
]
SamFile = Annotated[
    Path | None,
    typer.Option("--sam", metavar="FILE", help="Weights of SAM, a file of its authors: SAM's masks vote on the seeds."),
]
Preset = Annotated[
    Literal["quick", "best"] | None,
    typer.Option(
        "--preset", help="quick: the smallest settings that make sense. best: those that score best, whatever the time."
    ),
]


def init(
    folder: FolderPath,
    out: Out = Path("job.yaml"),
    tags: Tags = None,
    masks: Masks = None,
    force: Force = False,
    budget: Budget = None,
    preset: Preset = None,
    clip: ClipFile = None,
    sam: SamFile = None,
) -> None:
    """Inspect a folder of images and write a job file for it.

    Prints what is in the folder and what looks wrong. The job suits the images, this machine and, if given, a budget of time.
    """
    from wsss_ray.config.document import JobError
    from wsss_ray.preflight.survey.budget import by_preset, duration
    from wsss_ray.preflight.survey.findings import findings
    from wsss_ray.preflight.survey.jobtext import run_name
    from wsss_ray.preflight.survey.naming import name_for
    from wsss_ray.preflight.survey.networks import Networks, checked, offers
    from wsss_ray.preflight.survey.sizes import Machine
    from wsss_ray.preflight.survey.survey import survey
    from wsss_ray.preflight.survey.write import write_job

    if budget is not None and preset is not None:
        fail("--preset: goes without --budget, which chooses the settings itself. Give one of the two.")
    if not folder.is_dir():
        fail(f"{folder}: {'is a file' if folder.exists() else 'there is no such folder'}; give the folder of the images")
    if out.exists() and not force:
        fail(f"{out}: is there already; replace it by --force, or write another file by --out")
    if not out.absolute().parent.is_dir():
        fail(f"--out {out}: there is no folder {out.absolute().parent}; create it")
    try:
        if budget is not None:
            duration(budget)
        networks = checked(Networks(clip=clip, sam=sam))
        with show_progress() as watch:
            found = survey(folder, tags=tags, masks=masks, machine=Machine.here(), watch=watch)
        for heading, text in findings(found):
            typer.echo(f"{heading:<9} {text}")
        typer.echo(f"{'machine':<9} {found.machine.words()}")
        name, usual = name_for(folder, str(found.listing.fields["root"]), out), run_name(folder.absolute().name)
        if name != usual:
            typer.echo(f"{'name':<9} {name}: other data has a run or a job file named {usual}")
        found.networks = networks
        for text in offers(networks):
            typer.echo(f"{'offer':<9} init again with {text}")
        chosen = None if preset is None else by_preset(found, preset)
        if budget is not None:
            chosen = _try_for(found, out, budget)
        said = [] if chosen is None else [chosen.why, *(f"worse for it: {text}" for text in chosen.worse)]
        for line in said:
            typer.echo(f"{'settings':<9} {line}")
        paths = write_job(found, out, force=force, sizes=None if chosen is None else chosen.sizes, chosen=said)
    except JobError as error:
        fail(f"{folder}: {error}")
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", code=130)
    for path in paths[:-1]:
        typer.echo(f"{'wrote':<9} {path}, which the job names: {'; '.join(found.listing.own)}")
    typer.echo(f"{'wrote':<9} {out}")
    typer.echo(f"next      wsss-ray check {shlex.quote(str(out))}")


def _try_for(found: Survey, out: Path, budget: str) -> Chosen:
    """Choose settings for a budget, and show on the error stream what is tried."""
    from wsss_ray.cli.signals import unwound_by_sigterm
    from wsss_ray.preflight.survey.budget import by_budget
    from wsss_ray.preflight.survey.ladder import words

    display = display_errors()

    def begin(sizes: JobSizes, stages: int) -> Callable[[Stage], None]:
        display.say(f"trying two batches of each stage: {words(sizes)}")
        meter, before = display.meter("trying", stages, "stages"), count()
        return lambda stage: meter.to(next(before), stage.name)

    with unwound_by_sigterm(), display.meters():
        return by_budget(found, out, budget, begin=begin)


@contextmanager
def show_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show progress on the error stream, so that the output can be piped.

    The block gets a function of a label and the number of files. It returns the function to call with each number of files done.

    Example:
        >>> with show_progress() as watch:
        ...     done = watch("masks", 2)
        ...     done(1)
    """
    display = display_errors()
    with display.meters():
        yield lambda what, total: display.meter(what, total, "files").add
