"""COCO's JSON to tags and masks, on a small set whose masks are known by hand."""

from __future__ import annotations

import copy
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.local import job_of, run_stage, stage_named
from tests.shapes import tiny_job
from wsss_ray.artifacts import decode_gray
from wsss_ray.data.coco import Coco
from wsss_ray.data.coco_json import read_instances
from wsss_ray.data.coco_masks import draw_labels
from wsss_ray.data.images import normalise_mask
from wsss_ray.data.source import Item, Raw, Source, describe, listing_digest
from wsss_ray.store import RunStore

H, W = 6, 8
CATEGORIES = [(90, "toothbrush"), (1, "person"), (3, "car")]  # not in order, and with holes
TRAIN, VAL = ("COCO_train2014_{:012d}".format, "COCO_val2014_{:012d}".format)


def box(x0, y0, x1, y1):
    """The polygon round the pixels x0..x1-1, y0..y1-1."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs(*boxes):
    """Uncompressed run lengths of boxes, down the columns, counted one pixel after the other."""
    inside = np.zeros((H, W), bool)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    counts, state = [0], False
    for pixel in inside.T.ravel().tolist():
        if pixel != state:
            counts.append(0)
            state = pixel
        counts[-1] += 1
    return {"size": [H, W], "counts": counts}


def text(*boxes):
    """The same as COCO's text, by pycocotools."""
    inside = np.zeros((H, W), np.uint8, order="F")
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = 1
    return {"size": [H, W], "counts": coco_mask.encode(inside)["counts"].decode()}


SHAPES = {  # image -> annotations, the later over the earlier
    9: [(1, [box(0, 0, 4, 4)]), (90, [box(2, 2, 6, 6)])],
    25: [(3, [box(0, 0, 2, 1), box(1, 0, 3, 2), [5.0, 3.0, 8.0, 3.0, 8.0, 6.0, 5.0, 6.0]]), (1, runs((0, 0, 8, 2)), "crowd")],
    30: [(3, text((1, 1, 3, 5), (6, 0, 8, 6)))],
    34: [],
    36: [(1, runs((0, 0, 1, 1)), "crowd")],
}
LABELS = {
    9: [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 3, 3, 3, 3, 0, 0]] * 2 + [[0, 0, 3, 3, 3, 3, 0, 0]] * 2,
    25: [[2, 2, 2, 0, 0, 0, 0, 0], [0, 2, 2, 0, 0, 0, 0, 0], [0] * 8] + [[0, 0, 0, 0, 0, 2, 2, 2]] * 3,
    30: [[0, 0, 0, 0, 0, 0, 2, 2]] + [[0, 2, 2, 0, 0, 0, 2, 2]] * 4 + [[0, 0, 0, 0, 0, 0, 2, 2]],
}


def document(shapes, name):
    """A file of annotations, the images not in the order of their ids."""
    images = [{"id": k, "file_name": f"{name(k)}.jpg", "height": H, "width": W, "license": 1} for k in reversed(shapes)]
    annotations = [
        {"id": 100 * k + place, "image_id": k, "category_id": one[0], "segmentation": one[1], "iscrowd": int(len(one) > 2)}
        for place in range(3)
        for k in shapes
        for one in shapes[k][place : place + 1]
    ]
    categories = [{"id": k, "name": category, "supercategory": "any"} for k, category in CATEGORIES]
    return {"info": {"a": [{}, "]"]}, "images": images, "annotations": annotations, "licenses": [], "categories": categories}


def write(root, split, content):
    path = root / "annotations" / f"instances_{split}2014.json"
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))  # a clock tick may be longer than a test
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "coco2014"
    for split, name, shapes in (("train", TRAIN, SHAPES), ("val", VAL, {42: SHAPES[30], 73: SHAPES[9], 74: []})):
        (root / f"{split}2014").mkdir(parents=True)
        write(root, split, document(shapes, name))
        for k in shapes:
            Image.new("RGB", (W, H), (k, 0, 0)).save(root / f"{split}2014" / f"{name(k)}.jpg")
    return root


def change(root, edit, split="train"):
    """Edit the annotations by a function of the document."""
    content = document(copy.deepcopy(SHAPES), TRAIN)
    edit(content)
    return write(root, split, content)


def annotation(content, number):
    return next(one for one in content["annotations"] if one["id"] == number)


def mask_of(source, item):
    raw = source.load(item)
    return decode_gray(normalise_mask(raw.mask, height=H, width=W, num_labels=4)).tolist()


def test_defaults(root):
    source = Coco(root=str(root))
    weak, val = source.items("weak"), source.items("val")
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


