"""Read label maps that people corrected in an annotation tool, as the tool exports them.

    *.json with "annotations" and "images"    COCO: CVAT, FiftyOne, Label Studio. Shapes marked as crowds count as others do,
                                              because CVAT marks every brushed mask so.
    *.json with a list of tasks               Label Studio: brush strokes and polygons of its own export
    a folder with labelmap.txt                masks in colours below SegmentationClass, as CVAT's "Segmentation mask" has them

Where shapes overlap, the later one counts. The files are not trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from wsss_ray.core.values import IGNORE
from wsss_ray.data.brush_rle import decode_brush
from wsss_ray.data.coco_json import read_instances
from wsss_ray.data.coco_masks import draw_labels
from wsss_ray.data.label_files import name_in_labelmap
from wsss_ray.data.source import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wsss_ray.core.values import LabelArray

_MASKS, _LABELMAP = "SegmentationClass", "labelmap.txt"
_LINE = re.compile(r"(.+):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::[^:]*){0,2}")
_OURS = {"background": 0, "ignored": IGNORE}


@dataclass(frozen=True)
class Correction:
    """The label map of one image.

    Attributes:
        name: The image as the tool names it: a path, with or without an ending.
        labels: Makes its labels (H, W) as uint8, 255 where undecided. Raises ValueError if they cannot be read.
    """

    name: str
    labels: Callable[[], LabelArray]


def read_corrections(path: Path, classes: tuple[str, ...]) -> Iterator[Correction]:
    """Read what a tool exported.

    Args:
        path: A JSON file, or a folder with labelmap.txt.
        classes: The names of the labels 1, 2, ... that the label maps get.

    Raises:
        ValueError: if the form is not known, or if a class is not one of `classes`.
        OSError: if a file cannot be read.

    Example:
        >>> {one.name: one.labels().shape for one in read_corrections(Path("corrected.json"), ("cat", "dog"))}
        {'holiday/001.jpg': (425, 640)}
    """
    labels = {name: label for label, name in enumerate(classes, start=1)}
    if path.is_dir():
        return _from_masks(path, {name_in_labelmap(name): label for name, label in labels.items()} | labels)
    if path.suffix.lower() != ".json":
        raise ValueError(f"{path}: is neither a .json file nor a folder; unpack a .zip, and give the folder with {_LABELMAP}")
    with path.open("rb") as file:
        first = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return _from_tasks(path, labels) if first == b"[" else _from_coco(path, labels)


def _from_coco(path: Path, labels: Mapping[str, int]) -> Iterator[Correction]:
    try:
        file = read_instances(path, "labels")
    except ValueError as error:
        raise ValueError(str(error).removeprefix("data.labels: ")) from error  # it is no field of a job
    used = {category: _label(name, labels, path) for category, name in file.categories.items()}
    for picture in file.images.values():
        yield Correction(picture.file_name, partial(_drawn, file, picture, used))


def _drawn(file: Any, picture: Any, labels: Mapping[int, int]) -> LabelArray:
    height, width = picture.height, picture.width
    if height is None or width is None or height * width > MAX_PIXELS:
        raise ValueError(f"{file.path}: image {picture.file_name!r}: its size is {width}x{height}; expected width and height")
    shapes = [{**one, "iscrowd": 0} for one in file.annotations(picture)]
    return draw_labels(shapes, height=height, width=width, labels=labels, crowd="background")


def _from_masks(folder: Path, labels: Mapping[str, int]) -> Iterator[Correction]:
    path = next((found for found in (folder / _LABELMAP, folder.parent / _LABELMAP) if found.is_file()), None)
    if path is None:
        raise ValueError(f"{folder}: holds no {_LABELMAP}, which says what colours mean; export 'Segmentation mask' in CVAT")
    colours = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"{path}:{number}: {line!r} is not understood; expected name:red,green,blue::")
        red, green, blue = map(int, found.group(2, 3, 4))
        colours[red << 16 | green << 8 | blue] = _label(found[1].strip(), labels, path)
    masks = folder / _MASKS if (folder / _MASKS).is_dir() else folder
    for file in sorted(masks.rglob("*.png")):
        yield Correction(file.relative_to(masks).as_posix().removesuffix(".png"), partial(_uncoloured, file, colours))


def _uncoloured(file: Path, colours: Mapping[int, int]) -> LabelArray:
    try:
        with PngImageFile(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            rgb_HWC = np.asarray(image.convert("RGB")).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error
    code_HW = rgb_HWC @ np.array([1 << 16, 1 << 8, 1])
    label_HW = np.zeros(code_HW.shape, np.uint8)
    for code in np.unique(code_HW).tolist():
        if code not in colours:
            colour = (code >> 16, code >> 8 & 255, code & 255)
            raise ValueError(f"{file}: holds the colour {colour}, which {_LABELMAP} does not name; export both again")
        label_HW[code_HW == code] = colours[code]
    return label_HW


def _from_tasks(path: Path, labels: Mapping[str, int]) -> Iterator[Correction]:
    """Read Label Studio's own export: the last annotation of each task that has one. Predictions do not count."""
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    for place, task in enumerate(tasks):
        where = f"{path}: task [{place}]"
        try:
            done = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
            url = next(value for value in task["data"].values() if isinstance(value, str))
            results = [one for one in done[-1]["result"] if "value" in one] if done else []
        except (AttributeError, KeyError, StopIteration, TypeError) as error:
            mend = "export the project as JSON (not JSON-MIN)"
            raise ValueError(f"{where}: is no task with an image and annotations; {mend}") from error
        if done:
            yield Correction(_file_of(url), partial(_painted, results, task["data"], labels, where))


