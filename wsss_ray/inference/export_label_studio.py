"""Write label maps as tasks of Label Studio: pre-annotations that people correct there.

The format is https://labelstud.io/guide/predictions: one task for each image, whose prediction has a result for each shape. Brush
strokes are run lengths (`data/brush_rle.py`), polygons have corners in per cent of the sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from wsss_ray.data.brush_rle import encode_brush
from wsss_ray.data.palette import voc_palette
from wsss_ray.ops.outlines import outlines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Masks = Iterable[tuple[str, NDArray[np.bool_]]]

IMAGE, LABEL = "image", "label"
"""The names of the image and of the labels in the labelling configuration, which the tasks refer to."""


def task_of(file: str, masks: Masks, *, size: tuple[int, int], polygons: bool, url: str, version: str) -> dict[str, Any]:
    """Make the task of one image.

    Args:
        file: The path of the image below the folder of the images.
        masks: The name of each class in the image, with its pixels (H, W).
        size: Height and width of the image, which tell the size of a mask without a shape.
        polygons: True gives polygons, False brush strokes.
        url: What to put before the path, such as "/data/local-files/?d=photos/".
        version: The name of the predictions.
    """
    results = [
        _result(name, inside_HW.shape, f"{file}/{place}/{part}", value)
        for place, (name, inside_HW) in enumerate(masks)
        for part, value in enumerate(_polygons(inside_HW) if polygons else _strokes(inside_HW))
    ]
    data = {IMAGE: url + quote(file), "height": size[0], "width": size[1]}
    return {"data": data, "predictions": [{"model_version": version, "result": results}]}


def labelling_config(classes: Iterable[str], *, polygons: bool) -> str:
    """Return the labelling configuration, which a project needs before it imports the tasks, as XML."""
    tag = "PolygonLabels" if polygons else "BrushLabels"
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in voc_palette()[1:]]
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>\n"
        for name, colour in zip(classes, colours, strict=False)
    ]
    image = f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
    return f'<View>\n{image}  <{tag} name="{LABEL}" toName="{IMAGE}">\n{"".join(labels)}  </{tag}>\n</View>\n'


def _result(name: str, size: tuple[int, ...], what: str, value: dict[str, Any]) -> dict[str, Any]:
    kind = "polygonlabels" if "points" in value else "brushlabels"
    return {
        "id": hashlib.sha256(what.encode()).hexdigest()[:10],
        "type": kind,
        "from_name": LABEL,
        "to_name": IMAGE,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": value | {kind: [name]},
    }


def _strokes(inside_HW: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    yield {"format": "rle", "rle": encode_brush(inside_HW)}


def _polygons(inside_HW: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    height, width = inside_HW.shape
    for ring in outlines(inside_HW):
        yield {"points": [[100 * x / width, 100 * y / height] for x, y in ring], "closed": True}
