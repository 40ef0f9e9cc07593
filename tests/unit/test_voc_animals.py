"""benchmarks/voc_animals: the build from a folder in VOC's layout, and the list against the built set where it is."""

from __future__ import annotations

import csv
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.voc_animals.build import CLASSES, BuildError, Entry, build, entries, relabelled
from benchmarks.voc_animals.table import ABLATIONS, COMBINED, HERE, METHODS
from tests.stage_ids import lacking
from tests.voc_animals import FOLDER, needs_it
from wsss_ray.config.job import read_job

XML = "<annotation>{}</annotation>"
ENTRY = Entry("2007_000001", ("cat", "person"), "train", 320, 240)


def voc_of(root, *, names=("person", "cat", "cat", "sofa"), size=(500, 375), mask_size=None):
    for folder in ("JPEGImages", "Annotations", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(root / "JPEGImages/2007_000001.jpg")
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    (root / "Annotations/2007_000001.xml").write_text(XML.format(objects))
    mask = np.zeros((mask_size or size)[::-1], np.uint8)
    mask[100:200, 100:200], mask[250:300, :50], mask[99, 100:200] = 8, 18, 255
    Image.fromarray(mask).save(root / "SegmentationClassAug/2007_000001.png")
    return root


def test_the_build_shrinks_and_relabels(tmp_path):
    build(voc_of(tmp_path / "voc"), tmp_path / "out", [ENTRY])
    with Image.open(tmp_path / "out/images/2007_000001.jpg") as image:
        assert image.size == (320, 240)
    mask = np.asarray(Image.open(tmp_path / "out/masks/2007_000001.png"))
    assert mask.shape == (240, 320)
    assert set(np.unique(mask)) == {0, 1, 255}
    assert (mask == 1).sum() == pytest.approx(100 * 100 * 0.64**2, rel=0.03)
    assert (tmp_path / "out/tags.csv").read_text() == "image,tags,split\n2007_000001.jpg,cat;person,train\n"


def test_labels_of_other_classes_and_borders_are_not_scored():
    theirs = np.array([[0, 8, 10, 12, 13, 15, 17, 1, 20, 255]], np.uint8)
    assert np.asarray(relabelled(Image.fromarray(theirs))).tolist() == [[0, 1, 2, 3, 4, 5, 6, 255, 255, 255]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("dog",)}, r"2007_000001.xml names dog; the list has cat, person"),
        ({"size": (375, 500)}, r"2007_000001.jpg is 375x500, which does not become 320x240"),
        ({"mask_size": (500, 374)}, r"2007_000001.png is 500x374, its image 500x375"),
    ],
)
def test_another_image_under_the_same_name_is_refused(tmp_path, change, message):
    with pytest.raises(BuildError, match=message):
        build(voc_of(tmp_path / "voc", **change), tmp_path / "out", [ENTRY])


def test_a_folder_with_files_and_a_missing_image_are_refused(tmp_path):
    voc = voc_of(tmp_path / "voc")
    with pytest.raises(BuildError, match=r"is missing. VOC2012 needs the masks of SBD too"):
        build(voc, tmp_path / "out", [Entry("2007_000002", ("cat",), "val", 320, 240)])
    with pytest.raises(BuildError, match="is not empty"):
        build(voc, tmp_path / "out", [ENTRY])


def test_the_list_has_what_the_page_says():
    listed = entries()
    assert Counter(entry.split for entry in listed) == {"train": 1552, "val": 225}
    assert len({entry.image_id for entry in listed}) == 1777
    assert all(max(entry.width, entry.height) == 320 for entry in listed)
    assert all(entry.tags == tuple(sorted(entry.tags)) and set(entry.tags) <= set(CLASSES) for entry in listed)


@needs_it
def test_the_list_is_that_of_the_built_set():
    with (FOLDER / "tags.csv").open(newline="") as stream:
        built = [(Path(row["image"]).stem, tuple(row["tags"].split(";")), row["split"]) for row in csv.DictReader(stream)]
    assert [(entry.image_id, entry.tags, entry.split) for entry in entries()] == built
    for entry in entries()[::50]:
        with Image.open(FOLDER / "images" / f"{entry.image_id}.jpg") as image:
            assert image.size == (entry.width, entry.height)


@pytest.mark.parametrize("name", [*METHODS, *ABLATIONS, *COMBINED])
def test_every_job_of_the_tables_makes_a_plan(name, tmp_path):
    if missing := lacking(HERE / f"{name}.yaml"):
        pytest.skip(f"needs {missing}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "masks" / "a.png")
    (tmp_path / "tags.csv").write_text("image,tags,split\na.png,cat,train\n")
    data = [f"data.root={tmp_path}", f"data.tags={tmp_path / 'tags.csv'}", f"data.masks={tmp_path / 'masks'}"]
    for trial in read_job(HERE / f"{name}.yaml", [*data, "sweep.seeds=[0]"]).trials():
        assert trial.job.plan().stages


SCRIPTS = ("accuracy", "stamps.table", "voc_animals.table", "voc_animals.pictures", "voc_animals.saliency")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_no_other_test_runs_can_be_imported(name):
    """They import the package's internals, which move."""
    module = import_module(f"benchmarks.{name}")
    assert module.__doc__
