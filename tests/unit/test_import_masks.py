"""Corrected label maps come back as masks: in the forms that CVAT, FiftyOne and Label Studio export, and are trained on."""

from __future__ import annotations

import copy
import json
import shutil
from itertools import groupby

import numpy as np
import pytest
from PIL import Image

from tests.labelled import CLASSES, PHOTOS, make_labelled
from tests.local import job_of, run_plan, stage_named
from tests.photos import call
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.data.brush_rle import decode_brush, encode_brush
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.tags import numbered_lines
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

STEMS = {file: file.rpartition(".")[0] for file in PHOTOS}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of the photographs, the label maps by file, and what was exported, by form and shapes."""
    folder, store, _, labels = make_labelled(tmp_path_factory.mktemp("world"))
    out = {}
    forms = ["voc", *(f"{form} {shapes}" for form in ("coco", "label-studio") for shapes in ("rle", "polygons"))]
    for form, shapes in ((*form.split(), None)[:2] for form in forms):
        out[form, shapes] = folder / f"{form}-{shapes}"
        options = ["--format", form, "--out", str(out[form, shapes]), *(["--shapes", shapes] if shapes else [])]
        app(["export", "tiny", "--store", store.uri, *options], standalone_mode=False)
    return folder, labels, out


def bring(labels, like, out):
    return call("import-masks", labels, "--like", like, "--out", out)


def refused(labels, like, out):
    said = call("import-masks", labels, "--like", like, "--out", out, code=2)
    assert said.count("\n") == 1, said
    return said


def check(out, labels, *, undecided=False):
    """The masks are the label maps; a form without undecided pixels has background there."""
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {f"{STEMS[file]}.png" for file in labels}
    for file, label_HW in labels.items():
        wanted_HW = label_HW if undecided else np.where(label_HW == 255, 0, label_HW)
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"{STEMS[file]}.png")), wanted_HW)
    assert [text for _, text in numbered_lines(out / "list.txt", "strong")] == [STEMS[file] for file in labels]


def recoloured(folder, out):
    """What CVAT exports: RGB in colours of its own, a labelmap, masks of instances beside."""
    shutil.copytree(folder, out)
    rows = [line.split(":") for line in (folder / "labelmap.txt").read_text().splitlines()[1:]]
    old = np.array([[int(value) for value in row[1].split(",")] for row in rows])
    new = np.array([(0, 0, 0), (250, 50, 83), (0, 128, 0), (128, 0, 0), (1, 2, 3), (51, 221, 255)])
    rows[3][0] = "x:y"  # as CVAT writes it if its label is called so
    lines = [f"{row[0]}:{','.join(map(str, colour))}::" for row, colour in zip(rows, new, strict=True)]
    (out / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    for path in (out / "SegmentationClass").rglob("*.png"):
        rgb_HWC = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(new[(rgb_HWC[:, :, None] == old).all(-1).argmax(-1)].astype(np.uint8)).save(path)
    return out


def test_masks_of_cvat_by_the_names_of_their_colours(world, tmp_path):
    _, labels, out = world
    said = bring(recoloured(out["voc", None], tmp_path / "cvat"), out["voc", None], tmp_path / "masks")
    assert "5 masks to" in said
    check(tmp_path / "masks", {file: labels[file] for file in sorted(labels, key=STEMS.get)}, undecided=True)


def as_cvat_writes_coco(document):
    """Brushed masks are crowds there, with counts as numbers, and categories have an order of their own."""
    found = copy.deepcopy(document)
    swap = {1: 3, 2: 1, 3: 2, 4: 4}
    for category in found["categories"]:
        category["id"] = swap[category["id"]]
    from pycocotools import mask as coco_mask

    for one in found["annotations"]:
        one["category_id"] = swap[one["category_id"]]
        if isinstance(one["segmentation"], dict):
            inside_HW = coco_mask.decode([one["segmentation"]])[..., 0]
            counts = [0] if inside_HW.T.flat[0] else []
            one["segmentation"]["counts"] = counts + [len([*some]) for _, some in groupby(inside_HW.T.ravel().tolist())]
            one["iscrowd"] = 1
    return found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_coco_by_the_names_of_its_categories(world, tmp_path, shapes):
    _, labels, out = world
    document = as_cvat_writes_coco(json.loads((out["coco", shapes] / "instances.json").read_text()))
    (tmp_path / "corrected.json").write_text(json.dumps(document))
    assert "5 masks to" in bring(tmp_path / "corrected.json", out["coco", shapes], tmp_path / "masks")
    check(tmp_path / "masks", labels)


def annotated(tasks, *, kept=5):
    """What Label Studio exports: the last of several annotations counts; tasks that nobody has looked at have none."""
    found = copy.deepcopy(tasks)
    for place, task in enumerate(found):
        result = task.pop("predictions")[0]["result"]
        wrong = {"result": [], "was_cancelled": True}
        task["annotations"] = [{"result": []}, {"result": result}, wrong] if place < kept else []
        task["predictions"] = [{"result": result[:1]}]
    return found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_what_was_annotated_in_label_studio(world, tmp_path, shapes):
    _, labels, out = world
    tasks = annotated(json.loads((out["label-studio", shapes] / "tasks.json").read_text()), kept=3)
    tasks[0]["data"]["image"] = "s3://bucket/photos/holiday%202019/Foto%2000074.JPG"
    tasks[1]["data"]["image"] = "/data/upload/7/0123abcd-dog%20%231.jpeg"
    (tmp_path / "project.json").write_text("\ufeff" + json.dumps(tasks))
    said = bring(tmp_path / "project.json", out["label-studio", shapes], tmp_path / "masks")
    assert f"3 masks to {tmp_path / 'masks'}; 2 images of {out['label-studio', shapes]} without one" in said
    check(tmp_path / "masks", {file: labels[file] for file in [*PHOTOS][:3]})


def test_an_annotation_without_shapes_is_background(world, tmp_path):
    _, labels, out = world
    tasks = annotated(json.loads((out["label-studio", "rle"] / "tasks.json").read_text()), kept=1)
    tasks[0]["annotations"] = [{"result": []}]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    bring(tmp_path / "project.json", out["label-studio", "rle"], tmp_path / "masks")
    check(tmp_path / "masks", {file: np.zeros_like(labels[file]) for file in [*PHOTOS][:1]})
    del tasks[0]["data"]["height"]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    said = refused(tmp_path / "project.json", out["label-studio", "rle"], tmp_path / "two")
    assert "task [0]: has no shape, so that its size is not known; draw one, or leave the task out" in said


def test_corrected_masks_are_strong(world, tmp_path, monkeypatch):
    """A list of what came back is `data.strong` of VOC; ingest packs the masks as they were corrected."""
    folder, labels, out = world
    monkeypatch.chdir(tmp_path)
    bring(out["voc", None], out["voc", None], tmp_path / "set/masks")
    shutil.copytree(folder / "photos", tmp_path / "set/JPEGImages")
    plain = "plain"
    Image.open(tmp_path / "set/JPEGImages/plain.webp").convert("RGB").save(tmp_path / "set/JPEGImages/plain.png")
    (tmp_path / "set/list.txt").write_text(f"{plain} 2\n")
    (tmp_path / "set/strong.txt").write_text(f"{plain} 2\n")
    shutil.copy(tmp_path / "set/masks/classes.txt", tmp_path / "set/classes.txt")
    data = {"kind": "voc", "root": "set", "train": "list.txt", "val": None, "masks": "masks", "strong": "strong.txt"}
    job = job_of(tiny_job(data=data))
    assert job.data.class_names() == CLASSES
    store = RunStore(str(tmp_path / "runs"))
    strong = [item.image_id for item in job.data.items("strong")]
    assert strong == [plain]
    plan = job.plan()
    run_plan(store, plan, last="images-weak")
    (row,) = read_all(store, stage_named(plan, "images-weak"), "images").to_pylist()
    np.testing.assert_array_equal(decode_gray(row["mask"]), labels["plain.webp"])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d["categories"][0].update(name="cat"), "unknown class 'cat'; allowed: C#, big dog, x:y, #1, background, ign"),
        (lambda d: d["images"][0].update(file_name="sea/Foto 00074.JPG"), "'sea/Foto 00074.JPG' is not one of the 5 images"),
        (lambda d: d["images"][0].update(file_name="my/plain.webp"), "are both the image 'plain'; remove one"),
        (lambda d: d["annotations"][0]["segmentation"].update(counts=[5]), "annotation 1: its run lengths are not whole numbers"),
    ],
    ids=["class", "image", "twice", "runs"],
)
def test_mistakes_in_a_json_are_one_line(world, tmp_path, edit, said):
    _, _, out = world
    document = json.loads((out["coco", "rle"] / "instances.json").read_text())
    edit(document)
    (tmp_path / "corrected.json").write_text(json.dumps(document))
    assert said in refused(tmp_path / "corrected.json", out["coco", "rle"], tmp_path / "masks")


def test_other_mistakes_are_one_line(world, tmp_path):
    _, _, out = world
    like = out["voc", None]
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"")
    assert "holds no labelmap.txt, which says what colours mean" in refused(tmp_path / "empty", like, tmp_path / "masks")
    assert "is neither a .json file nor a folder; unpack a .zip" in refused(tmp_path / "a.zip", like, tmp_path / "masks")
    assert "tags.jsonl cannot be read: No such file" in refused(like, out["voc", None] / "SegmentationClass", tmp_path / "masks")
    tasks = json.loads((out["label-studio", "rle"] / "tasks.json").read_text())
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    assert "tasks.json: holds no corrected image" in refused(tmp_path / "tasks.json", like, tmp_path / "masks")
    (tmp_path / "min.json").write_text(json.dumps([{"image": "x", "label": []}]))
    assert "export the project as JSON (not JSON-MIN)" in refused(tmp_path / "min.json", like, tmp_path / "masks")
    found = annotated(tasks)
    found[0]["annotations"][1]["result"][0]["value"]["rle"][5] = 300
    (tmp_path / "rle.json").write_text(json.dumps(found))
    said = refused(tmp_path / "rle.json", like, tmp_path / "masks")
    assert "a shape of type brushlabels cannot be read: its rle is not a list of bytes" in said
    cvat = shutil.copytree(like, tmp_path / "cvat")
    (cvat / "labelmap.txt").write_text("background:0,0,0::\nC#:red::")
    assert "labelmap.txt:2: 'C#:red::' is not understood" in refused(cvat, like, tmp_path / "masks")
    (cvat / "labelmap.txt").write_text("background:0,0,0::\nC#:128,0,0::")
    assert "which labelmap.txt does not name; export both again" in refused(cvat, like, tmp_path / "masks")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    assert "holds files already" in refused(like, like, tmp_path / "full")


@pytest.mark.parametrize("size", [(1, 1), (3, 70000), (5, 6)])
def test_brush_strokes_come_back(size):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        inside_HW = rng.random(size) < share
        np.testing.assert_array_equal(decode_brush(encode_brush(inside_HW), *size), inside_HW)


def test_a_stroke_of_single_values_is_read():
    """Label Studio's editor writes chunks of single values too: here two pixels, the second inside."""
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{7:03b}" + "00000000" * 4 + "11111111" * 4
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    assert decode_brush(rle, 1, 2).tolist() == [[False, True]]
    for cut, said in ((10, "ends in the middle"), (3, "ends in the middle")):
        with pytest.raises(ValueError, match=said):
            decode_brush(rle[:cut], 1, 2)
    with pytest.raises(ValueError, match="has 8 values; expected 4 for each of 3x1 pixels"):
        decode_brush(rle, 1, 3)
