"""Build the set of animal photographs from Pascal VOC 2012 with the masks of SBD.

    python benchmarks/voc_animals/build.py VOC2012 OUT

VOC2012 is the folder with JPEGImages, Annotations, SegmentationClass and SegmentationClassAug. `wsss-ray augment-voc` makes the
last one. OUT gets images/ID.jpg and masks/ID.png, whose longer side is 320 pixels, and tags.csv. `images.csv` beside this script
lists the images with tags, split and size. What VOC2012 holds must agree with it, or the build ends with the name of the image.
"""

from __future__ import annotations

import argparse
import csv
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")
VOC_LABELS = {8: 1, 10: 2, 12: 3, 13: 4, 15: 5, 17: 6}
"""Labels of these classes in VOC's masks, and here. Background is 0 in both. All others become 255, which is not scored."""

SIDE, QUALITY = 320, 92
LIST = Path(__file__).parent / "images.csv"


class BuildError(Exception):
    """A message for people: a file is missing, or is not the one of the list."""


@dataclass(frozen=True)
class Entry:
    """A row of the list: id, tags, split, and the size here."""

    image_id: str
    tags: tuple[str, ...]
    split: str
    width: int
    height: int


def entries() -> list[Entry]:
    """Read the list of images."""
    with LIST.open(newline="") as stream:
        rows = csv.DictReader(stream)
        return [
            Entry(row["image"], tuple(row["tags"].split(";")), row["split"], int(row["width"]), int(row["height"]))
            for row in rows
        ]


def relabelled(mask: Image.Image) -> Image.Image:
    """Return a mask of VOC with the labels of this set.

    Example:
        >>> np.asarray(relabelled(Image.fromarray(np.array([[0, 8, 1, 255]], np.uint8))))
        array([[  0,   1, 255, 255]], dtype=uint8)
    """
    table = np.full(256, 255, np.uint8)
    table[0] = 0
    for theirs, ours in VOC_LABELS.items():
        table[theirs] = ours
    return Image.fromarray(table[np.asarray(mask)])


def tags_of(annotation: Path) -> tuple[str, ...]:
    """Return the classes of this set that VOC's annotation of an image names, sorted."""
    names = {node.findtext("name") for node in ElementTree.parse(annotation).iter("object")}
    return tuple(sorted(names & set(CLASSES)))


def add(voc: Path, out: Path, entry: Entry) -> None:
    """Write the image and the mask of an entry."""
    name = entry.image_id
    masks = [voc / folder / f"{name}.png" for folder in ("SegmentationClassAug", "SegmentationClass")]
    mask_path = next((path for path in masks if path.is_file()), masks[0])
    image_path, annotation = voc / "JPEGImages" / f"{name}.jpg", voc / "Annotations" / f"{name}.xml"
    for path in (image_path, annotation, mask_path):
        if not path.is_file():
            raise BuildError(f"{path} is missing. VOC2012 needs the masks of SBD too: run wsss-ray augment-voc")
    if (found := tags_of(annotation)) != entry.tags:
        raise BuildError(f"{annotation} names {', '.join(found) or 'none of the classes'}; the list has {', '.join(entry.tags)}")
    with Image.open(image_path) as image, Image.open(mask_path) as mask:
        if image.size != mask.size:
            raise BuildError(f"{mask_path} is {mask.width}x{mask.height}, its image {image.width}x{image.height}")
        scale = SIDE / max(image.size)
        size = (entry.width, entry.height)
        if any(abs(side * scale - here) > 1 for side, here in zip(image.size, size, strict=True)):
            raise BuildError(f"{image_path} is {image.width}x{image.height}, which does not become {size[0]}x{size[1]}")
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(out / "images" / f"{name}.jpg", quality=QUALITY)
        relabelled(mask).resize(size, Image.Resampling.NEAREST).save(out / "masks" / f"{name}.png", optimize=True)


def build(voc: Path, out: Path, listed: list[Entry]) -> None:
    """Write the set into `out`, which must be empty or missing."""
    if out.exists() and any(out.iterdir()):
        raise BuildError(f"{out} is not empty. Give another folder, or empty it")
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for entry in listed:
        add(voc, out, entry)
    with (out / "tags.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", "tags", "split"])
        table.writerows([f"{entry.image_id}.jpg", ";".join(entry.tags), entry.split] for entry in listed)


def main(arguments: list[str] | None = None) -> None:
    """Build the set from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, metavar="VOC2012")
    parser.add_argument("out", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    listed = entries()
    try:
        build(options.voc, options.out, listed)
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"{len(listed)} images in {options.out}")


if __name__ == "__main__":
    main()
