"""COCO's JSON to tags and masks."""

from __future__ import annotations

import copy
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from tests.coco_set import (
    LABELS,
    SHAPES,
    TRAIN,
    VAL,
    H,
    W,
    annotation,
    box,
    change,
    document,
    make_set,
    mask_of,
    runs,
    text,
    write,
)
from tests.local import job_of, listing_digest, run_stage, stage_named
from tests.shapes import tiny_job
from wsss_ray.data.coco import Coco
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.source import Item, Raw, Source, describe
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore


@pytest.fixture
def root(tmp_path):
    return make_set(tmp_path)


def taken(source, split):
    return list(source.taken(split))


def test_defaults(root):
    source = Coco(root=str(root), untagged="drop")
    weak, val = taken(source, "weak"), taken(source, "val")
    assert source.class_names() == ("person", "car", "toothbrush")
    assert source.splits() == ("weak", "val")
    assert [(item.image_id, item.tags) for item in weak] == [(TRAIN(9), (0, 2)), (TRAIN(25), (1,)), (TRAIN(30), (1,))]
    assert [(item.image_id, item.tags) for item in val] == [(VAL(42), (1,)), (VAL(73), (0, 2))]
    assert weak[0].path == str(root / "train2014" / f"{TRAIN(9)}.jpg")
    assert (weak[0].mask, weak[0].size) == (None, os.path.getsize(weak[0].path))
    assert [mask_of(source, item) for item in weak] == [LABELS[9], LABELS[25], LABELS[30]]
    assert [mask_of(source, item) for item in val] == [LABELS[30], LABELS[9]]
    assert source.has_masks("weak")
    assert source.has_masks("val")
    split = describe(source, "weak")
    assert split.summary() == "3 images, 3 with masks; person 1, car 2, toothbrush 1"


