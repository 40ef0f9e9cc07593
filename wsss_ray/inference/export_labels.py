"""Export label maps from the store for other tools, in the size of the photographs and under their names.

The forms are those that annotation tools import, so that pseudo-labels can be looked at and corrected there:

    voc             SegmentationClass/<image>.png in the colours of Pascal VOC, lists, labelmap.txt: CVAT, Datumaro, `kind: voc`
    coco            instances.json with run lengths or polygons: FiftyOne, CVAT, pycocotools, `kind: coco`
    label-studio    tasks.json with brush strokes or polygons, and the labelling configuration: Label Studio

Every form has `classes.txt` and `tags.jsonl`, the tags of the images. Ids may not lead out of the folder.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.coco_masks import pycocotools
from wsss_ray.data.label_files import file_of_image, name_in_labelmap, write_classes, write_cvat_labels, write_labelmap, write_voc
from wsss_ray.data.list_lines import as_line
from wsss_ray.inference.export_label_studio import labelling_config, task_of
from wsss_ray.inference.label_maps import Labelled, LabelMaps, read_labels
from wsss_ray.ops.outlines import outlines
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import LabelArray

LabelForm = Literal["voc", "coco", "label-studio"]
Shapes = Literal["rle", "polygons"]
JSON_NAME, TASKS_NAME = "instances.json", "tasks.json"
MASKS, LISTS = "SegmentationClass", "ImageSets/Segmentation"


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        images: The number of images with a label map.
        skipped: The number of images without one.
        path: The file or folder that was written.
        notes: What the files cannot tell, one line each.
    """

    images: int
    skipped: int
    path: Path
    notes: tuple[str, ...] = ()


@dataclass
class _Written:
    """Counts and notes of an export so far, and the file of the tags."""

    maps: LabelMaps
    tags: IO[bytes]
    images: int = 0
    skipped: int = 0
    packed: int = 0
    unnamed: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, image: Labelled) -> bool:
        """Count an image, and note its tags. Return False if it has no label map."""
        if image.label_HW is None:
            self.skipped += 1
            return False
        self.images += 1
        self.packed += not image.known_size
        self.unnamed += image.file is None
        row = {"image": image.file or image.image_id, "tags": [self.maps.classes[tag] for tag in image.tags]}
        self.tags.write(f"{_json(row)}\n".encode())
        return True

    def done(self, path: Path) -> Exported:
        """Return the result."""
        unknown = "the store does not know {}: they were packed by an earlier version"
        if self.packed:
            sizes = unknown.format(f"the size of {self.packed} image files")
            side = f"these labels have the packed size, at most {self.maps.max_side} pixels a side"
            self.notes.append(f"{sizes}. {side}; submit the job to a new store for labels of full size")
        if self.unnamed:
            names = unknown.format(f"the file names of {self.unnamed} images") + ", or the source makes its images"
            self.notes.append(f"{names}. Their ids stand instead, without an ending")
        return Exported(self.images, self.skipped, path, tuple(self.notes))


