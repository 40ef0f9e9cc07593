"""Predict label maps for many images: plan the work in parts, do one part, and resume. No Ray.

    OUT/predictions.json                    model, metric, classes, folder of the images; at the end: counts
        classes.txt                         line n, counted from 1, is label n
        masks/<name>.png                    voc: labels as palette PNGs in the colours of Pascal VOC
        overlays/<name>.jpg                 with overlay: the image under the colours of its labels
        shards/part-00000.parquet           parquet: see `schemas.PREDICTIONS`; failed images are rows with a reason
        errors.csv                          image, reason; only if there are any

A mask is done if it was made from this file: it holds the size of the file and the time of its last change. A shard is done if it
exists, because the list of images may not change.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.parquet as pq

from wsss_ray.core.component import digest
from wsss_ray.core.errors import in_one_line
from wsss_ray.data import codecs
from wsss_ray.data.label_files import file_of_image, source_of, write_classes, write_overlay, write_voc
from wsss_ray.data.palette import voc_palette
from wsss_ray.engine.records import versions
from wsss_ray.inference.inputs import Found, InputImages
from wsss_ray.inference.trained import Trained
from wsss_ray.storage import schemas
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray

PredictForm = Literal["voc", "parquet"]
Failure = tuple[str, str]  # path, reason

ABOUT = "predictions.json"
_PART, _SHARD = 16, 128  # images per part with masks, images per Parquet shard


@dataclass(frozen=True)
class Prediction:
    """A prediction task: the model, the folder to write to, the form of the label maps. It is pickled to workers."""

    trained: Trained
    out: Path
    form: PredictForm
    overlay: bool = False
    begun: str = ""  # the time in predictions.json, by which a worker checks that it sees the same folder


@dataclass(frozen=True)
class Part:
    """The images that a worker predicts in one call. A Parquet shard is one part."""

    number: int
    images: tuple[Found, ...]


def begin(work: Prediction, listing: InputImages, *, overwrite: bool = False) -> tuple[Prediction, tuple[Part, ...]]:
    """Describe the task in the folder's predictions.json, and list the parts that are missing.

    Args:
        work: The task.
        listing: The images.
        overwrite: True predicts all images of `listing` again.

    Returns:
        The task with `begun`, and the missing parts.

    Raises:
        ValueError: if the folder holds anything but predictions of this task, and `overwrite` is False.
        OSError: if the folder cannot be written.
    """
    path = work.out / ABOUT
    images = [[found.name, found.stamp] for found in listing.images]
    about = {
        "model": {"run": work.trained.run, "stage": work.trained.stage, "id": work.trained.id},
        "metric": work.trained.metric.identity(),
        "classes": ["background", *work.trained.classes],
        "form": work.form,
        "images": listing.root,
    } | ({"listing": digest(images)} if work.form == "parquet" else {})
    if not overwrite:
        _check_same(work.out, about)
    work.out.mkdir(parents=True, exist_ok=True)
    work = replace(work, begun=datetime.now(timezone.utc).isoformat(timespec="microseconds"))
    if overwrite:
        _clear(work, listing)
    _write_json(path, about | {"started": work.begun})
    write_classes(work.out, work.trained.classes)
    return work, tuple(_missing(work, listing))


def finish(work: Prediction, listing: InputImages, failures: Sequence[Failure], *, made: int, seconds: float) -> list[Failure]:
    """Write errors.csv and the counts.

    Args:
        work: The task.
        listing: All images.
        failures: The failures of this call. Parquet shards hold theirs.
        made: The number of images predicted in this call.
        seconds: The duration of this call.

    Returns:
        Path and reason for every image without a prediction.
    """
    errors = [*listing.refused, *(_failed_rows(work) if work.form == "parquet" else failures)]
    path = work.out / "errors.csv"
    if errors:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *errors])
        with replacing(path) as file:
            file.write(text.getvalue().encode())
    else:
        path.unlink(missing_ok=True)
    about = json.loads((work.out / ABOUT).read_bytes())
    counts = {"images": len(listing.images) + len(listing.refused), "made": made, "failed": len(errors)}
    _write_json(work.out / ABOUT, about | {"counts": counts, "seconds": round(seconds, 3), "versions": versions()})
    return errors


class PredictWorker:
    """A worker that predicts parts in one process, with one thread, so that every machine gives the same bytes as a job."""

    def __init__(self, work: Prediction, device: str | None = None) -> None:
        import torch

        from wsss_ray.inference.predictor import Predictor

        torch.set_num_threads(1)
        self.work, self.predictor = work, Predictor(work.trained, device=device)

    def __call__(self, part: Part) -> list[Failure]:
        """Write the predictions of a part. Return the images that failed.

        Raises:
            ValueError: if this machine sees another folder than the one where the task began.
            OSError: if a file cannot be written.
        """
        self._check_folder()
        rows, failures = [], []
        for found in part.images:
            row = self._predicted(found)
            if row["reason"] is not None:
                failures.append((found.path, row["reason"]))
            rows.append(row)
        if self.work.form == "parquet":
            write_prediction_shard(self.work.out, part.number, rows)
        return failures

    def _predicted(self, found: Found) -> dict[str, Any]:
        """Predict one image and return its row. With masks, write the mask and the overlay."""
        row: dict[str, Any] = {"image_id": found.name, "path": found.path, "reason": None}
        try:
            image_HWC = self.predictor.pixels(found.path)
            label_HW = self.predictor.predict_pixels(image_HWC)
        except Exception as error:  # noqa: BLE001  one image must not stop the others
            plain = isinstance(error, ValueError | OSError)
            reason = " ".join(str(error).split()) if plain else in_one_line(error)
            _remove_masks(self.work, found)  # those of an earlier file of this name
            return row | {"reason": reason.replace("data.max_pixels", "--max-pixels")[:500]}
        if self.work.form == "parquet":
            labels = len(self.predictor.classes)
            height, width = label_HW.shape
            counts = np.bincount(label_HW.ravel(), minlength=labels)[:labels].tolist()
            return row | {"height": height, "width": width, "prediction": codecs.encode_labels(label_HW), "pixels": counts}
        try:
            mask, overlay = output_files(self.work, found)
        except ValueError as error:
            return row | {"reason": str(error)}
        if overlay is not None:
            write_overlay(overlay, blended(image_HWC, label_HW), source=found.stamp)
        write_voc(mask, label_HW, source=found.stamp)
        return row

    def _check_folder(self) -> None:
        """Raise ValueError if `--out` on this machine is not the folder where the command began."""
        try:
            begun = json.loads((self.work.out / ABOUT).read_bytes())["started"]
        except (OSError, KeyError, ValueError):
            begun = None
        if begun != self.work.begun:
            raise ValueError(
                f"--out {self.work.out}: a worker's machine does not see it, or another predict began to write there; "
                "give a folder that all machines share"
            )


def output_files(work: Prediction, found: Found) -> tuple[Path, Path | None]:
    """Return the paths of an image's mask and overlay, and make their folders. Raises ValueError if a link leads out of --out."""
    mask = file_of_image(work.out / "masks", found.name)
    return mask, file_of_image(work.out / "overlays", found.name, suffix=".jpg") if work.overlay else None


