"""Folders with links, odd formats, turned images and few masks: every file is used, or named with the reason."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from tests.photos import class_folders, init, listed, mask, photo, with_masks
from tests.zoo.keeper import ingest, packed, tags
from tests.zoo.sets import alternating, pictures
from wsss_ray.config.job import load_job
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.engine.records import StageError
from wsss_ray.inference.inputs import list_images


def left_out(said):
    """The lines of what is left out: reason -> number."""
    return {match[2]: int(match[1]) for match in re.finditer(r"^left out  (\d+) (.*?):", said, re.MULTILINE)}


def test_links_to_class_folders_are_followed(tmp_path):
    """A link back to a folder that holds it is no endless loop, and is named."""
    class_folders(tmp_path / "pets", each=2)
    pictures(tmp_path / "elsewhere", alternating(2, "{}.png"))
    (tmp_path / "pets" / "bird").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets" / "cat" / "up").symlink_to(tmp_path / "pets")
    (tmp_path / "elsewhere" / "down").symlink_to(tmp_path / "pets" / "bird")
    (tmp_path / "pets" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    said = init(tmp_path / "pets", "--out", tmp_path / "job.yaml")
    assert "3: cat 2, dog 2, bird 2" in said.replace("bird 2, cat 2, dog 2", "cat 2, dog 2, bird 2")
    assert left_out(said) == {"links to a folder that holds them": 2, "links that lead nowhere": 1}
    assert len(packed(tmp_path / "job.yaml", tmp_path / "store")["weak"]) == 6
    found = list_images([str(tmp_path / "pets")], out=tmp_path / "labels")
    assert {image.name for image in found.images} == set(listed(tmp_path / "job.yaml")["weak"])


def test_two_links_that_hold_each_other_end(tmp_path):
    photo(tmp_path / "a" / "1.png", "cat", 1)
    photo(tmp_path / "b" / "2.png", "dog", 2)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    found = list_images([str(tmp_path)], out=tmp_path / "labels")
    assert [image.name for image in found.images] == ["a/1", "a/other/2", "b/2", "b/other/1"]
    by_pattern = list_images([f"{tmp_path}/**/*.png"], out=tmp_path / "labels")
    assert by_pattern.images == found.images, "a pattern finds the same files"


def test_what_pillow_reads_is_read(tmp_path):
    names = [*("a.jfif", "b.jpe", "c.JPEG", "d.ppm", "e.pgm", "f.pnm", "g.jp2"),
             *("h.dib", "i.apng", "j.avif", "k.webp", "l.tiff", "m.gif")]  # fmt: skip
    for number, name in enumerate(names):
        kind = ("cat", "dog")[number % 2]
        image = Image.open(photo(tmp_path / "scratch.png", kind, number))
        path = tmp_path / "pets" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = {"jfif": "JPEG", "jpe": "JPEG", "pgm": "PPM", "pnm": "PPM", "dib": "BMP", "apng": "PNG"}.get(name[2:].lower())
        image.convert("L" if name == "e.pgm" else "RGB").save(path, format=written)
    (tmp_path / "pets" / "cat" / "phone.heic").write_bytes(b"x")
    (tmp_path / "pets" / "cat" / "sound.webp").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt ")
    said = init(tmp_path / "pets", "--out", tmp_path / "job.yaml")
    assert left_out(said) == {"with the ending .heic, which is not read; save as JPEG": 1}
    assert "1 cannot be read, left out: cat/sound.webp: not an image in a format that is read here" in said
    assert len(packed(tmp_path / "job.yaml", tmp_path / "store")["weak"]) == len(names)


def test_every_file_is_used_or_named(tmp_path):
    root = with_masks(tmp_path / "pets", each=10)
    for name in ("notes.txt", "cat/.DS_Store", ".git/config", "dog/raw.cr2", "cat/old.json"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    photo(root / "loose.png", "cat", 90)
    mask(root / "masks" / "cat" / "99.png", 1)
    (root / "masks" / "classes.txt").write_text("cat\ndog\n")
    said = init(root, "--out", tmp_path / "job.yaml")
    assert left_out(said) == {
        "in no class folder": 1,
        "hidden": 2,
        "other files": 3,
        "with the ending .cr2, which is not read; save as JPEG": 1,
        "masks of no image that is used": 1,
    }
    found = packed(tmp_path / "job.yaml", tmp_path / "store")
    used = sum(1 + (one.labels is not None) for part in found.values() for one in part.values())
    there = sum(len(files) for folder, _, files in os.walk(root) if ".git" not in folder)
    assert used + sum(left_out(said).values()) == there + 1, ".git counts as one, with all that is in it"


def test_validation_folders_without_masks_are_named(tmp_path):
    for part in ("train", "valid"):
        class_folders(tmp_path / "pets" / part, each=3)
    said = init(tmp_path / "pets", "--out", tmp_path / "job.yaml")
    reason = "for validation, without masks to score with (move them to the training images to train on them)"
    assert left_out(said) == {reason: 6}
    assert {split: len(ids) for split, ids in listed(tmp_path / "job.yaml").items()} == {"weak": 6}


def test_a_mistake_in_a_table_beside_class_folders_is_told(tmp_path):
    root = class_folders(tmp_path / "pets")
    (root / "tags.csv").write_text("image,tags\ncat/0.png,nan\n")
    said = init(root, "--out", tmp_path / "job.yaml")
    assert re.search(r"^note +not used as a table of tags: .*tags\.csv:2: a tag is 'nan'", said, re.MULTILINE)


@pytest.mark.parametrize("beside", ["masks", "photos_masks", "GroundTruth"])
def test_masks_beside_the_folder(tmp_path, beside):
    names = alternating(12)
    pictures(tmp_path / "photos", names, masks=tmp_path / beside)
    (tmp_path / "photos.csv").write_text("image,tags\n" + "".join(f"{name},{kind}\n" for name, kind in names.items()))
    assert "10 for training, 2 held out" in init(tmp_path / "photos", "--out", tmp_path / "job.yaml")
    found = packed(tmp_path / "job.yaml", tmp_path / "store")
    assert {name: one.labels for part in found.values() for name, one in part.items()} == {
        str(k): (0, 1 + k % 2) for k in range(12)
    }


@pytest.mark.parametrize(("masks", "val", "strong"), [(24, 5, 0), (12, 2, 10), (6, 0, 6), (0, 0, 0)])
def test_few_masks_are_offered_for_scores_and_for_training(tmp_path, masks, val, strong):
    """Half of the training images and more: masks only score. Fewer: the rest of the masks trains the segmenters too."""
    root = class_folders(tmp_path / "pets", each=20)
    for number in range(masks):
        mask(root / "masks" / ("cat", "dog")[number % 2] / f"{number // 2}.png", 1 + number % 2)
    said = init(root, "--out", tmp_path / "job.yaml")
    splits = listed(tmp_path / "job.yaml")
    assert (len(splits.get("val", ())), len(splits.get("strong", ()))) == (val, strong)
    assert len(splits["weak"]) == 40 - val
    few = f"{strong} of the {40 - val} training images have a mask: the segmenters are trained on these masks too"
    assert (few in said) == (strong > 0)
    if strong:
        assert set(splits["strong"]) <= set(splits["weak"])
        found = packed(tmp_path / "job.yaml", tmp_path / "store")["strong"]
        assert {one.labels for one in found.values()} == {(0, 1), (0, 2)}
        text = (tmp_path / "job.yaml").read_text()
        assert re.search(r"  strong: masks +# trained on the masks of \d+ images too; null: on tags alone", text)


def test_masks_that_cannot_be_used_cost_no_image(tmp_path):
    """Up to half of the mask files may be wrong: their images go without. More are a mistake, which ends the stage."""
    root = with_masks(tmp_path / "pets", each=10)
    (tmp_path / "job.yaml").write_text(
        f"name: x\nmethod: {{name: cam}}\ndata: {{kind: folder, root: {root}, masks: {root}/masks}}\n"
    )
    for number in range(9):
        mask(root / "masks" / "cat" / f"{number}.png", 1, size=(20, 20))
    found = packed(tmp_path / "job.yaml", tmp_path / "a")["weak"]
    assert sorted(name for name, one in found.items() if one.labels is None) == [f"cat/{number}" for number in range(9)]
    assert {one.tags for one in found.values()} == {("cat",), ("dog",)}
    (record,) = (tmp_path / "a").glob("stages/ingest-*/record.json")
    assert json.loads(record.read_text())["counts"] == {"images": 20, "errors": 0, "shards": 1, "without_mask": 9}
    for number in range(9):
        mask(root / "masks" / "dog" / f"{number}.png", 7)
    said = "18 of 20 masks cannot be used, such as .*0.png: the mask is 20x20, its image 40x30 .*; correct them, or set the field"
    with pytest.raises(StageError, match=said):
        packed(tmp_path / "job.yaml", tmp_path / "b")
    assert not list((tmp_path / "b").glob("stages/*/notes/*")), "the next submit packs these shards again"


@pytest.mark.parametrize(("broken", "said"), [(12, ".0.5; allow them by --set run.max_bad_fraction=0.6."), (20, ".0.5.;")])
def test_the_proposed_share_of_failures_is_one_that_helps(tmp_path, broken, said):
    root = class_folders(tmp_path / "pets", each=10)
    for path in sorted(root.rglob("*.png"))[:broken]:
        path.write_bytes(b"")
    (tmp_path / "job.yaml").write_text(f"name: x\nmethod: {{name: cam}}\ndata: {{kind: folder, root: {root}}}\n")
    with pytest.raises(StageError, match=f"{broken} of 20 images failed, more than run.max_bad_fraction allows {said}"):
        packed(tmp_path / "job.yaml", tmp_path / "store")


def test_masks_of_one_class_of_many(tmp_path):
    """`labels` names the labels of masks, and `classes` are a part of them in another order."""
    root = with_masks(tmp_path / "pets", each=10)
    init(root, "--out", tmp_path / "job.yaml")
    text = (tmp_path / "job.yaml").read_text()
    fields = "  classes: [dog]\n  labels: [cat, dog]\n  others: ignore\n"
    (tmp_path / "dogs.yaml").write_text(text.replace("data:\n", f"data:\n{fields}"))
    found = packed(tmp_path / "dogs.yaml", tmp_path / "store")["weak"]
    assert {(one.tags, one.labels) for one in found.values()} == {((), (0, 255)), (("dog",), (0, 1))}


TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("orientation", TURNS)
def test_turned_images_and_their_masks(tmp_path, orientation):
    """Masks on the stored pixels of turned images. Sizes tell of a quarter turn; of a mirrored or 180-degree one, they cannot."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(12):
        kind = ("cat", "dog")[number % 2]
        path = tmp_path / "pets" / kind / f"{number}.jpg"
        with Image.open(photo(tmp_path / "scratch.png", kind, number)) as image:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, exif=exif)
        mask(tmp_path / "masks" / kind / f"{number}.png", 1 + number % 2)
    said = init(tmp_path / "pets", "--out", tmp_path / "job.yaml")
    assert "EXIF turns 12 images with a mask" in said
    job = tmp_path / "job.yaml"
    if orientation < 5:
        assert "the sizes do not tell whether masks are drawn on the upright image or on the stored pixels" in said
        assert load_job(job).data.masks_on == "upright"
        job = tmp_path / "stored.yaml"
        job.write_text((tmp_path / "job.yaml").read_text().replace("data:\n", "data:\n  masks_on: stored\n"))
    assert load_job(job).data.masks_on == "stored"
    for row in ingest(job, tmp_path / "store")["weak"]:
        image_HWC, label_HW = decode_rgb(row["image"]).astype(int), decode_gray(row["mask"])
        coloured_HW = np.abs(image_HWC[:, :, 0] - image_HWC[:, :, 2]) > 100
        assert label_HW.shape == (row["height"], row["width"]) == ((40, 30) if orientation == 6 else (30, 40))
        assert (coloured_HW == (label_HW > 0)).mean() > 0.95, "the mask lies on the object"


def test_untagged_images_are_one_rule(tmp_path):
    """Kept in every source; `untagged: drop` leaves them out of every source."""
    photo(tmp_path / "photos" / "lawn.png", "none", 9)
    pictures(tmp_path / "photos", alternating(2))
    (tmp_path / "photos" / "tags.csv").write_text("image,tags\n0.png,cat\n1.png,dog\nlawn.png,\n")
    init(tmp_path / "photos", "--out", tmp_path / "job.yaml")
    assert tags(packed(tmp_path / "job.yaml", tmp_path / "a")["weak"]) == {"0": ("cat",), "1": ("dog",), "lawn": ()}
    text = (tmp_path / "job.yaml").read_text().replace("data:\n", "data:\n  untagged: drop\n")
    (tmp_path / "job.yaml").write_text(text)
    assert tags(packed(tmp_path / "job.yaml", tmp_path / "b")["weak"]) == {"0": ("cat",), "1": ("dog",)}
