"""Export label maps from the store for other tools: as PNGs in the colours of Pascal VOC, or as one JSON file in COCO's format.

Every stage with label maps can be exported: seeds, labels that a segmenter made, predictions of an evaluate stage. Shards are
read one after the other, so memory does not grow with the number of images. The content of the store is not trusted: ids may not
lead out of the folder, and a label map larger than the data allows is not decoded.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.coco_masks import pycocotools
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.label_files import file_of_image, write_classes, write_voc
from wsss_ray.data.source import MAX_PIXELS
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.shards import list_shards, open_shard
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

LabelForm = Literal["voc", "coco"]
JSON_NAME = "instances.json"


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of one stage.

    Attributes:
        stage: The name of the stage.
        id: The id of the stage.
        schema: The schema of its shards.
        column: The column that holds the label maps.
        classes: The names of the labels 1, 2, ...
        max_pixels: The largest size of a label map that is decoded.
        data: The id of the stage that holds the images.
    """

    stage: str
    id: str
    schema: str
    column: str
    classes: tuple[str, ...]
    max_pixels: int
    data: str


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        images: The number of images with a label map.
        skipped: The number of images without one.
        path: The file or folder that was written.
    """

    images: int
    skipped: int
    path: Path


def find_labels(
    store: RunStore, run: Mapping[str, Any], stage: str | None = None, kinds: Sequence[str] = ("seed", "evaluate")
) -> LabelMaps:
    """Find the label maps of a run.

    Args:
        store: The store.
        run: The content of the run's run.json.
        stage: The name of a stage. None takes the last one that has label maps.
        kinds: The kinds of stages to look among.

    Raises:
        ValueError: if the run has no such stage, or the stage is not done or has no label maps. The message names those that
            have.
    """
    records = {one["name"]: store.record_by_id(one["id"]) for one in run["stages"] if one["kind"] in kinds}
    found = {name: record for name, record in records.items() if record and _has_labels(record)}
    name = stage or next(reversed(found), None)
    if name is None:
        raise ValueError(f"run {run['name']!r} has no label maps yet: no seed stage and no scored model is done; wait for one")
    if name not in found:
        known = name in [one["name"] for one in run["stages"]]
        undone = records.get(name, {}) is None
        why = "the run has no such stage" if not known else "it is not done" if undone else "it has no label maps"
        raise ValueError(f"stage {name!r}: {why}; stages with label maps: {', '.join(found) or 'none yet'}")
    record = found[name]
    data_id = dict(record["inputs"])["data"]
    data = store.record_by_id(data_id)
    if data is None:
        raise ValueError(f"stage {name!r}: the store has no record of the data that it was made from; submit the job again")
    split = data["identity"]["component"]
    schema, column = ("seeds", "seed") if record["kind"] == "seed" else ("scores", "prediction")
    limit = split["source"].get("max_pixels", MAX_PIXELS)
    return LabelMaps(name, record["id"], schema, column, tuple(split["classes"]), limit, data_id)


def read_labels(store: RunStore, maps: LabelMaps) -> Iterator[tuple[str, LabelArray | None]]:
    """Yield every image id with its label map (H, W), or with None if it has none, in the order of the data.

    Raises:
        ValueError: if a label map cannot be read, or holds other labels than those of the classes.
    """
    for shard in list_shards(store, maps):
        file = open_shard(store, maps, shard, maps.schema)
        try:
            for batch in file.iter_batches(batch_size=8, columns=["image_id", maps.column]):
                for row in batch.to_pylist():
                    data = row[maps.column]
                    yield row["image_id"], None if data is None else decode_label(data, maps, row["image_id"])
        finally:
            file.close()


def export(store: RunStore, maps: LabelMaps, out: Path, *, form: LabelForm, overwrite: bool = False) -> Exported:
    """Write label maps below a folder.

    The form "voc" writes `<image id>.png`, `classes.txt` (line n, counted from 1, is label n; `kind: voc` reads it) and
    `list.txt` with the ids. The form "coco" writes `instances.json` with one annotation for every class in every image.
    Background and pixels with the ignore label (255) have none.

    Args:
        store: The store.
        maps: The label maps.
        out: The folder.
        form: The form.
        overwrite: True writes into a folder that holds files. Other files in it stay.

    Raises:
        ValueError: if the folder holds files and `overwrite` is False, if a label map is damaged, or if an image id leads out
            of the folder.
        OSError: if a file cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already; give another folder by --out, or write into it by --overwrite")
    write: Callable[[RunStore, LabelMaps, Path], Exported] = {"voc": _export_voc, "coco": _export_coco}[form]
    if form == "coco":
        pycocotools("--format coco")
    out.mkdir(parents=True, exist_ok=True)
    return write(store, maps, out)


