"""Label maps written as files: every pixel as in the artifact, nothing outside the folder, one line for mistakes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.local import commit, job_of, recommit, run_plan, stage_named
from tests.shapes import tiny_job
from tests.told import error_line
from wsss_ray.cli import app
from wsss_ray.data.codecs import decode_gray, encode_labels
from wsss_ray.data.folder import Folder
from wsss_ray.data.images import normalise_mask
from wsss_ray.data.voc import Voc
from wsss_ray.inference.export_labels import export
from wsss_ray.inference.label_maps import find_labels, read_labels
from wsss_ray.storage.documents import RUN
from wsss_ray.storage.shards import list_shards, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

NAMES = ("square", "disc", "bar")


def begin(store, plan, name="tiny"):
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind} for stage in plan]
    store.write_json(store.run_path(name, "run.json"), {"name": name, "stages": stages})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole run."""
    store = RunStore(str(tmp_path_factory.mktemp("store")))
    plan = job_of(tiny_job(run={"store": store.uri})).plan()
    begin(store, plan)
    run_plan(store, plan)
    return store, plan


@pytest.fixture
def small(tmp_path):
    """A run whose seeds are given: two shards, a failed image, undecided pixels; and the arrays."""
    store = RunStore(str(tmp_path / "store"))
    plan = job_of(tiny_job(data={"kind": "shapes", "train": 4, "shard_size": 2})).plan()
    begin(store, plan)
    run_plan(store, plan, last="images-weak")
    seeds = stage_named(plan, "seeds")
    rng = np.random.default_rng(3)
    labels = {f"weak/{k:04d}": rng.choice(np.array([0, 1, 3, 255], np.uint8), (32, 32)) for k in range(4)}
    labels["weak/0002"][:] = 0
    rows = [{"image_id": image_id, "seed": encode_labels(label)} for image_id, label in labels.items()]
    rows[1]["seed"] = None
    del labels["weak/0001"]
    for shard in (0, 1):
        write_shard(store, seeds, shard, "seeds", rows[2 * shard : 2 * shard + 2])
    commit(store, seeds)
    return store, plan, labels


def run_json(store):
    return store.read_json(store.run_path("tiny", "run.json"), RUN)


def exported(store, out, form="voc"):
    return export(store, find_labels(store, run_json(store), "seeds"), out, form=form)


def call(*arguments):
    app(["export", "tiny", *map(str, arguments)], standalone_mode=False)


def error_of(capsys, *arguments):
    return error_line(capsys, lambda: call(*arguments))


