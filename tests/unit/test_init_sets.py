"""Masks, splits, and sets in the layouts of COCO and VOC, from the folder to a job file that plans."""

from __future__ import annotations

import json

from tests.coco_set import make_set
from tests.photos import class_folders, init, listed, mask, photo, with_masks


def test_masks_are_found_and_some_are_held_out(tmp_path):
    root, out = with_masks(tmp_path / "pets"), tmp_path / "job.yaml"
    said = init(root, "--out", out)
    assert "0 background in 40, 1 cat in 20, 2 dog in 20" in said
    assert "32 for training, 8 held out for validation" in said
    splits = listed(out)
    assert len(splits["weak"]) == 32
    assert sorted(tags for tags in splits["val"].values()) == [("cat",)] * 4 + [("dog",)] * 4
    assert not set(splits["weak"]) & set(splits["val"])
    before = out.with_name("job.tags.jsonl").read_bytes()
    init(root, "--out", out, "--force")
    assert out.with_name("job.tags.jsonl").read_bytes() == before


def test_copies_of_what_is_held_out_are_not_trained_on(tmp_path):
    root, out = with_masks(tmp_path / "pets"), tmp_path / "job.yaml"
    for number in range(20):
        (root / "cat" / f"copy{number}.png").write_bytes((root / "cat" / f"{number}.png").read_bytes())
    init(root, "--out", out)
    splits = listed(out)
    twins = {f"cat/copy{image_id.partition('/')[2]}" for image_id in splits["val"] if image_id.startswith("cat")}
    assert len(twins) == 4
    assert not twins & set(splits["weak"])


def test_masks_that_do_not_fit_are_said_and_not_used(tmp_path):
    swapped = init(with_masks(tmp_path / "a", labels={"cat": 2, "dog": 1}), "--out", tmp_path / "a.yaml")
    assert "label 1 has to be cat" in swapped
    binary = init(with_masks(tmp_path / "b", labels={"cat": 255, "dog": 255}), "--out", tmp_path / "b.yaml")
    wanted = "use 0 for background, 1 for cat, 2 for dog, ..., and 255 for pixels to ignore"
    assert f"the sampled masks hold only 0, 255; {wanted}" in binary
    assert list(listed(tmp_path / "b.yaml")) == ["weak"]
    root = with_masks(tmp_path / "c", labels={"cat": 1, "dog": 7})
    assert "warning   masks are not used: 20 of 40 sampled masks" in init(root, "--out", tmp_path / "c.yaml")
    assert list(listed(tmp_path / "c.yaml")) == ["weak"]
    said = init(root, "--masks", root / "masks", "--out", tmp_path / "e.yaml", code=2)
    assert "it holds the label 7, and there are 2 classes" in said
    said = init(class_folders(tmp_path / "d"), "--masks", root / "cat", "--out", tmp_path / "d.yaml", code=2)
    assert "no image has a mask in it; the mask of 'cat/0' would be" in said


def test_folders_of_train_and_val(tmp_path):
    root, out = tmp_path / "set", tmp_path / "job.yaml"
    for split in ("train", "val", "test"):
        class_folders(root / split, each=3)
    said = init(root, "--out", out)
    assert "6 in a test folder: " in said
    assert len(listed(out)["weak"]) == 6
    assert set(listed(out)["weak"].values()) == {("cat",), ("dog",)}


def test_coco_with_train_and_val(tmp_path):
    out = tmp_path / "job.yaml"
    said = init(make_set(tmp_path), "--out", out)
    assert "3: car 3, person 2, toothbrush 2; 0.9 tags an image, 3 images without tags" in said
    assert "5 for training, 3 for validation, as given" in said
    assert {split: len(ids) for split, ids in listed(out).items()} == {"weak": 5, "val": 3}


def test_coco_with_one_file_holds_some_out(tmp_path):
    root, out = tmp_path / "set", tmp_path / "job.yaml"
    names = [f"photo #{number}.png" for number in range(15)]
    for number, name in enumerate(names):
        photo(root / "pictures" / name, "cat", number)
    content = {
        "images": [{"id": k, "file_name": name, "height": 30, "width": 40} for k, name in enumerate(names, start=1)],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 7, "segmentation": [[8, 5, 28, 5, 28, 20]]} for k in range(1, 15)
        ],
    }
    (root / "labels.json").write_text(json.dumps(content))
    said = init(root, "--out", out)
    assert "1 image without tags" in said
    splits = listed(out)
    assert (len(splits["weak"]), len(splits["val"])) == (12, 3)
    assert (splits["weak"] | splits["val"])["photo #14"] == ()
    assert not set(splits["weak"]) & set(splits["val"])


def test_voc(tmp_path):
    root, out = tmp_path / "set", tmp_path / "job.yaml"
    for number in range(4):
        photo(root / "JPEGImages" / f"i{number}.jpg", "dog", number)
        (root / "Annotations").mkdir(exist_ok=True)
        name = "dog" if number % 2 else "person"
        (root / f"Annotations/i{number}.xml").write_text(f"<annotation><object><name>{name}</name></object></annotation>")
    said = init(root, "--out", out)
    assert "a set like Pascal VOC" in said
    assert listed(out) == {"weak": {f"i{k}": ("dog",) if k % 2 else ("person",) for k in range(4)}}
    assert (tmp_path / "job.train.txt").exists()
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("i0\ni1\n")
    (lists / "val.txt").write_text("i2\ni3\n")
    for number in range(4):
        mask(root / "SegmentationClass" / f"i{number}.png", 12 if number % 2 else 15)
    init(root, "--out", out, "--force")
    assert {split: list(ids) for split, ids in listed(out).items()} == {"weak": ["i0", "i1"], "val": ["i2", "i3"]}
