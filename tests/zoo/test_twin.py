"""A folder with a table and masks, and its twin in COCO's JSON: `init`, `plan` and ingest make the same of both.

Where the set of animal photographs is built, 100 of its images are compared too. `python -m tests.zoo.test_twin FOLDER OUT`
compares a whole set: images/, masks/ and tags.csv in FOLDER.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.photos import init, photo
from tests.voc_animals import FOLDER, needs_it
from tests.zoo.keeper import ingest
from wsss_ray.config.job import load_job


def run_lengths(inside_HW: np.ndarray) -> dict:
    """COCO's run lengths of a region, uncompressed: down the columns, outside first."""
    flat = inside_HW.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(inside_HW.shape), "counts": [0, *counts] if flat[0] else counts}


def write_twin(photos: Path, masks: Path, table: Path, out: Path, *, most: int | None = None) -> None:
    """Write the JSON of a folder: a region for each tag, and the ignored pixels as a crowd. `out/tags.csv` has the same rows."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(1, len(rows) // most)][:most] if most else rows
    classes = sorted({tag for row in rows for tag in row["tags"].split(";")})
    for part in ("train", "val"):
        images, annotations = [], []
        for number, row in enumerate((row for row in rows if row["split"] == part), start=1):
            label_HW = np.array(Image.open(masks / Path(row["image"]).with_suffix(".png")))
            height, width = label_HW.shape
            images.append({"id": number, "file_name": row["image"], "height": height, "width": width})
            regions = [(classes.index(tag), label_HW == 1 + classes.index(tag), 0) for tag in row["tags"].split(";")]
            for place, inside_HW, crowd in (*regions, (0, label_HW == 255, 1)):
                if not crowd or inside_HW.any():
                    one = {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + place, "iscrowd": crowd}
                    annotations.append(one | {"segmentation": run_lengths(inside_HW)})
        categories = [{"id": 1 + place, "name": name} for place, name in enumerate(classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (out / "annotations").mkdir(parents=True, exist_ok=True)
        (out / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    lines = [f"{row['image']},{row['tags']},{row['split']}" for row in rows]
    (out / "tags.csv").write_text("image,tags,split\n" + "\n".join(lines) + "\n")
    (out / "images").symlink_to(photos.resolve())


def compare(photos: Path, masks: Path, table: Path, out: Path, *, most: int | None = None) -> str:
    """Make the twin, and compare what becomes of both. Return what was compared."""
    write_twin(photos, masks, table, out / "twin", most=most)
    folder = init(photos, "--tags", out / "twin" / "tags.csv", "--masks", masks, "--out", out / "folder.yaml")
    (out / "twin" / "tags.csv").rename(out / "tags.csv")
    text = (out / "folder.yaml").read_text()
    (out / "folder.yaml").write_text(text.replace(str(out / "twin" / "tags.csv"), str(out / "tags.csv")))
    coco = init(out / "twin", "--out", out / "coco.yaml")
    for heading in ("images", "split", "odd", "note"):
        assert lines(folder, heading) == lines(coco, heading), heading
    (out / "coco.yaml").write_text((out / "coco.yaml").read_text().replace("data:\n", "data:\n  crowd: ignore\n"))
    jobs = [load_job(out / f"{name}.yaml") for name in ("folder", "coco")]
    assert jobs[0].data.class_names() == jobs[1].data.class_names()
    found = [ingest(out / f"{name}.yaml", out / f"store-{name}") for name in ("folder", "coco")]
    assert list(found[0]) == list(found[1])
    for split in found[0]:
        pairs = [sorted(one[split], key=lambda row: row["image_id"]) for one in found]
        assert [row["image_id"] for row in pairs[0]] == [row["image_id"] for row in pairs[1]]
        assert all(row["mask"] is not None for row in pairs[0])
        assert pairs[0] == pairs[1], "tags, sizes, images, digests and masks"
    counts = ", ".join(f"{len(rows)} images of {split}" for split, rows in found[0].items())
    return f"{counts}; {'; '.join(lines(coco, 'images'))}"


def lines(said: str, heading: str) -> list[str]:
    return sorted(re.findall(rf"^{heading} +(.*)$", said, re.MULTILINE))


def test_small_twins(tmp_path):
    root = tmp_path / "photos"
    rows = ["image,tags,split"]
    for number in range(12):
        photo(root / f"{number}.jpg", ("cat", "dog")[number % 2], number)
        label_HW = np.zeros((30, 40), np.uint8)
        label_HW[5:20, 8:28] = 255
        label_HW[6:19, 9:27] = 1 + number % 2
        label_HW[0, :3] = 2 - number % 2 if number > 6 else 0
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(label_HW).save(tmp_path / "masks" / f"{number}.png")
        tags = ";".join(("cat", "dog")) if number > 6 else ("cat", "dog")[number % 2]
        rows.append(f"{number}.jpg,{tags},{'val' if number % 4 == 3 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    said = compare(root, tmp_path / "masks", tmp_path / "table.csv", tmp_path / "out")
    assert said.startswith("9 images of weak, 3 images of val")


@needs_it
def test_photographs(tmp_path):
    compare(FOLDER / "images", FOLDER / "masks", FOLDER / "tags.csv", tmp_path / "out", most=100)


if __name__ == "__main__":
    top = Path(sys.argv[1])
    sys.stdout.write(compare(top / "images", top / "masks", top / "tags.csv", Path(sys.argv[2])) + "\n")
