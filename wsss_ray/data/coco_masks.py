"""Draw label masks from COCO's shapes. pycocotools draws the polygons, so that every pixel is as in the papers' masks.

Run lengths are decoded here: pycocotools 2.0.11 returns uninitialised memory, or crashes, if they do not fit the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from wsss_ray.core.errors import shown
from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsss_ray.data.coco_json import Annotation

Crowd = Literal["background", "ignore"]


def pycocotools(wanted_by: str = "data: drawing masks") -> Any:
    """Import `pycocotools.mask`. Raises ValueError that says what needs it (`wanted_by`) and how to install it."""
    try:
        return import_module("pycocotools.mask")
    except ImportError as err:
        raise ValueError(f"{wanted_by} needs pycocotools; run `pip install 'wsss-ray[coco]'`") from err


def draw_labels(
    annotations: Sequence[Annotation],
    *,
    height: int,
    width: int,
    labels: Mapping[int, int],
    crowd: Crowd,
    others: Crowd = "background",
) -> NDArray[np.uint8]:
    """Draw the annotations of an image as labels (H, W), with background 0.

    A later object covers an earlier one, as in ReCAM's `mscoco/annToMask.py`.

    Args:
        annotations: The annotations in the order of the file.
        height: Height of the image.
        width: Width of the image.
        labels: Category id -> label. Other categories are not used.
        crowd: "background" leaves crowds out; "ignore" labels them 255 where no object is.
        others: The same for objects of categories that are not used.

    Raises:
        ValueError: if a shape that is drawn is invalid or does not fit the image. The message names the annotation.
    """
    import numpy as np

    label_HW = np.zeros((height, width), dtype=np.uint8)
    objects = []
    for annotation in annotations:
        label = labels.get(annotation["category_id"])
        if not annotation.get("iscrowd") and label is not None:
            objects.append((annotation, label))
        elif (crowd if annotation.get("iscrowd") else others) == "ignore":
            label_HW[_inside(annotation, height, width)] = IGNORE
    for annotation, label in objects:
        label_HW[_inside(annotation, height, width)] = label
    return label_HW


def _inside(annotation: Annotation, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of one annotation, (H, W)."""
    import numpy as np

    shape = annotation.get("segmentation")
    try:
        runs = _polygon_runs(shape, height, width) if isinstance(shape, list) else _runs(shape, height, width)
    except ValueError as err:
        raise ValueError(f"annotation {annotation['id']}: {err}") from err
    inside_P = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    inside_HW: NDArray[np.bool_] = inside_P.reshape(width, height).T  # runs go down the columns
    return inside_HW


def _polygon_runs(polygons: Sequence[Any], height: int, width: int) -> list[int]:
    """Draw the union of polygons [x, y, x, y, ...]. They are checked first: pycocotools reads short lists as other formats.

    A list of numbers is one polygon, as some programs write it.
    """
    if not polygons:
        raise ValueError("it has no polygon; give one, or remove the annotation")
    if all(_is_number(value) for value in polygons):
        polygons = [polygons]
    side = max(height, width)
    for place, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise ValueError(f"polygon {place} is not a list of numbers; expected [x, y, x, y, ...]")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"polygon {place} has {len(polygon)} numbers; expected x and y of three points or more")
        if not all(-side <= value <= 2 * side for value in polygon):  # pycocotools would allocate memory for every pixel between
            raise ValueError(f"polygon {place} goes far beyond the image, which is {width}x{height}; expected x and y in pixels")
    mask = pycocotools()
    return _runs(mask.merge(mask.frPyObjects(polygons, height, width)), height, width)


def _runs(shape: Any, height: int, width: int) -> list[int]:
    """Return the lengths of the runs, alternately outside and inside, from run lengths as a list or as COCO's text."""
    counts = shape.get("counts") if isinstance(shape, dict) else None
    if not isinstance(counts, list | str | bytes):
        raise ValueError("its segmentation is neither polygons nor run lengths (size and counts)")
    if shape.get("size") != [height, width]:
        size = shown(repr(shape.get("size")))
        raise ValueError(f"its run lengths are for the size {size}, expected [{height}, {width}] (height, width)")
    runs = counts if isinstance(counts, list) else _decoded(counts.encode() if isinstance(counts, str) else counts)
    if not all(_is_number(run) and isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"its run lengths are not whole numbers that add up to {height} * {width} pixels")
    return runs


def _decoded(text: bytes) -> list[int]:
    """Decode COCO's text of run lengths: five bits per character, lowest first. The fourth run and later ones are stored as the
    difference from the run two before.

    See rleToString in https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run lengths are not in COCO's text format; encode them by pycocotools")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more to come
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths end in the middle of a number; encode them by pycocotools")
    return runs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