def test_crowds_are_left_out_or_ignored_under_the_objects(root):
    source = Coco(root=str(root), crowd="ignore")
    want = np.array(LABELS[25])
    want[:2][want[:2] == 0] = 255
    assert mask_of(source, source.items("weak")[1]) == want.tolist()
    change(root, lambda content: annotation(content, 2500).update(iscrowd=1))
    assert [item.image_id for item in source.items("weak")] == [TRAIN(9), TRAIN(30)]


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
        items = Coco(root=str(root), train=given).items("weak")
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
    assert source.load(item) == Raw((root / "train2014" / f"{TRAIN(9)}.jpg").read_bytes(), (folder / f"{TRAIN(9)}.png").read_bytes())
    with pytest.raises(ValueError, match=rf"data\.val_masks: .*{VAL(42)}\.png is missing \(.*val2014\.json: image 42\); .* null"):
        source.items("val")


def test_saliency_follows_the_weak_images(root):
    (root / "maps").mkdir()
    for k in (9, 25, 30):
        Image.new("L", (W, H), k).save(root / "maps" / f"{TRAIN(k)}.png")
    source = Coco(root=str(root), val_annotations=None, saliency="maps")
    items = source.items("saliency")
    assert source.splits() == ("weak", "saliency")
    assert [item.path for item in items] == [str(root / "maps" / f"{TRAIN(k)}.png") for k in (9, 25, 30)]
    assert source.load(items[0]) == Raw((root / "maps" / f"{TRAIN(9)}.png").read_bytes())
    os.remove(items[1].path)
    with pytest.raises(ValueError, match=rf"data\.saliency: .*{TRAIN(25)}\.png is missing"):
        source.items("saliency")


def test_ingest(root, tmp_path):
    change(root, lambda content: annotation(content, 2500)["segmentation"].append([1, 2, 3, 4]))
    data = {"kind": "coco", "root": str(root), "shard_size": 2, "saliency": None}
    plan, store = job_of(tiny_job(data=data)).plan(), RunStore(str(tmp_path / "runs"))
    found = {}
    for name in ("images-weak", "images-val"):
        stage = stage_named(plan, name)
        run_stage(store, stage)
        for row in store.read_shards(stage, "images").to_pylist():
            found[row["image_id"]] = (row["tags"], decode_gray(row["mask"]).tolist(), row["height"], row["width"])
    assert found == {
        TRAIN(9): ([0, 2], LABELS[9], H, W),
        TRAIN(30): ([1], LABELS[30], H, W),
        VAL(42): ([1], LABELS[30], H, W),
        VAL(73): ([0, 2], LABELS[9], H, W),
    }
    (error,) = store.read_shards(stage_named(plan, "images-weak"), "errors", folder="errors").to_pylist()
    assert error["image_id"] == TRAIN(25)
    assert error["path"] == str(root / "train2014" / f"{TRAIN(25)}.jpg")
    assert error["reason"] == "annotation 2500: polygon 3 has 4 numbers; expected x and y of three points or more"


def test_annotations_of_another_size_than_their_image(root, tmp_path):
    change(root, lambda content: next(one for one in content["images"] if one["id"] == 9).update(width=W + 1))
    data = {"kind": "coco", "root": str(root), "val_annotations": None}
    stage, store = job_of(tiny_job(data=data)).plan().stages[0], RunStore(str(tmp_path / "runs"))
    run_stage(store, stage)
    (error,) = store.read_shards(stage, "errors", folder="errors").to_pylist()
    assert error["reason"] == f"the mask is {W + 1}x{H}, its image {W}x{H} (width x height)"
    source = Coco(root=str(root), max_pixels=50)
    with pytest.raises(ValueError, match=r"^9x6 is more than 50 pixels; raise data\.max_pixels"):
        source.load(source.items("weak")[0])


