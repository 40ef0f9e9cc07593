"""Write the files of `init`: the job file and, if the data needs them, a table or lists beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss_ray.config.job import JobConfig, load_job
from wsss_ray.data.coco_json import read_instances
from wsss_ray.data.image_files import nfc
from wsss_ray.data.source import Source
from wsss_ray.preflight.survey.folders import OWN_TABLE
from wsss_ray.preflight.survey.jobtext import job_text
from wsss_ray.preflight.survey.listing import FolderListing
from wsss_ray.preflight.survey.naming import name_for
from wsss_ray.preflight.survey.sizes import JobSizes
from wsss_ray.preflight.survey.survey import Survey
from wsss_ray.storage.atomic import replacing


def write_job(found: Survey, out: Path, *, force: bool, sizes: JobSizes | None = None, chosen: Sequence[str] = ()) -> list[Path]:
    """Write the job file, and the table or lists that it names, if any.

    Args:
        found: The inspection of the folder.
        out: The job file.
        force: True replaces files that exist.
        sizes: The numbers in the job file. None takes those that suit images and machine.
        chosen: Lines for the head of the job file that say how they were chosen.

    Returns:
        The paths of all files, the job file last.

    Raises:
        ValueError: if a file exists and `force` is False, or if the job cannot be planned. Then no file has changed.
        OSError: if a file cannot be written.
    """
    own, fields = _own_files(found, out)
    sizes = sizes or found.sizes()
    for path in (*own, out):
        if path.is_dir() or (path.exists() and not force):
            mend = "give a file with --out" if path.is_dir() else "replace it with --force"
            raise ValueError(f"{path}: is there already; {mend}")
    with composed(found, out, sizes) as job:
        job.plan()
    for path, content in (*own.items(), (out, _text(found, out, fields, sizes, chosen))):
        with replacing(path) as file:
            file.write(content.encode())
    return [*own, out]


@contextmanager
def composed(found: Survey, out: Path, sizes: JobSizes) -> Iterator[JobConfig]:
    """Write all files to a temporary folder, and read the job back from it for the duration of the block.

    Args:
        found: The inspection of the folder.
        out: The job file that will be written.
        sizes: The numbers in the job file.

    Raises:
        ValueError: if the job does not read back as intended.

    Example:
        >>> with composed(found, Path("job.yaml"), found.sizes()) as job:
        ...     plan = job.plan()
    """
    own, fields = _own_files(found, out)
    with tempfile.TemporaryDirectory(prefix="wsss-ray-init-") as scratch:
        elsewhere = {str(path): str(Path(scratch, path.name)) for path in own}
        for path, content in own.items():
            Path(elsewhere[str(path)]).write_text(content, encoding="utf-8")
        tried = {key: elsewhere.get(value, value) if isinstance(value, str) else value for key, value in fields.items()}
        job_file = Path(scratch, "try.yaml")
        try:
            job_file.write_text(_text(found, out, tried, sizes), encoding="utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{found.folder!a}: its path is not UTF-8, which a job file has to be; rename the folder") from error
        job = load_job(job_file)
        wanted = Source.model_validate({"kind": found.listing.kind} | _data(tried, sizes))
        if job.data.model_copy(update={"saliency": None}) != wanted:
            raise ValueError(f"{found.folder}: a job file replaces ${{NAME}} by an environment variable; rename the folder")
        yield job


def _data(fields: dict[str, Any], sizes: JobSizes) -> dict[str, Any]:
    return fields | {"max_side": sizes.max_side, "shard_size": sizes.shard}


def _text(found: Survey, out: Path, fields: dict[str, Any], sizes: JobSizes, chosen: Sequence[str] = ()) -> str:
    return job_text(
        name=name_for(found.folder, str(found.listing.fields["root"]), out),
        heading=_heading(found, out, chosen),
        kind=found.listing.kind,
        data=_data(fields, sizes),
        why=_why(found),
        sizes=sizes,
        num_images=found.num_train,
    )


def _own_files(found: Survey, out: Path) -> tuple[dict[Path, str], dict[str, Any]]:
    """Compose the files that the data needs beside the job. Return their texts by path, and the fields of the `data:` block."""
    listing, fields = found.listing, dict(found.listing.fields)
    if not listing.own:
        return {}, fields
    stem = out.absolute().with_suffix("")
    if listing.kind == "folder":
        table = stem.with_name(stem.name + OWN_TABLE)
        rows = [
            {"image": picture.name, "tags": list(picture.tags), "split": "val" if picture.split == "val" else "train"}
            for picture in listing.pictures
        ]
        fields["tags"] = str(table)
        return {table: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}, fields
    own = {}
    ids = {part: [picture.image_id for picture in listing.pictures if picture.split == part] for part in ("weak", "val")}
    for name, listed in (("train", ids["weak"]), ("val", ids["val"]), ("strong", found.strong)):
        if listed:
            path = stem.with_name(f"{stem.name}.{name}.txt")
            fields[name] = str(path)
            own[path] = "".join(f"{_in_list(listing, one)}\n" for one in listed)
    if listing.kind == "coco" and found.held_out:
        fields |= {"val_annotations": fields["train_annotations"], "val_images": fields["train_images"]}
    return own, fields


def _in_list(listing: FolderListing, image_id: str) -> str:
    """Name an image in a list so that the line can mean nothing else: names with a space or # by COCO's number or VOC's path."""
    if "#" not in image_id and image_id.split() == [image_id]:
        return image_id
    if listing.kind == "coco":
        path = Path(str(listing.fields["root"])) / str(listing.fields["train_annotations"])
        return str(read_instances(path, "train_annotations").ids[nfc(image_id)])
    path = next(Path(picture.path) for picture in listing.pictures if picture.image_id == image_id)
    return f"/{path.relative_to(str(listing.fields['root'])).as_posix()}"


def _heading(found: Survey, out: Path, chosen: Sequence[str]) -> list[str]:
    classes = ", ".join(f"{name} {count}" for name, count in list(found.listing.tagged().items())[:12])
    return [
        f"Written by wsss-ray init for {found.folder} ({found.listing.what}),",
        f"{found.num_train} training images; of all images, {classes}{', ...' if len(found.listing.classes) > 12 else ''};",
        f"for a machine with {found.machine.words()}.",
        *chosen,
        f"  wsss-ray check {out.name}     run two batches of each stage to catch errors and estimate time and memory",
        f"  wsss-ray submit {out.name}    run the job; submit again to resume",
    ]


def _why(found: Survey) -> dict[str, str]:
    """Comment the fields of the `data:` block."""
    listing = found.listing
    own = f"made by init, because {'; '.join(listing.own)}" if listing.own else ""
    tags = own or ("the first subfolder is the tag" if listing.fields.get("tags") is None else "columns image, tags and split")
    return {
        "tags": tags,
        "train": own if listing.own else "the images with tags",
        "val": "the validation set",
        "masks": f"not used: {found.no_masks}" if found.no_masks else "PNG files named like the images, for scoring",
        "val_annotations": "the validation set; null: none",
        "train_masks": f"not used: {found.no_masks}" if found.no_masks else "",
        "strong": f"trained on the masks of {len(found.strong)} images too; null: on tags alone",
        "masks_on": "EXIF turns images whose masks have the size of the stored pixels",
        "classes": "in the order of the labels 1, 2, ...",
        "max_side": "larger images are shrunk to it when they are packed",
        "shard_size": "images per shard, the unit of work for parallel workers",
    }
