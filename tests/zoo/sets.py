"""Small sets in every layout that the documentation lists. Each builder fills a folder and returns what `init` is given."""

from __future__ import annotations

import json
from pathlib import Path

from tests.photos import mask, photo

LABELS = {"cat": 1, "dog": 2}


def pictures(root: Path, names: dict[str, str], *, masks: Path | None = None) -> None:
    """Photographs by name, each of a class, and masks of the same names."""
    for number, (name, kind) in enumerate(names.items()):
        photo(root / name, kind, number)
        if masks is not None:
            mask(masks / Path(name).with_suffix(".png"), LABELS[kind])


def alternating(count: int, form: str = "{}.png") -> dict[str, str]:
    """Names, cats and dogs in turn."""
    return {form.format(number): ("cat", "dog")[number % 2] for number in range(count)}


def class_folders(root: Path) -> Path:
    pictures(root / "pets", {f"{kind}/{number}.png": kind for kind in LABELS for number in range(3)})
    return root / "pets"


def class_folders_by_split(root: Path) -> Path:
    """train, val and test with class folders, masks beside the folder for val only."""
    names = {f"{part}/{kind}/{number}.png": kind for part in ("train", "val", "test") for kind in LABELS for number in range(3)}
    pictures(root / "pets", names)
    pictures(root / "scratch", {name: kind for name, kind in names.items() if "val" in name}, masks=root / "masks")
    return root / "pets"


def table_inside(root: Path) -> Path:
    """A table of tags and a folder of masks in the folder."""
    names = alternating(12)
    pictures(root / "photos", names, masks=root / "photos" / "masks")
    (root / "photos" / "tags.csv").write_text("image,tags\n" + "".join(f"{name},{kind}\n" for name, kind in names.items()))
    return root / "photos"


def table_beside(root: Path) -> Path:
    """photos.csv and masks beside photos, with a split, and an image without tags."""
    names = alternating(6)
    pictures(root / "photos", names, masks=root / "masks")
    rows = [f"{name};{kind};{'val' if place > 3 else 'train'}" for place, (name, kind) in enumerate(names.items())]
    photo(root / "photos" / "lawn.png", "none", 50)
    (root / "photos.csv").write_text("sep=;\nimage;tags;split\n" + "\n".join([*rows, "lawn.png;;train", ";;"]) + "\n")
    return root / "photos"


def polygon(x0: int = 8, y0: int = 5, x1: int = 28, y1: int = 20) -> list[list[float]]:
    """The polygon round the object in `photo`."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def coco_json(names: dict[str, str], *, first: int = 1, shape: object = None) -> dict:
    """COCO's JSON with one object in every image of a class; an image of no class has none."""
    kinds = sorted(LABELS)
    ids = {name: number for number, name in enumerate(names, start=first)}
    return {
        "images": [{"id": k, "file_name": name, "height": 30, "width": 40} for name, k in ids.items()],
        "categories": [{"id": k, "name": kind} for k, kind in enumerate(kinds, start=1)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": LABELS[names[name]], "bbox": [8, 5, 20, 15], "iscrowd": 0,
             "segmentation": polygon() if shape is None else shape}
            for name, k in ids.items() if names[name] in LABELS
        ],
    }  # fmt: skip


def coco(root: Path) -> Path:
    """annotations/instances_*.json with folders of images, one image without objects."""
    for part, count in (("train", 4), ("val", 2)):
        names = alternating(count, part + "{}.png") | {f"{part}-lawn.png": "none"}
        pictures(root / "set" / f"{part}2017", names)
        path = root / "set" / "annotations" / f"instances_{part}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco_json(names)))
    return root / "set"


def roboflow(root: Path) -> Path:
    """Roboflow's export: a JSON beside the images of each part, and a category that groups the others."""
    for part, count in (("train", 4), ("valid", 2), ("test", 2)):
        names = alternating(count, part + "-{}_jpg.rf.0a1b.jpg")
        pictures(root / "set" / part, names)
        content = coco_json(names)
        content["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
            one | {"supercategory": "pets"} for one in content["categories"]
        ]
        (root / "set" / part / "_annotations.coco.json").write_text(json.dumps(content))
    (root / "set" / "README.roboflow.txt").write_text("exported")
    return root / "set"


def _voc(root: Path, names: dict[str, str]) -> Path:
    pictures(root / "JPEGImages", {f"{name}.jpg": kind for name, kind in names.items()})
    (root / "Annotations").mkdir()
    for name, kind in names.items():
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation><object><name>{kind}</name></object></annotation>")
    return root


def voc(root: Path) -> Path:
    """Pascal VOC with lists and masks. One name of an image is another one with a number behind it."""
    from wsss_ray.data.voc import VOC_CLASSES

    names = alternating(4, "2007_{}") | {"2007_0 1": "dog", "2007_9": "cat"}
    top = _voc(root / "VOCdevkit" / "VOC2012", names)
    for name, kind in names.items():
        mask(top / "SegmentationClass" / f"{name}.png", 1 + VOC_CLASSES.index(kind))
    lists = top / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n2007_2\n/JPEGImages/2007_0 1.jpg\n")
    (lists / "val.txt").write_text("2007_3\n2007_9\n")
    return root / "VOCdevkit"


def voc_without_lists(root: Path) -> Path:
    """JPEGImages and Annotations, with spaces and # in names."""
    _voc(root / "set", alternating(4, "my photo #{}"))
    return root / "set"