EDITS = {
    "polygon": lambda content: annotation(content, 900)["segmentation"][0].__setitem__(2, 5),
    "a second polygon": lambda content: annotation(content, 900)["segmentation"].append(box(7, 5, 8, 6)),
    "run": lambda content: annotation(content, 2501).update(segmentation=runs((0, 0, 8, 3))),
    "text": lambda content: annotation(content, 3000).update(segmentation=text((1, 1, 3, 5), (5, 0, 7, 6))),
    "crowd": lambda content: annotation(content, 2501).update(iscrowd=0, category_id=3),
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


def test_a_file_is_parsed_once_while_it_stays_the_same(root):
    path = root / "annotations" / "instances_train2014.json"
    first = read_instances(path, "train_annotations")
    assert read_instances(path, "val_annotations") is first
    change(root, EDITS["polygon"])
    assert read_instances(path, "train_annotations") is not first


def test_polygons_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        polygons = [(rng.random(2 * rng.integers(3, 9)) * 80 - 10).tolist() for _ in range(rng.integers(1, 4))]
        polygons = [[min(max(value, -max(height, width)), 2 * max(height, width)) for value in one] for one in polygons]
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        found = draw(polygons, height, width)
        assert found.sum() == coco_mask.area(merged)
        assert coco_mask.encode(np.asfortranarray(found)) == merged


def test_run_lengths_of_pycocotools():
    rng = np.random.default_rng(1)
    for share in (0, 0.01, 0.5, 0.99, 1):
        inside = np.asfortranarray((rng.random((70, 90)) < share).astype(np.uint8))
        inside[20:50, 30:80] = 1
        shape = coco_mask.encode(inside)
        np.testing.assert_array_equal(draw(shape | {"counts": shape["counts"].decode()}, 70, 90), inside)


def draw(shape, height=H, width=W):
    annotations = [{"id": 7, "category_id": 3, "segmentation": shape}]
    return draw_labels(annotations, height=height, width=width, labels={3: 1}, crowd="background")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([], "it has no polygon"),
        ([[1, 2, 3, 4]], "polygon 0 has 4 numbers; expected x and y of three points or more"),
        ([box(0, 0, 1, 1), [1, 2, 3, 4, 5, 6, 7]], "polygon 1 has 7 numbers"),
        ([1, 2, 3, 4, 5, 6], "polygon 0 is no list of numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "polygon 0 is no list of numbers"),
        ([[1, 2, 3, 4, 5, None]], "polygon 0 is no list of numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "polygon 0 goes far beyond the image, which is 8x6"),
        ([[1, 2, 3, 4, 5, 1e9]], "polygon 0 goes far beyond the image, which is 8x6"),
        (None, "its segmentation is neither polygons nor run lengths"),
        ({"size": [H, W]}, "its segmentation is neither polygons nor run lengths"),
        ({"size": [W, H], "counts": [48]}, r"its run lengths are for the size \[8, 6\], expected \[6, 8\] \(height, width\)"),
        ({"counts": [48]}, "its run lengths are for the size None"),
        ({"size": [H, W], "counts": [3, 4]}, r"its run lengths are not whole numbers that add up to 6 \* 8 pixels"),
        ({"size": [H, W], "counts": [50, -2]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": [47.0, 1]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": [10**30]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": []}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": ""}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": "0\x00"}, "its run lengths are no text of COCO's"),
        ({"size": [H, W], "counts": "ä"}, "its run lengths are no text of COCO's"),
        ({"size": [H, W], "counts": "P" * 99}, "its run lengths are no text of COCO's"),
        ({"size": [H, W], "counts": "P"}, "its run lengths end in the middle of a number"),
    ],
)
def test_bad_shapes_are_their_images_matter(root, shape, message):
    with pytest.raises(ValueError, match=f"^annotation 7: {message}"):
        draw(shape)
    change(root, lambda content: annotation(content, 2500).update(segmentation=shape))
    source = Coco(root=str(root))
    items = source.items("weak")
    assert mask_of(source, items[0]) == LABELS[9]
    with pytest.raises(ValueError, match=f"^annotation 2500: {message}"):
        source.load(items[1])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("annotations"), "there is no 'annotations'; expected images, annotations, categories"),
        (lambda c: c.update(images={}), r"no JSON: Expecting \["),
        (lambda c: c["images"].insert(1, 3), r"images\[1\] is 3; expected an object"),
        (lambda c: c["images"][0].pop("id"), r"images\[0\] has no 'id'"),
        (lambda c: c["images"][2].pop("file_name"), r"images\[2\] has no 'file_name'"),
        (lambda c: c["images"][2].update(file_name=" "), r"images\[2\]\.file_name is ' '; expected a name"),
        (lambda c: c["images"][2].update(height="6"), r"images\[2\]\.height is '6'; expected a whole number from 1"),
        (lambda c: c["images"][2].update(width=0), r"images\[2\]\.width is 0; expected a whole number from 1"),
        (lambda c: c["images"][2].update(id=36), r"images\[2\]: the id 36 is there twice"),
        (lambda c: c["images"][2].update(file_name=TRAIN(9) + ".png"), r"images 9 and 30 are both called 'COCO_train2014_0*9'"),
        (lambda c: c["images"].pop(), r"annotations\[0\]\.image_id is 9, which is none of the 4 images"),
        (lambda c: c["annotations"][1].pop("image_id"), r"annotations\[1\] has no 'image_id'"),
        (lambda c: c["annotations"][1].pop("category_id"), r"annotations\[1\] has no 'category_id'"),
        (lambda c: c["annotations"][1].pop("segmentation"), r"annotations\[1\] has no 'segmentation'"),
        (lambda c: c["annotations"][1].update(category_id=2), r"annotations\[1\]\.category_id is 2, .* none of the 3 categories"),
        (lambda c: c["annotations"][1].update(category_id=True), r"annotations\[1\]\.category_id is True; expected a whole num"),
        (lambda c: c["annotations"][1].update(iscrowd="no"), r"annotations\[1\]\.iscrowd is 'no'; expected 0 or 1"),
        (lambda c: c["annotations"][1].update(id=900), r"annotations\[1\]: the id 900 is there twice"),
        (lambda c: c["categories"][1].update(id=90), r"categories\[1\]: the id 90 is there twice"),
        (lambda c: c["categories"][1].pop("name"), r"categories\[1\] has no 'name'"),
        (lambda c: c["categories"][1].update(name=["x"] * 99), r"categories\[1\]\.name is \['x', .*\.\.\.; expected a name"),
    ],
)
def test_a_file_of_another_form(root, edit, message):
    path = change(root, edit)
    with pytest.raises(ValueError, match=rf"^data\.train_annotations: {path}: {message}") as caught:
        Coco(root=str(root)).items("weak")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"no JSON: Expecting \{: line 1 column 1"),
        ("[]", r"no JSON: Expecting \{"),
        ("{}", "there is no 'images'"),
        ('{"images": []', r"no JSON: Expecting , or \}: line 1 column 14"),
        ('{"images": [PICTURE 2]}', r"no JSON: Expecting , or \]: line 1 column 68"),
        ('{"images": [PICTURE], "categories": [], "annotations": []} {', "no JSON: Extra data: line 1 column 109"),
        ('{"info": {"a"', "no JSON: "),
        ('{"info": ' + "[" * 100_000, "no JSON: "),
        ('{"images": [{"id": 1, "file_name": "a\\', "no JSON: "),
    ],
)
def test_no_json(root, content, message):
    path = write(root, "train", content.replace("PICTURE", '{"id": 1, "file_name": "a.jpg", "height": 1, "width": 1}'))
    with pytest.raises(ValueError, match=rf"^data\.train_annotations: {path}: {message}"):
        Coco(root=str(root)).items("weak")