def blended(image_HWC: ImageArray, label_HW: LabelArray) -> ImageArray:
    """Blend an image with the colours of its labels, half and half. The background stays as it is."""
    mixed_HWC = ((image_HWC.astype(np.uint16) + voc_palette()[label_HW]) // 2).astype(np.uint8)
    return np.where((label_HW > 0)[..., None], mixed_HWC, image_HWC)


def write_prediction_shard(out: Path, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a Parquet shard atomically."""
    buffer = io.BytesIO()
    pq.write_table(schemas.table("predictions", rows), buffer, compression="zstd")
    RunStore(str(out)).write(str(_shard(out, number)), buffer.getvalue())


def _missing(work: Prediction, listing: InputImages) -> Iterator[Part]:
    """Yield the parts that are not done."""
    if work.form == "parquet":
        for number in range(-(-len(listing.images) // _SHARD)):
            if not _shard(work.out, number).exists():
                yield Part(number, listing.images[number * _SHARD : (number + 1) * _SHARD])
        return
    left = [found for found in listing.images if not _is_there(work, found)]
    for number in range(-(-len(left) // _PART)):
        yield Part(number, tuple(left[number * _PART : (number + 1) * _PART]))


def _is_there(work: Prediction, found: Found) -> bool:
    wanted = [work.out / "masks" / f"{found.name}.png"]
    wanted += [work.out / "overlays" / f"{found.name}.jpg"] if work.overlay else []
    return all(source_of(path) == found.stamp for path in wanted)


def _check_same(out: Path, about: Mapping[str, Any]) -> None:
    try:
        old = json.loads((out / ABOUT).read_bytes())
    except FileNotFoundError:
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"--out {out} holds other files; give another folder, or write into it by --overwrite") from None
        return
    except ValueError:
        old = {}
    differs = next((name for name, value in about.items() if old.get(name) != value), None)
    if differs is not None:
        names = {"model": "another model", "metric": "another metric or CRF", "form": "another --format"}
        names |= {"images": "images below another folder", "listing": "another list of images"}
        mend = "give another folder, or make them anew by --overwrite"
        raise ValueError(f"--out {out} holds predictions of {names.get(differs, f'other {differs}')}; {mend}")


def _clear(work: Prediction, listing: InputImages) -> None:
    """Delete what will be predicted again. Otherwise a call after an interrupted one would take old files for new ones."""
    for shard in (work.out / "shards").glob("part-*.parquet"):
        shard.unlink()
    for found in listing.images:
        _remove_masks(work, found)


def _remove_masks(work: Prediction, found: Found) -> None:
    for folder, suffix in (("masks", ".png"), ("overlays", ".jpg")):
        with suppress(NotADirectoryError, ValueError):  # a link that leads out of the folder
            file_of_image(work.out / folder, found.name, suffix=suffix, make=False).unlink(missing_ok=True)


def _failed_rows(work: Prediction) -> Iterator[Failure]:
    for shard in sorted((work.out / "shards").glob("part-*.parquet")):
        for row in pq.read_table(shard, columns=["path", "reason"]).to_pylist():
            if row["reason"] is not None:
                yield row["path"], row["reason"]


def _shard(out: Path, number: int) -> Path:
    return out / "shards" / f"part-{number:05d}.parquet"


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def part_as_text(part: Part) -> str:
    """Write a part as text, for a row of Ray Data."""
    return json.dumps(asdict(part))


def part_of_text(text: str) -> Part:
    """Read a part that `part_as_text` wrote."""
    value = json.loads(text)
    return Part(value["number"], tuple(Found(**found) for found in value["images"]))


def run_here(worker: PredictWorker, parts: Sequence[Part]) -> Iterator[tuple[Part, list[Failure], float]]:
    """Predict parts one after the other. Yield each with its failures and its seconds."""
    for part in parts:
        began = time.monotonic()
        yield part, worker(part), time.monotonic() - began