def _export_voc(store: RunStore, maps: LabelMaps, out: Path) -> Exported:
    images, skipped = 0, 0
    with tempfile.TemporaryFile("w+b", dir=out) as ids:
        for image_id, label_HW in read_labels(store, maps):
            if label_HW is None:
                skipped += 1
                continue
            write_voc(file_of_image(out, image_id), label_HW)
            ids.write(f"{image_id}\n".encode())
            images += 1
        ids.seek(0)
        with replacing(out / "list.txt") as file:
            shutil.copyfileobj(ids, file)
    write_classes(out, maps.classes)
    return Exported(images, skipped, out)


def _export_coco(store: RunStore, maps: LabelMaps, out: Path) -> Exported:
    """Write the images into the JSON and the annotations into a second file, and append that at the end."""
    coco, images, skipped, found = pycocotools("--format coco"), 0, 0, 0
    categories = [{"id": label, "name": name} for label, name in enumerate(maps.classes, start=1)]
    about = {"description": f"Label maps of stage {maps.stage} ({maps.id}); background and undecided pixels have no annotation."}
    with replacing(out / JSON_NAME) as file, tempfile.TemporaryFile("w+b", dir=out) as beside:
        file.write(f'{{"info": {_json(about)},\n"categories": {_json(categories)},\n"images": ['.encode())
        for image_id, label_HW in read_labels(store, maps):
            if label_HW is None:
                skipped += 1
                continue
            images += 1
            height, width = label_HW.shape
            image = {"id": images, "file_name": image_id, "height": height, "width": width}
            file.write(f"{',' if images > 1 else ''}\n{_json(image)}".encode())
            for label in np.unique(label_HW).tolist():
                if label in (0, IGNORE):
                    continue
                found += 1
                annotation = {"id": found, "image_id": images, **_annotation(coco, label_HW == label, label)}
                beside.write(f"{',' if found > 1 else ''}\n{_json(annotation)}".encode())
        file.write(b'],\n"annotations": [')
        beside.seek(0)
        shutil.copyfileobj(beside, file)
        file.write(b"]}\n")
    return Exported(images, skipped, out / JSON_NAME)


def _annotation(coco: Any, inside_HW: np.ndarray[Any, np.dtype[np.bool_]], label: int) -> dict[str, Any]:
    runs = coco.encode(np.asfortranarray(inside_HW, dtype=np.uint8))
    return {
        "category_id": label,
        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode("ascii")},
        "area": int(coco.area(runs)),
        "bbox": coco.toBbox(runs).tolist(),
        "iscrowd": 0,
    }


def decode_label(data: bytes, maps: LabelMaps, image_id: str) -> LabelArray:
    """Decode one label map (H, W).

    Args:
        data: Its PNG.
        maps: The label maps that it belongs to.
        image_id: The id of its image, for messages.

    Raises:
        ValueError: if it cannot be read, or holds other labels than those of the classes.
    """
    try:
        label_HW = decode_gray(data, max_pixels=maps.max_pixels)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"stage {maps.stage!r}: image {image_id!r}: its label map cannot be read: {error}") from error
    wrong = label_HW[(label_HW > len(maps.classes)) & (label_HW != IGNORE)]
    if label_HW.ndim != 2 or wrong.size:
        wanted = f"labels 0 to {len(maps.classes)} and {IGNORE}"
        raise ValueError(f"stage {maps.stage!r}: image {image_id!r}: not a map of {wanted}; was the store edited by hand?")
    return label_HW


def _has_labels(record: Mapping[str, Any]) -> bool:
    """Return True if a stage has label maps. An evaluate stage that scores seeds has none of its own."""
    return record["kind"] == "seed" or "model" in dict(record["inputs"])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
