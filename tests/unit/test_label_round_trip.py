"""Labels that go out fit the photographs, and come back: every form, by our own readers, pycocotools and the tools' rules."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from tests.labelled import CLASSES, PHOTOS, SIDE, full_size, make_labelled
from tests.local import recommit, stage_named
from wsss_ray.cli import app
from wsss_ray.data.brush_rle import decode_brush
from wsss_ray.data.coco import Coco
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.folder import Folder
from wsss_ray.data.image_files import file_of
from wsss_ray.data.images import normalise_image, normalise_mask
from wsss_ray.data.list_lines import as_line, of_line
from wsss_ray.data.tags import numbered_lines
from wsss_ray.storage.schemas import table
from wsss_ray.storage.shards import list_shards, read_all, read_shard, shard_path
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("world"))


def export(world, out, *arguments):
    app(["export", "tiny", "--store", world[1].uri, "--out", str(out), *map(str, arguments)], standalone_mode=False)
    return out


def no_labels_but(labels, *others):
    """Label maps as forms have them that know shapes only: 255 is background."""
    return {file: np.where(np.isin(label_HW, others), 0, label_HW) for file, label_HW in labels.items()}


def test_ingest_keeps_the_name_and_the_size_of_the_file(world):
    _, store, plan, _ = world
    rows = read_all(store, stage_named(plan, "images-weak"), "images").to_pylist()
    assert {row["file"]: (row["file_height"], row["file_width"]) for row in rows} == {file: full_size(file) for file in PHOTOS}
    for row in rows:
        assert max(row["height"], row["width"]) <= SIDE
        picture = ImageOps.exif_transpose(Image.open(world[0] / "photos" / row["file"]))
        assert (row["file_width"], row["file_height"]) == picture.size


@pytest.mark.parametrize(
    ("image_id", "path", "file"),
    [
        ("a/b", "/data/a/b.JPG", "a/b.JPG"),
        ("b", "/data/a/b.jpg", "b.jpg"),
        ("x.tar", "/data/x.tar.gz.png", "x.tar.gz.png"),
        ("gr\u00fcn", "/data/gru\u0308n.png", "gru\u0308n.png"),  # as the file system spells it
        ("000017", "/data/left/picture.jpeg", "000017.jpeg"),
        ("a/b/c", "c.png", "a/b/c.png"),
    ],
)
def test_the_file_of_an_image(image_id, path, file):
    assert file_of(image_id, path) == file


@pytest.mark.parametrize("name", ["C#", "#1", "a #b", r"a\#b", "# #", "dog", "a  b", r"\\#", "x#y # z"])
def test_names_come_back_from_a_line(name):
    assert of_line(as_line(name)) == name
    assert "\n" not in as_line("a\nb")


def test_comments_of_lists(tmp_path):
    (tmp_path / "list.txt").write_text("# all\n#none\na # ours\nC#\n\n  \\#1\nholiday 2019/dog #1\nb \\# c # d\n")
    found = [text for _, text in numbered_lines(tmp_path / "list.txt", "train")]
    assert found == ["a", "C#", "#1", "holiday 2019/dog #1", "b # c"]


def test_masks_have_the_size_of_the_photographs_and_come_back(world, tmp_path):
    folder, _, _, labels = world
    out = export(world, tmp_path / "out", "--format", "voc")
    places = {"root": folder / "photos", "tags": out / "tags.jsonl", "masks": out / "SegmentationClass"}
    source = Folder(**{name: str(place) for name, place in places.items()}, classes=CLASSES)
    items = source.items("weak")
    assert [file_of(item.image_id, item.path) for item in items] == list(PHOTOS) == list(labels)
    for item, (file, (_, tags)) in zip(items, PHOTOS.items(), strict=True):
        assert {CLASSES[tag] for tag in item.tags} == set(tags)
        raw = source.load(item)
        image = normalise_image(raw.image, max_pixels=10**6)
        found = decode_gray(normalise_mask(raw.mask, height=image.height, width=image.width, num_labels=5))
        np.testing.assert_array_equal(found, labels[file])
    assert [text for _, text in numbered_lines(out / "classes.txt", "root")] == list(CLASSES)
    listed = [text for _, text in numbered_lines(out / "ImageSets/Segmentation/train.txt", "train")]
    assert listed == [item.image_id for item in items]


def test_cvat_and_datumaro_read_the_masks_by_their_colours(world, tmp_path, capsys):
    """A line of labelmap.txt is name:r,g,b:parts:actions, and every colour of a mask stands in it."""
    _, _, _, labels = world
    out = export(world, tmp_path / "out", "--format", "voc")
    assert "labelmap.txt has no place for ':' and some '#'" in capsys.readouterr().out
    rows = [line.split(":") for line in (out / "labelmap.txt").read_text().splitlines() if not line.startswith("#")]
    assert [row[0] for row in rows] == ["background", "C#", "big dog", "x_y", "_1", "ignored"]
    assert all(len(row) == 4 for row in rows)
    colours = np.array([[int(value) for value in row[1].split(",")] for row in rows])
    for file, label_HW in labels.items():
        rgb_HWC = np.asarray(Image.open(out / "SegmentationClass" / f"{file.rpartition('.')[0]}.png").convert("RGB"))
        near_HW = (rgb_HWC[:, :, None] == colours).all(-1)
        assert (near_HW.sum(-1) == 1).all()
        np.testing.assert_array_equal(np.array([0, 1, 2, 3, 4, 255])[near_HW.argmax(-1)], label_HW)
    cvat = json.loads((out / "cvat_labels.json").read_text())
    assert [(one["name"], one["color"]) for one in cvat[:2]] == [("C#", "#800000"), ("big dog", "#008000")]
    assert (cvat[-1]["name"], cvat[-1]["color"]) == ("ignored", "#e0e0c0")
    assert [one["name"] for one in cvat] == [row[0] for row in rows[1:]], "CVAT finds labels by their names"
    out = export(world, tmp_path / "coco", "--format", "coco")
    assert [one["name"] for one in json.loads((out / "cvat_labels.json").read_text())] == [*CLASSES, "ignored"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_coco_is_read_by_pycocotools_and_by_our_reader(world, tmp_path, shapes):
    from pycocotools.coco import COCO

    folder, _, _, labels = world
    wanted = no_labels_but(labels, 255)
    out = export(world, tmp_path / "out", "--format", "coco", "--shapes", shapes)
    coco = COCO(str(out / "instances.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [one["file_name"] for one in images] == list(PHOTOS)
    for one in images:
        picture = ImageOps.exif_transpose(Image.open(folder / "photos" / one["file_name"]))
        assert (one["width"], one["height"]) == picture.size
        label_HW = np.zeros((one["height"], one["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=one["id"])):
            inside_HW = coco.annToMask(annotation) > 0
            label_HW[inside_HW] = annotation["category_id"]
            (rows,), (columns,) = (np.nonzero(inside_HW.any(axis=axis)) for axis in (1, 0))
            assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["area"] == inside_HW.sum()
        np.testing.assert_array_equal(label_HW, wanted[one["file_name"]])
    source = Coco(root=str(folder), train_annotations=str(out / "instances.json"), train_images="photos", val_annotations=None)
    assert source.class_names() == CLASSES
    items = source.items("weak")
    assert [Path(item.path) for item in items] == [folder / "photos" / file for file in PHOTOS]
    for item, label_HW in zip(items, wanted.values(), strict=True):
        assert [tag + 1 for tag in item.tags] == sorted(set(np.unique(label_HW).tolist()) - {0})
        raw = source.load(item)
        found = normalise_mask(raw.mask, height=label_HW.shape[0], width=label_HW.shape[1], num_labels=5)
        np.testing.assert_array_equal(decode_gray(found), label_HW)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_label_studio_finds_the_photographs_and_their_shapes(world, tmp_path, shapes):
    from pycocotools import mask as coco_mask

    _, _, _, labels = world
    out = export(world, tmp_path / "out", "--format", "label-studio", "--shapes", shapes, "--url", "/data/local-files/?d=my/")
    tasks = json.loads((out / "tasks.json").read_text())
    names = [task["data"]["image"] for task in tasks]
    assert all(set("# ä") & set(name) == set() for name in names), "a URL ends at #"
    assert [unquote(name).removeprefix("/data/local-files/?d=my/") for name in names] == list(PHOTOS)
    config = ElementTree.fromstring((out / "labels.xml").read_text())
    (control,) = config.findall("BrushLabels" if shapes == "rle" else "PolygonLabels")
    assert [label.get("value") for label in control] == list(CLASSES)
    ids = [result["id"] for task in tasks for result in task["predictions"][0]["result"]]
    assert len(set(ids)) == len(ids)
    for task, wanted_HW in zip(tasks, no_labels_but(labels, 255).values(), strict=True):
        height, width = wanted_HW.shape
        label_HW = np.zeros((height, width), np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == (height, width)
            assert (result["from_name"], result["to_name"]) == (control.get("name"), control.get("toName"))
            value = result["value"]
            if shapes == "rle":
                inside_HW = decode_brush(value["rle"], height, width)
            else:
                corners = [float(number) for x, y in value["points"] for number in (x * width / 100, y * height / 100)]
                inside_HW = coco_mask.decode(coco_mask.frPyObjects([np.round(corners, 6).tolist()], height, width))[..., 0] > 0
            (name,) = value[result["type"]]
            label_HW[inside_HW] = CLASSES.index(name) + 1
        np.testing.assert_array_equal(label_HW, wanted_HW)


def test_images_that_were_packed_by_an_earlier_version(world, tmp_path, capsys):
    """Their shards have no column for the file: labels have the packed size, and it is said."""
    _, store, plan, _ = world
    old, images = RunStore(str(tmp_path / "old")), stage_named(plan, "images-weak")
    subprocess.run(["cp", "-r", f"{store.uri}/.", old.uri], check=True)
    for shard in list_shards(old, images):
        whole = table("images", read_shard(old, images, shard, "images"))
        path = shard_path(old, images, shard)
        pq.write_table(whole.drop_columns(["file", "file_height", "file_width"]), path)
    recommit(old, images)
    app(["export", "tiny", "--store", old.uri, "--out", str(tmp_path / "out"), "--format", "coco"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "note: the store does not know the size of 5 image files: they were packed by an earlier version" in said
    assert "these labels have the packed size, at most 24 pixels a side; submit the job to a new store" in said
    assert "note: the store does not know the file names of 5 images" in said
    found = json.loads((tmp_path / "out/instances.json").read_text())["images"]
    assert [one["file_name"] for one in found] == [file.rpartition(".")[0] for file in PHOTOS]
    packed = read_all(old, images, "images", columns=["height", "width"]).to_pylist()
    assert [(one["height"], one["width"]) for one in found] == [(row["height"], row["width"]) for row in packed]


def test_the_command_in_a_process_of_its_own(world, tmp_path):
    _, store, _, _ = world
    command = [sys.executable, "-m", "wsss_ray", "export", "tiny", "--store", store.uri, "--format", "coco", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    assert "5 pseudo-labels of the training images to out/instances.json" in done.stdout


def environment():
    import os

    import wsss_ray

    return os.environ | {"PYTHONPATH": str(Path(wsss_ray.__file__).parents[1])}