def test_png_in_the_colours_of_voc(small, tmp_path):
    store, _, labels = small
    done = exported(store, tmp_path / "out")
    assert (done.images, done.skipped) == (3, 1)
    for image_id, label_HW in labels.items():
        with Image.open(tmp_path / "out/SegmentationClass" / f"{image_id}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), label_HW)
            palette = picture.getpalette()
    colours = {label: tuple(palette[3 * label : 3 * label + 3]) for label in (0, 1, 2, 15, 255)}
    assert colours == {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    assert (tmp_path / "out/classes.txt").read_text() == "square\ndisc\nbar\n"
    assert (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text() == "weak/0000\nweak/0002\nweak/0003\n"
    files = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    others = ["classes.txt", "cvat_labels.json", "labelmap.txt", "tags.jsonl", "train.txt"]
    assert files == ["0000.png", "0002.png", "0003.png", *others]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.8 with numpy 2
def test_coco_is_read_by_pycocotools(small, tmp_path, capsys):
    from pycocotools.coco import COCO

    store, _, labels = small
    done = exported(store, tmp_path / "out", form="coco")
    assert (done.images, done.skipped) == (3, 1)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["classes.txt", "cvat_labels.json", "instances.json", "tags.jsonl"]
    coco = COCO(str(done.path))
    assert [(one["id"], one["name"]) for one in coco.loadCats(coco.getCatIds())] == list(enumerate(NAMES, start=1))
    images = {one["file_name"]: one for one in coco.loadImgs(coco.getImgIds())}
    assert list(images) == list(labels)
    for image_id, label_HW in labels.items():
        assert (images[image_id]["height"], images[image_id]["width"]) == label_HW.shape
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=images[image_id]["id"]))
        assert [one["category_id"] for one in annotations] == [k for k in np.unique(label_HW).tolist() if k not in (0, 255)]
        for one in annotations:
            inside_HW = label_HW == one["category_id"]
            np.testing.assert_array_equal(coco.annToMask(one) > 0, inside_HW)
            assert isinstance(one["segmentation"]["counts"], str)
            assert (one["area"], one["iscrowd"]) == (inside_HW.sum(), 0)
            (rows,), (columns,) = (np.nonzero(inside_HW.any(axis=axis)) for axis in (1, 0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert one["bbox"] == box
    assert len({one["id"] for one in coco.loadAnns(coco.getAnnIds())}) == len(coco.getAnnIds())


def test_seeds_come_back_through_a_folder_of_masks(made, tmp_path):
    """Pixel for pixel, by the sources that read masks of any origin: `folder` and `voc`."""
    store, plan = made
    exported(store, tmp_path / "VOC")
    data, seeds = stage_named(plan, "images-weak"), stage_named(plan, "seeds")
    rows = [row for shard in list_shards(store, data) for row in read_shard(store, data, shard, "images")]
    lines = ["image,tags"]
    for row in rows:
        path = tmp_path / "VOC/JPEGImages" / f"{row['image_id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
        lines.append(f"{row['image_id']},{';'.join(NAMES[tag] for tag in row['tags'])}")
    (tmp_path / "tags.csv").write_text("\n".join(lines))
    masks = tmp_path / "VOC/SegmentationClass"
    folder = Folder(root=str(tmp_path / "VOC/JPEGImages"), tags=str(tmp_path / "tags.csv"), masks=str(masks), classes=NAMES)
    listed = [f"{row['image_id']} {' '.join(map(str, row['tags']))}" for row in rows]
    (tmp_path / "VOC/list.txt").write_text("\n".join(listed))
    voc = Voc(root=str(tmp_path / "VOC"), train="list.txt", val=None, masks="SegmentationClass")
    rows = [row for shard in list_shards(store, seeds) for row in read_shard(store, seeds, shard, "seeds")]
    artifact = {row["image_id"]: row["seed"] for row in rows}
    for source in (folder, voc):
        assert source.class_names() == NAMES
        found = {item.image_id: source.load(item) for item in source.items("weak")}
        assert list(found) == list(artifact)
        for image_id, raw in found.items():
            assert raw.mask == (masks / f"{image_id}.png").read_bytes()
            assert normalise_mask(raw.mask, height=32, width=32, num_labels=4) == artifact[image_id], "even the bytes"


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_predictions_of_a_model(made, tmp_path, capsys, form):
    store, plan = made
    call("--format", form, "--store", store.uri, "--out", tmp_path / "out", "--split", "val")
    said = capsys.readouterr().out
    miou = stage_named(plan, "miou")
    assert f"miou ({miou.id}): 8 predictions of the validation images to {tmp_path / 'out'}" in said
    assert "other label maps of this run: seeds, relabel; choose by --split or --stage" in said
    assert ("255" in said) == (form == "coco")
    if form == "voc":
        for row in read_shard(store, miou, 0, "scores"):
            label_HW = np.asarray(Image.open(tmp_path / "out/SegmentationClass" / f"{row['image_id']}.png"))
            np.testing.assert_array_equal(label_HW, decode_gray(row["prediction"]))


def test_the_labels_of_the_training_images_those_of_the_validation_images_or_a_stage(made, small, tmp_path, capsys):
    store, plan = made
    found = find_labels(store, run_json(store))
    assert (found.stage, found.what, found.others) == ("relabel", "pseudo-labels of the training images", ("seeds", "miou"))
    assert find_labels(store, run_json(store), part="train") == found
    assert find_labels(store, run_json(store), part="val").stage == "miou"
    assert find_labels(store, run_json(store), "relabel").id == stage_named(plan, "relabel").id
    part = small[0]
    assert find_labels(part, run_json(part)).stage == "seeds"
    pseudo = "pseudo-labels of the training images"
    there = f"seeds ({pseudo}); relabel ({pseudo}); miou (predictions of the validation images)"
    done = f"stages with label maps: {there}"
    said = error_of(capsys, "--format", "voc", "--store", store.uri, "--stage", "seed")
    assert f"stage 'seed': the run has no such stage; {done}" in said
    for name in ("seed_quality", "maps", "classifier"):
        said = error_of(capsys, "--format", "voc", "--store", store.uri, "--stage", name)
        assert f"stage {name!r}: it has no label maps; {done}" in said
    said = error_of(capsys, "--format", "voc", "--store", part.uri, "--stage", "relabel")
    assert f"stage 'relabel': it is not done; stages with label maps: seeds ({pseudo})" in said
    said = error_of(capsys, "--format", "voc", "--store", part.uri, "--split", "val")
    assert "run 'tiny' has no predictions of validation images yet; stages with label maps: seeds" in said
    said = error_of(capsys, "--format", "voc", "--store", store.uri, "--split", "val", "--stage", "seeds")
    assert "--split val: goes without --stage" in said
    for option, value, form in (("--shapes", "rle", "voc"), ("--url", "x", "coco"), ("--split", "val", "torch")):
        assert f"{option}: goes with --format" in error_of(capsys, option, value, "--format", form, "--store", store.uri)


def test_a_run_without_pseudo_labels_gives_its_predictions(trained_run, tmp_path, capsys):
    store, plan = trained_run
    call("--format", "coco", "--store", store.uri, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert f"miou ({stage_named(plan, 'miou').id}): 8 predictions of the validation images to" in said
    assert "other label maps" not in said
    said = error_of(capsys, "--format", "coco", "--store", store.uri, "--split", "train", "--out", tmp_path / "two")
    assert "run 'tiny' has no pseudo-labels of its training images yet; stages with label maps: miou" in said


def test_a_run_without_label_maps(tmp_path, capsys):
    store = RunStore(str(tmp_path / "store"))
    begin(store, job_of(tiny_job()).plan())
    said = error_of(capsys, "--format", "voc", "--store", store.uri)
    assert "has no pseudo-labels of its training images yet; stages with label maps: none yet; wait for a seed stage" in said
    with pytest.raises(SystemExit):
        app(["export", "../tiny", "--format", "voc", "--store", store.uri], standalone_mode=False)
    assert "no run '../tiny'" in capsys.readouterr().err


def test_a_folder_with_files_is_left_alone(small, tmp_path, capsys, monkeypatch):
    store, _, labels = small
    monkeypatch.chdir(tmp_path)
    call("--format", "voc", "--store", store.uri)
    said = capsys.readouterr().out
    assert "3 pseudo-labels of the training images to tiny-seeds-voc; 1 skipped, which have no label map" in said
    picture = tmp_path / "tiny-seeds-voc/SegmentationClass/weak/0003.png"
    picture.write_bytes(b"mine")
    (tmp_path / "tiny-seeds-voc/notes.txt").write_text("mine")
    assert "holds files already; give another folder by --out" in error_of(capsys, "--format", "voc", "--store", store.uri)
    assert picture.read_bytes() == b"mine"
    call("--format", "voc", "--store", store.uri, "--overwrite")
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), labels["weak/0003"])
    assert (tmp_path / "tiny-seeds-voc/notes.txt").read_text() == "mine"
    assert f"{picture}: is a file; give a folder" in error_of(capsys, "--format", "voc", "--store", store.uri, "--out", picture)


def tamper(store, plan, image_id, seed=None):
    data, seeds = stage_named(plan, "images-weak"), stage_named(plan, "seeds")
    good = encode_labels(np.zeros((32, 32), np.uint8))
    images = read_shard(store, data, 0, "images")
    images[1]["image_id"] = image_id
    write_shard(store, data, 0, "images", images)
    rows = [{"image_id": "weak/0000", "seed": good}, {"image_id": image_id, "seed": seed or good}]
    write_shard(store, seeds, 0, "seeds", rows)
    recommit(store, seeds)


@pytest.mark.parametrize(
    "image_id", ["../escaped", "a/../../escaped", "/tmp/escaped", "..", "a\\..\\b", "a\0b", "", "a//b", "./a", "a\nb", "a/"]
)
def test_an_id_never_leads_out_of_the_folder(small, tmp_path, capsys, image_id):
    store, plan, _ = small
    tamper(store, plan, image_id)
    said = error_of(capsys, "--format", "voc", "--store", store.uri, "--out", tmp_path / "deep/out")
    assert "is not a path below a folder" in said
    assert {path.name for path in tmp_path.rglob("*.png")} == {"0000.png"}
    assert not [*tmp_path.rglob(".tmp-*"), *tmp_path.rglob("*.jsonl")]
    assert not Path("/tmp/escaped.png").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_link_never_leads_out_of_the_folder(small, tmp_path, capsys):
    store, plan, _ = small
    tamper(store, plan, "link/x")
    masks = tmp_path / "out/SegmentationClass"
    for folder in (masks, tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", masks / "link")
    said = error_of(capsys, "--format", "voc", "--store", store.uri, "--out", tmp_path / "out", "--overwrite")
    assert "is a link that leads out" in said
    assert not any((tmp_path / "elsewhere").iterdir())
    (masks / "link").unlink()
    (masks / "link").mkdir()
    (tmp_path / "kept").write_bytes(b"kept")
    os.symlink(tmp_path / "kept", masks / "link/x.png")
    call("--format", "voc", "--store", store.uri, "--out", tmp_path / "out", "--overwrite")
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert not (masks / "link/x.png").is_symlink()


NO_LABELS = {
    b"none": "its label map cannot be read",
    encode_labels(np.full((32, 32), 9, np.uint8)): "not a map of labels 0 to 3",
    encode_labels(np.zeros((32, 31), np.uint8)): "its label map has 31x32 pixels, the image 32x32",
}


@pytest.mark.parametrize("seed", NO_LABELS, ids=["no image", "label 9", "another size"])
@pytest.mark.parametrize("form", ["voc", "coco", "label-studio"])
def test_what_is_no_label_map_is_one_line(small, tmp_path, capsys, seed, form):
    store, plan, _ = small
    tamper(store, plan, "weak/0001", seed)
    assert NO_LABELS[seed] in error_of(capsys, "--format", form, "--store", store.uri, "--out", tmp_path / "out")
    assert not [*(tmp_path / "out").rglob(".tmp-*"), *(tmp_path / "out").rglob("*.json")]


def test_a_stage_id_never_leads_out_of_the_store(small, capsys):
    store, _, _ = small
    begin(store, [SimpleNamespace(id="../../secrets", name="seeds", kind="seed")])
    assert "stages[0].id: is not a name" in error_of(capsys, "--format", "voc", "--store", store.uri)


def test_without_pycocotools(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    said = error_of(capsys, "--format", "coco", "--store", small[0].uri, "--out", tmp_path / "out")
    assert "pip install 'wsss-ray[coco]'" in said
    assert not (tmp_path / "out").exists()


def test_one_image_is_held_at_a_time(small):
    """Rows come as they are read: the first is there before the second shard is opened."""
    store, plan, labels = small
    path = Path(shard_path(store, stage_named(plan, "seeds"), 1))
    path.write_bytes(bytes(path.stat().st_size))
    rows = read_labels(store, find_labels(store, run_json(store), "seeds"))
    image = next(rows)
    np.testing.assert_array_equal(image.label_HW, labels[image.image_id])


def test_the_json_is_valid_with_names_of_any_script(tmp_path):
    store = RunStore(str(tmp_path / "store"))
    plan = job_of(tiny_job()).plan()
    begin(store, plan)
    data, seeds = (stage_named(plan, name) for name in ("images-weak", "seeds"))
    component = {"classes": ['猫 "cat"', "b", "c"], "source": {}}
    image = {"image_id": 'ä/"x"', "tags": [0], "height": 3, "width": 3, "image": b"", "sha256": ""}
    write_shard(store, data, 0, "images", [image | {"file": 'ä/"x".png', "file_height": 3, "file_width": 3}])
    commit(store, data, identity={"component": component | {"kind": "split"}})
    write_shard(store, seeds, 0, "seeds", [{"image_id": 'ä/"x"', "seed": encode_labels(np.eye(3, dtype=np.uint8))}])
    commit(store, seeds)
    found = json.loads(exported(store, tmp_path / "out", form="coco").path.read_text())
    assert found["images"] == [{"id": 1, "file_name": 'ä/"x".png', "height": 3, "width": 3}]
    assert found["categories"][0] == {"id": 1, "name": '猫 "cat"', "supercategory": ""}
    assert len(found["annotations"]) == 1
    assert json.loads((tmp_path / "out/tags.jsonl").read_text()) == {"image": 'ä/"x".png', "tags": ['猫 "cat"']}
    exported(store, tmp_path / "voc")
    assert (tmp_path / 'voc/SegmentationClass/ä/"x".png').is_file()
    assert (tmp_path / "voc/classes.txt").read_text("utf-8").splitlines()[0] == '猫 "cat"'