def test_names_that_are_not_utf8(root):
    path = root / "annotations" / "instances_train2014.json"
    path.write_bytes(path.read_bytes().replace(b'"person"', b'"p\xe9rson"'))
    with pytest.raises(ValueError, match=r"^data\.train_annotations: .*train2014\.json is not UTF-8 text; save it as UTF-8"):
        Coco(root=str(root)).class_names()


def test_classes(root):
    change(root, lambda content: content["categories"][0].update(name="background"))
    with pytest.raises(ValueError, match=r"^data\.train_annotations: .*json: categories: leave 'background' out"):
        Coco(root=str(root)).class_names()
    change(root, lambda content: content["categories"].append({"id": 5, "name": "bus"}))
    different = r"category 5 is missing, in .*train2014\.json bus; both files need the same categories"
    with pytest.raises(ValueError, match=rf"^data\.val_annotations: .*val2014\.json: {different}"):
        Coco(root=str(root)).items("val")


def test_what_is_missing_is_named(root, monkeypatch):
    (root / "own.txt").write_text(f"{TRAIN(9)}\n{TRAIN(11)} 4\n")
    with pytest.raises(ValueError, match=rf"own\.txt:2: image '{TRAIN(11)}' is not in .*train2014\.json; expected a file's name"):
        Coco(root=str(root), train="own.txt").items("weak")
    with pytest.raises(ValueError, match=r"^data\.strong: cannot read .*none\.txt"):
        Coco(root=str(root), strong="none.txt").items("strong")
    with pytest.raises(ValueError, match=r"^data\.strong: there is no such file; set it to one"):
        Coco(root=str(root)).items("strong")
    with pytest.raises(ValueError, match=r"^data\.val_annotations: there is no such file; set it to one"):
        Coco(root=str(root), val_annotations=None).items("val")
    with pytest.raises(ValueError, match=r"^data\.val_annotations: cannot read .*none\.json: No such file"):
        Coco(root=str(root), val_annotations="none.json").items("val")
    with pytest.raises(ValueError, match=r"^data\.root: .*nowhere is no folder"):
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