def export(
    store: RunStore,
    maps: LabelMaps,
    out: Path,
    *,
    form: LabelForm,
    shapes: Shapes = "rle",
    url: str = "/data/local-files/?d=",
    overwrite: bool = False,
) -> Exported:
    """Write label maps below a folder. Background and pixels with the ignore label (255) are no shapes.

    Args:
        store: The store.
        maps: The label maps.
        out: The folder.
        form: The form.
        shapes: For coco and label-studio: `rle` gives one shape for each class of an image, as run lengths or as a brush
            stroke; `polygons` gives one for each connected piece. Both hold every pixel.
        url: For label-studio: what to put before the name of an image.
        overwrite: True writes into a folder that holds files. Other files in it stay.

    Raises:
        ValueError: if the folder holds files and `overwrite` is False, if a label map is damaged, or if an image id leads out
            of the folder.
        OSError: if a file cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already; give another folder by --out, or write into it by --overwrite")
    if form == "coco":
        pycocotools("--format coco")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "tags.jsonl") as tags:
        written = _Written(maps, tags)
        images = (image for image in read_labels(store, maps) if written.count(image))
        path = {
            "voc": lambda: _write_masks(images, maps, out, written),
            "coco": lambda: _write_coco(images, maps, out, shapes),
            "label-studio": lambda: _write_tasks(images, maps, out, shapes, url),
        }[form]()
    write_classes(out, maps.classes)
    if form != "label-studio":
        write_cvat_labels(out, [name_in_labelmap(name) for name in maps.classes] if form == "voc" else maps.classes)
    return written.done(path)


def _write_masks(images: Iterator[Labelled], maps: LabelMaps, out: Path, written: _Written) -> Path:
    lists = out / LISTS
    lists.mkdir(parents=True, exist_ok=True)
    with replacing(lists / f"{maps.part}.txt") as listed:
        for image in images:
            assert image.label_HW is not None
            write_voc(file_of_image(out / MASKS, image.image_id), image.label_HW)
            listed.write(f"{as_line(image.image_id)}\n".encode())
    changed = write_labelmap(out, maps.classes)
    if changed:
        names = ", ".join(map(repr, changed))
        written.notes.append(f"labelmap.txt has no place for ':' and some '#' and spaces: {names} is written with '_' or ' '")
    return out


def _write_coco(images: Iterator[Labelled], maps: LabelMaps, out: Path, shapes: Shapes) -> Path:
    """Write the images into the JSON and the annotations into a second file, and append that at the end."""
    coco = pycocotools("--format coco")
    categories = [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(maps.classes, start=1)]
    about = {"description": f"Stage {maps.stage} ({maps.id}): {maps.what}; background and undecided pixels have no annotation."}
    found = 0
    with replacing(out / JSON_NAME) as file, tempfile.TemporaryFile("w+b", dir=out) as beside:
        file.write(f'{{"info": {_json(about)},\n"licenses": [],\n"categories": {_json(categories)},\n"images": ['.encode())
        for number, image in enumerate(images, start=1):
            assert image.label_HW is not None
            height, width = image.label_HW.shape
            row = {"id": number, "file_name": image.file or image.image_id, "height": height, "width": width}
            file.write(f"{',' if number > 1 else ''}\n{_json(row)}".encode())
            for label, inside_HW in shapes_of(image.label_HW):
                for shape in _coco_shapes(coco, inside_HW, shapes):
                    found += 1
                    ids = {"id": found, "image_id": number, "category_id": label}
                    beside.write(f"{',' if found > 1 else ''}\n{_json(ids | shape | {'iscrowd': 0})}".encode())
        file.write(b'],\n"annotations": [')
        beside.seek(0)
        shutil.copyfileobj(beside, file)
        file.write(b"]}\n")
    return out / JSON_NAME


def _write_tasks(images: Iterator[Labelled], maps: LabelMaps, out: Path, shapes: Shapes, url: str) -> Path:
    with replacing(out / TASKS_NAME) as file:
        for number, image in enumerate(images):
            assert image.label_HW is not None
            masks = ((maps.classes[label - 1], inside_HW) for label, inside_HW in shapes_of(image.label_HW))
            size = (image.label_HW.shape[0], image.label_HW.shape[1])
            file_name, polygons = image.file or image.image_id, shapes == "polygons"
            task = task_of(file_name, masks, size=size, polygons=polygons, url=url, version=maps.id)
            file.write(f"{',' if number else '['}\n{_json(task)}".encode())
        file.write(b"\n]\n" if file.tell() else b"[]\n")
    with replacing(out / "labels.xml") as file:
        file.write(labelling_config(maps.classes, polygons=shapes == "polygons").encode())
    return out / TASKS_NAME


def shapes_of(label_HW: LabelArray) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield every class of a label map with its pixels (H, W)."""
    for label in np.unique(label_HW).tolist():
        if label not in (0, IGNORE):
            yield label, label_HW == label


def _coco_shapes(coco: Any, inside_HW: NDArray[np.bool_], shapes: Shapes) -> Iterator[dict[str, Any]]:
    """Yield segmentation, area and box of the pixels of a class."""
    if shapes == "rle":
        runs = coco.encode(np.asfortranarray(inside_HW, dtype=np.uint8))
        text = {"size": runs["size"], "counts": runs["counts"].decode("ascii")}
        yield {"segmentation": text, "area": int(coco.area(runs)), "bbox": coco.toBbox(runs).tolist()}
        return
    for ring in outlines(inside_HW):
        x_N, y_N = np.array(ring).T
        area = int(x_N @ np.roll(y_N, -1) - y_N @ np.roll(x_N, -1)) // 2
        x, y = float(x_N.min()), float(y_N.min())
        box = [x, y, float(x_N.max()) - x, float(y_N.max()) - y]
        yield {"segmentation": [[float(value) for corner in ring for value in corner]], "area": area, "bbox": box}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
