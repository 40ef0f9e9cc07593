"""Lists and classes of sets like Pascal VOC."""

from __future__ import annotations

import pytest

from tests.photos import listed, mask
from tests.zoo.keeper import packed
from tests.zoo.sets import pictures
from wsss_ray.config.job import load_job
from wsss_ray.data.voc import VOC_CLASSES


def test_lists_of_voc_with_spaces(tmp_path):
    """A line is read in the form whose image exists; if that is so for two, it is an error."""
    top = tmp_path / "VOC2012"
    pictures(top / "JPEGImages", {"photo.jpg": "cat", "photo 1.jpg": "dog", "my cat.jpg": "cat"})
    (top / "Annotations").mkdir()
    for name, kind in (("photo", "cat"), ("photo 1", "dog"), ("my cat", "cat")):
        (top / "Annotations" / f"{name}.xml").write_text(f"<annotation><object><name>{kind}</name></object></annotation>")
    own = top / "own.txt"
    job = f"name: x\nmethod: {{name: cam}}\ndata: {{kind: voc, root: {top}, train: own.txt, val: null}}\n"
    (tmp_path / "job.yaml").write_text(job)
    own.write_text("my cat\n/JPEGImages/photo 1.jpg\nphoto 7 11\n")
    assert listed(tmp_path / "job.yaml")["weak"] == {"my cat": ("cat",), "photo 1": ("dog",), "photo": ("cat", "dog")}
    own.write_text("photo 1\n")
    with pytest.raises(ValueError, match=r"own\.txt:1: 'photo 1' may mean the image 'photo' or 'photo 1'; write it as /FOLDER/"):
        load_job(tmp_path / "job.yaml").plan()
    (top / "JPEGImages" / "photo.jpg").unlink()
    assert listed(tmp_path / "job.yaml")["weak"] == {"photo 1": ("dog",)}
    own.write_text("photo 1\n" + "photo " * 1_000 + "\n")
    with pytest.raises(ValueError, match=r"own\.txt:2: a line of 5999 characters; put each image on a line of its own"):
        load_job(tmp_path / "job.yaml").plan()


def test_a_part_of_vocs_classes(tmp_path):
    top = tmp_path / "VOC2012"
    pictures(top / "JPEGImages", {"0.jpg": "cat", "1.jpg": "dog"})
    (top / "Annotations").mkdir()
    for number, kind in enumerate(("cat", "dog")):
        (top / "Annotations" / f"{number}.xml").write_text(f"<annotation><object><name>{kind}</name></object></annotation>")
        mask(top / "SegmentationClass" / f"{number}.png", 1 + VOC_CLASSES.index(kind))
    (top / "own.txt").write_text("0\n1\n")
    job = f"name: x\nmethod: {{name: cam}}\ndata: {{kind: voc, root: {top}, train: own.txt, val: null, masks: SegmentationClass, "
    (tmp_path / "job.yaml").write_text(job + "classes: [dog, person], labels: set}\n")
    found = packed(tmp_path / "job.yaml", tmp_path / "store")["weak"]
    assert {name: (one.tags, one.labels) for name, one in found.items()} == {"0": ((), (0,)), "1": (("dog",), (0, 1))}
    (tmp_path / "job.yaml").write_text(job + "classes: [dog, person]}\n")
    with pytest.raises(ValueError, match=r"unknown class 'cat'; allowed: dog, person"):
        load_job(tmp_path / "job.yaml").plan()