def _painted(results: Iterable[Mapping[str, Any]], data: Mapping[str, Any], labels: Mapping[str, int], where: str) -> LabelArray:
    """Draw the shapes of a task. `data` tells the size of an image without shapes, which is background."""
    label_HW: LabelArray | None = None
    for result in results:
        kind, value = result.get("type"), result["value"]
        if kind not in ("brushlabels", "polygonlabels"):
            continue
        try:
            height, width = int(result["original_height"]), int(result["original_width"])
            if not 0 < height * width <= MAX_PIXELS or (label_HW is not None and label_HW.shape != (height, width)):
                raise ValueError(f"its size is {width}x{height}")
            label_HW = np.zeros((height, width), np.uint8) if label_HW is None else label_HW
            inside_HW = decode_brush(value["rle"], height, width) if kind == "brushlabels" else _polygon(value, height, width)
            (name,) = value[kind]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: a shape of type {kind} cannot be read: {error}") from error
        label_HW[inside_HW] = _label(name, labels, where)
    if label_HW is None:
        sides = [side for side in (data.get("height"), data.get("width")) if isinstance(side, int) and side > 0]
        if len(sides) == 2 and sides[0] * sides[1] <= MAX_PIXELS:
            return np.zeros(sides, np.uint8)
        raise ValueError(f"{where}: has no shape, so that its size is not known; draw one, or leave the task out")
    return label_HW


def _polygon(value: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """Draw a polygon whose corners are in per cent of the sides."""
    scale = (width / 100, height / 100)
    corners = [round(float(part) * one, 6) for point in value["points"] for part, one in zip(point, scale, strict=True)]
    shape = {"id": 1, "category_id": 1, "segmentation": [corners]}
    return draw_labels([shape], height=height, width=width, labels={1: 1}, crowd="background") > 0


def _file_of(url: str) -> str:
    """Return the path of an image in a URL, such as /data/local-files/?d=PATH, s3://bucket/PATH or /data/upload/1/NAME."""
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _label(name: str, labels: Mapping[str, int], where: Any) -> int:
    found = labels.get(name, _OURS.get(name))
    if found is None:
        raise ValueError(f"{where}: unknown class {name!r}; allowed: {', '.join(labels)}, {', '.join(_OURS)}")
    return found
