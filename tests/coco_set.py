"""A small set in COCO's form whose masks are known by hand."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import normalise_mask

H, W = 6, 8
CATEGORIES = [(90, "toothbrush"), (1, "person"), (3, "car")]  # not in order, and with holes
TRAIN, VAL = ("COCO_train2014_{:012d}".format, "COCO_val2014_{:012d}".format)


def box(x0, y0, x1, y1):
    """The polygon round the pixels x0..x1-1, y0..y1-1."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs(*boxes):
    """Uncompressed run lengths of boxes, down the columns, counted one pixel after the other."""
    inside = np.zeros((H, W), bool)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    counts, state = [0], False
    for pixel in inside.T.ravel().tolist():
        if pixel != state:
            counts.append(0)
            state = pixel
        counts[-1] += 1
    return {"size": [H, W], "counts": counts}


def text(*boxes):
    """The same as COCO's text, by pycocotools."""
    inside = np.zeros((H, W), np.uint8, order="F")
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = 1
    return {"size": [H, W], "counts": coco_mask.encode(inside)["counts"].decode()}


SHAPES = {  # image -> annotations, the later over the earlier
    9: [(1, [box(0, 0, 4, 4)]), (90, [box(2, 2, 6, 6)])],
    25: [(3, [box(0, 0, 2, 1), box(1, 0, 3, 2), [5.0, 3.0, 8.0, 3.0, 8.0, 6.0, 5.0, 6.0]]), (3, runs((0, 0, 8, 2)), "crowd")],
    30: [(3, text((1, 1, 3, 5), (6, 0, 8, 6)))],
    34: [],
    36: [(1, runs((0, 0, 1, 1)), "crowd")],
}
LABELS = {
    9: [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 3, 3, 3, 3, 0, 0]] * 2 + [[0, 0, 3, 3, 3, 3, 0, 0]] * 2,
    25: [[2, 2, 2, 0, 0, 0, 0, 0], [0, 2, 2, 0, 0, 0, 0, 0], [0] * 8] + [[0, 0, 0, 0, 0, 2, 2, 2]] * 3,
    30: [[0, 0, 0, 0, 0, 0, 2, 2]] + [[0, 2, 2, 0, 0, 0, 2, 2]] * 4 + [[0, 0, 0, 0, 0, 0, 2, 2]],
}


def document(shapes, name, categories=CATEGORIES):
    """A file of annotations, the images not in the order of their ids."""
    images = [{"id": k, "file_name": f"{name(k)}.jpg", "height": H, "width": W, "license": 1} for k in reversed(shapes)]
    annotations = [
        {"id": 100 * k + place, "image_id": k, "category_id": one[0], "segmentation": one[1], "iscrowd": int(len(one) > 2)}
        for place in range(max(map(len, shapes.values())))
        for k in shapes
        for one in shapes[k][place : place + 1]
    ]
    named = [{"id": k, "name": category, "supercategory": "any"} for k, category in categories]
    return {"info": {"a": [{}, "]"]}, "images": images, "annotations": annotations, "licenses": [], "categories": named}


def write(root, split, content):
    path = root / "annotations" / f"instances_{split}2014.json"
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))  # a clock tick may be longer than a test
    return path


def make_set(folder):
    """Images and annotations below `folder`, where COCO has them."""
    root = folder / "coco2014"
    for split, name, shapes in (("train", TRAIN, SHAPES), ("val", VAL, {42: SHAPES[30], 73: SHAPES[9], 74: []})):
        (root / f"{split}2014").mkdir(parents=True)
        write(root, split, document(shapes, name))
        for k in shapes:
            Image.new("RGB", (W, H), (k, 0, 0)).save(root / f"{split}2014" / f"{name(k)}.jpg")
    return root


def change(root, edit, split="train"):
    """Edit the annotations by a function of the document."""
    content = document(copy.deepcopy(SHAPES), TRAIN)
    edit(content)
    return write(root, split, content)


def annotation(content, number):
    return next(one for one in content["annotations"] if one["id"] == number)


def mask_of(source, item, labels=4):
    raw = source.load(item)
    return decode_gray(normalise_mask(raw.mask, height=H, width=W, num_labels=labels)).tolist()