def test_labels_of_cocos_own_categories(root):
    """Ids 1 to 90 with ten holes; the labels of some are those of ReCAM's table."""
    known = [k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    labels = {1: 1, 11: 11, 13: 12, 44: 40, 67: 61, 90: 80}
    shapes = {9: [(k, [box(place, 0, place + 1, H)]) for place, k in enumerate(labels)]}
    content = document(shapes, TRAIN, categories=[(k, f"category {k}") for k in known])
    write(root, "train", content)
    source = Coco(root=str(root), val_annotations=None)
    (item,) = source.items("weak")
    assert len(source.class_names()) == 80
    assert item.tags == tuple(label - 1 for label in labels.values())
    assert mask_of(source, item, labels=81) == [[*labels.values(), 0, 0]] * H


def test_crowds_are_left_out_or_ignored_under_the_objects(root):
    source = Coco(root=str(root), crowd="ignore", untagged="drop")
    want = np.array(LABELS[25])
    want[:2][want[:2] == 0] = 255
    assert mask_of(source, source.items("weak")[1]) == want.tolist()
    change(root, lambda content: annotation(content, 2500).update(iscrowd=1))
    assert [item.image_id for item in taken(source, "weak")] == [TRAIN(9), TRAIN(30)]


@pytest.mark.parametrize(
    "lines",
    [
        [TRAIN(30), TRAIN(34), TRAIN(9)],
        [f"{TRAIN(30)} 1", "# the rest", f"{TRAIN(9)} 0 2"],
        ["30", "34", "9"],
        ["000000000030", "9 0 2"],
        [f"/train2014/{TRAIN(30)}.jpg", f"train2014/{TRAIN(9)}"],
    ],
)
def test_list_styles(root, lines):
    (root / "own.txt").write_text("\n".join(lines) + "\n")
    for given in ("own.txt", str(root / "own.txt")):
        items = taken(Coco(root=str(root), train=given, untagged="drop"), "weak")
        assert [(item.image_id, item.tags) for item in items] == [(TRAIN(30), (1,)), (TRAIN(9), (0, 2))]


def test_val_and_strong_lists(root):
    (root / "val.txt").write_text(VAL(73))
    (root / "strong.txt").write_text("25\n")
    source = Coco(root=str(root), val="val.txt", strong="strong.txt")
    assert source.splits() == ("weak", "val", "strong")
    assert [item.image_id for item in source.items("val")] == [VAL(73)]
    (item,) = source.items("strong")
    assert item == source.items("weak")[1]
    assert mask_of(source, item) == LABELS[25]


def test_ready_masks(root):
    folder = root / "SegmentationClass" / "train2014"
    folder.mkdir(parents=True)
    for k in (9, 25, 30):
        Image.new("L", (W, H), 3).save(folder / f"{TRAIN(k)}.png")
    source = Coco(root=str(root), train_masks="SegmentationClass/train2014", val_masks=str(root / "val_masks"))
    item = source.items("weak")[0]
    assert (item.mask, item.annotation) == (str(folder / f"{TRAIN(9)}.png"), None)
    assert item.size == os.path.getsize(item.path) + os.path.getsize(item.mask)
    image, mask = root / "train2014" / f"{TRAIN(9)}.jpg", folder / f"{TRAIN(9)}.png"
    assert source.load(item) == Raw(image.read_bytes(), mask.read_bytes())
    with pytest.raises(ValueError, match=rf"data\.val_masks: .*{VAL(42)}\.png is missing \(.*val2014\.json: image 42\); .* null"):
        source.items("val")


def test_saliency_follows_the_weak_images(root):
    (root / "maps").mkdir()
    for k in (9, 25, 30):
        Image.new("L", (W, H), k).save(root / "maps" / f"{TRAIN(k)}.png")
    source = Coco(root=str(root), val_annotations=None, saliency="maps", untagged="drop")
    items = source.items("saliency")
    assert source.splits() == ("weak", "saliency")
    assert [item.path for item in items] == [str(root / "maps" / f"{TRAIN(k)}.png") for k in (9, 25, 30)]
    assert source.load(items[0]) == Raw((root / "maps" / f"{TRAIN(9)}.png").read_bytes())
    os.remove(items[1].path)
    with pytest.raises(ValueError, match=rf"data\.saliency: .*{TRAIN(25)}\.png is missing"):
        source.items("saliency")


def test_ingest(root, tmp_path):
    change(root, lambda content: annotation(content, 2500)["segmentation"].append([1, 2, 3, 4]))
    data = {"kind": "coco", "root": str(root), "shard_size": 2, "saliency": None, "untagged": "drop"}
    plan, store = job_of(tiny_job(data=data)).plan(), RunStore(str(tmp_path / "runs"))
    found = {}
    for name in ("images-weak", "images-val"):
        stage = stage_named(plan, name)
        run_stage(store, stage)
        for row in read_all(store, stage, "images").to_pylist():
            mask = row["mask"] and decode_gray(row["mask"]).tolist()
            found[row["image_id"]] = (row["tags"], mask, row["height"], row["width"])
    assert found == {
        TRAIN(9): ([0, 2], LABELS[9], H, W),
        TRAIN(25): ([1], None, H, W),
        TRAIN(30): ([1], LABELS[30], H, W),
        VAL(42): ([1], LABELS[30], H, W),
        VAL(73): ([0, 2], LABELS[9], H, W),
    }
    assert_without_mask(store, stage_named(plan, "images-weak"), "annotation 2500: polygon 3 has 4 numbers; expected x and y")


def assert_without_mask(store, stage, reason):
    """One image of the stage has tags and no mask, for this reason."""
    assert (store.record(stage)["counts"]["errors"], store.record(stage)["counts"]["without_mask"]) == (0, 1)
    (note,) = read_all(store, stage, "errors", folder="notes").to_pylist()
    assert note["path"] is None
    assert note["reason"].startswith(reason)
    (row,) = (row for row in read_all(store, stage, "images").to_pylist() if row["mask"] is None)
    assert (row["image_id"], len(row["tags"]) > 0) == (note["image_id"], True)


def test_annotations_of_another_size_than_their_image(root, tmp_path):
    change(root, lambda content: next(one for one in content["images"] if one["id"] == 9).update(width=W + 1))
    data = {"kind": "coco", "root": str(root), "val_annotations": None}
    stage, store = job_of(tiny_job(data=data)).plan().stages[0], RunStore(str(tmp_path / "runs"))
    run_stage(store, stage)
    assert_without_mask(store, stage, f"the mask is {W + 1}x{H}, its image {W}x{H} (width x height); save it in the size of")
    source = Coco(root=str(root), max_pixels=50)
    assert source.load(source.items("weak")[0]).no_mask == "9x6 is more than 50 pixels; raise data.max_pixels to take it"


EDITS = {
    "polygon": lambda content: annotation(content, 900)["segmentation"][0].__setitem__(2, 5),
    "a second polygon": lambda content: annotation(content, 900)["segmentation"].append(box(7, 5, 8, 6)),
    "run": lambda content: annotation(content, 2501).update(segmentation=runs((0, 0, 8, 3))),
    "text": lambda content: annotation(content, 3000).update(segmentation=text((1, 1, 3, 5), (5, 0, 7, 6))),
    "crowd": lambda content: annotation(content, 2501).update(iscrowd=0),
    "category": lambda content: annotation(content, 2501).update(category_id=90),
    "order": lambda content: content["annotations"].reverse(),
    "size": lambda content: content["images"][0].update(height=H + 1) or content["images"][-1].update(height=H + 1),
}


@pytest.mark.parametrize("name", EDITS)
def test_identity_is_the_shapes_too(root, name):
    source = Coco(root=str(root))
    first = describe(source, "weak")
    tags = [(item.image_id, item.tags, item.size) for item in source.items("weak")]
    change(root, EDITS[name])
    assert [(item.image_id, item.tags, item.size) for item in source.items("weak")] == tags
    assert describe(source, "weak").identity() != first.identity()


def test_identity_is_neither_the_place_nor_the_spelling(root, tmp_path):
    first = describe(Coco(root=str(root)), "weak").identity()
    assert describe(Coco(root=str(root), crowd="ignore"), "weak").identity() != first
    moved = tmp_path / "moved"
    root.rename(moved)
    assert describe(Coco(root=str(moved)), "weak").identity() == first

    def respell(content):
        del content["info"], content["licenses"]
        content["categories"].reverse()
        content["images"].sort(key=lambda image: image["id"])
        for one in content["annotations"]:
            one["area"], one["id"] = 1.5, one["id"] + 5
            if isinstance(one["segmentation"], list):
                one["segmentation"] = [[float(value) for value in polygon] for polygon in one["segmentation"]]

    content = document(copy.deepcopy(SHAPES), TRAIN)
    respell(content)
    write(moved, "train", "\ufeff" + json.dumps(dict(reversed(content.items())), indent=1))
    source = Coco(root=str(moved))
    assert describe(source, "weak").identity() == first
    assert mask_of(source, source.items("weak")[0]) == LABELS[9], "annotations are found behind a byte order mark"


def test_other_sources_keep_their_listing_digests():
    items = [Item("a", (0, 2), "a.jpg", "a.png", 7), Item("b", ())]
    assert listing_digest(items) == "d1719867d7b5092ad76e4c0edf67674339790dd106de518bdd5cb623a3fd7be3"
    assert listing_digest([items[0], Item("b", (), annotation="x")]) != listing_digest(items)


def test_a_mask_that_changed_after_the_plan_is_refused(root):
    source = Coco(root=str(root))
    items = source.items("weak")
    change(root, EDITS["polygon"])
    with pytest.raises(ValueError, match="other annotations of this image: they changed; submit again"):
        source.load(items[0])
    assert mask_of(source, items[1]) == LABELS[25], "those of other images are the same"


def test_train_and_val_in_one_folder_with_one_name(root):
    """Same folder, same names, other annotations: each split has its own masks."""
    content = document({9: SHAPES[30]}, TRAIN)
    content["images"][0]["file_name"] = f"{TRAIN(9)}.jpg"
    write(root, "val", content)
    source = Coco(root=str(root), val_images="train2014")
    assert mask_of(source, source.items("weak")[0]) == LABELS[9]
    assert mask_of(source, source.items("val")[0]) == LABELS[30]


def test_names_in_any_alphabet_and_folders(root):
    names = {9: "Straße/Mädchen 1.v2", 25: "猫", 30: "🐈", 34: "x", 36: "y"}
    content = document(SHAPES, names.__getitem__)
    for category in content["categories"]:
        category["name"] += " à"
    write(root, "train", json.dumps(content, ensure_ascii=False))
    (root / "train2014" / "Straße").mkdir()
    for k, name in names.items():
        (root / "train2014" / f"{TRAIN(k)}.jpg").rename(root / "train2014" / f"{name}.jpg")
    (root / "own.txt").write_text(f"猫 1\n{names[9]}\n30\n", encoding="utf-8")
    source = Coco(root=str(root), train="own.txt", val_annotations=None)
    items = source.items("weak")
    assert [item.image_id for item in items] == ["猫", names[9], "🐈"]
    assert [mask_of(source, item) for item in items] == [LABELS[25], LABELS[9], LABELS[30]]
    assert source.class_names() == ("person à", "car à", "toothbrush à")


def test_what_is_missing_is_named(root, monkeypatch):
    (root / "own.txt").write_text(f"{TRAIN(9)}\n{TRAIN(11)} 4\n")
    with pytest.raises(ValueError, match=rf"own\.txt:2: image '{TRAIN(11)}' is not in .*train2014\.json; expected a file's name"):
        Coco(root=str(root), train="own.txt").items("weak")
    with pytest.raises(ValueError, match=r"^data\.strong: cannot read .*none\.txt"):
        Coco(root=str(root), strong="none.txt").items("strong")
    with pytest.raises(ValueError, match=r"^data\.strong: is null; set it to a file"):
        Coco(root=str(root)).items("strong")
    with pytest.raises(ValueError, match=r"^data\.val_annotations: is null; set it to a file"):
        Coco(root=str(root), val_annotations=None).items("val")
    with pytest.raises(ValueError, match=r"^data\.val_annotations: cannot read .*none\.json: No such file"):
        Coco(root=str(root), val_annotations="none.json").items("val")
    with pytest.raises(ValueError, match=r"^data\.root: .*nowhere is not a folder"):
        Coco(root=str(root / "nowhere")).items("weak")
    with pytest.raises(ValueError, match=r"val_masks is set but val_annotations is null"):
        Coco(root=str(root), val_annotations=None, val_masks="masks")
    with pytest.raises(ValueError, match=r"val is set but val_annotations is null"):
        Coco(root=str(root), val_annotations=None, val="val.txt")
    os.remove(root / "train2014" / f"{TRAIN(25)}.jpg")
    with pytest.raises(ValueError, match=rf"^data\.train_images: .*{TRAIN(25)}\.jpg is missing \(.*train2014\.json: image 25\)"):
        Coco(root=str(root)).items("weak")
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(ValueError, match=r"drawing masks needs pycocotools; run `pip install 'wsss-ray\[coco\]'`"):
        Coco(root=str(root)).items("val")


def test_from_a_job_file(root):
    assert Source.model_validate({"kind": "coco", "root": str(root)}) == Coco(root=str(root))
